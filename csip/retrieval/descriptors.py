"""Descriptors of a data set's tracklets in one HDF5 file, which search, clustering and reports read.

/features  (tracklets, D)  float32   unit length
/names     (tracklets,)    string    names of the tracklets; fixed length
/pids      (tracklets,)    int64     the identity; 0 where unknown
/cameras   (tracklets,)    int64     as the data set's reader numbers them
/query     (tracklets,)    bool      whether the tracklet is a query of the data set's protocol
/gallery   (tracklets,)    bool      whether it is in the gallery
/pictures  (tracklets,)    uint64    digest of its frames' files; missing where it was not taken
attributes: format, dataset, model
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from csip.config import DatasetSettings
from csip.data.content import contents_of
from csip.data.dataset import Dataset, Tracklet
from csip.data.readers import load_dataset
from csip.errors import CsipError
from csip.files import atomic
from pose_cache.hdf5_checks import check_dataset, check_heaps
from pose_cache.parts import write_rows

FORMAT = 2
# Format 1 had texts of variable length.
_READABLE = (1, FORMAT)
# Tracklets whose pictures are compared before descriptors are used: some seconds on a slow disk.
_LOOKED_AT = 5000
# By attribute: the name in the file, and the type.
_COLUMNS = {
    "identities": ("pids", np.int64),
    "cameras": ("cameras", np.int64),
    "query": ("query", np.bool_),
    "gallery": ("gallery", np.bool_),
}


@dataclass(frozen=True, eq=False)
class Descriptors:
    """What a model says of tracklets; ``numpy.asarray`` of it is `features`.

    Attributes
    ----------
    features
        (tracklets, D) float32, each of unit length.
    names
        Names of the tracklets, each once.
    identities
        (tracklets,) int64, the person; 0 where unknown.
    cameras
        (tracklets,) int64, as the data set's reader numbers them.
    query, gallery
        (tracklets,) bool, the parts that the tracklet has in the data set's protocol.
    dataset
        Name of the data set; empty where the frames are of none.
    model
        Digest of the model's file.
    pictures
        (tracklets,) uint64, digest of the frames' files, see `csip.data.content`; None where it is not known.

    Raises
    ------
    CsipError
        The lengths differ, or a name appears twice.
    """

    features: np.ndarray
    names: tuple[str, ...]
    identities: np.ndarray
    cameras: np.ndarray
    query: np.ndarray
    gallery: np.ndarray
    dataset: str
    model: str
    pictures: np.ndarray | None = None

    def __post_init__(self) -> None:
        count = len(self.names)
        if self.features.ndim != 2 or len(self.features) != count:
            raise CsipError(f"descriptors of {count} tracklets must be ({count}, D), got {self.features.shape}")
        for column in _COLUMNS:
            if getattr(self, column).shape != (count,):
                raise CsipError(f"{column} of {count} tracklets must be ({count},), got {getattr(self, column).shape}")
        if self.pictures is not None and self.pictures.shape != (count,):
            raise CsipError(f"pictures of {count} tracklets must be ({count},), got {self.pictures.shape}")
        if len(set(self.names)) != count:
            raise CsipError(f"descriptors: {count - len(set(self.names))} names of tracklets appear twice")

    def __len__(self) -> int:
        return len(self.names)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.features, dtype) if copy else np.asarray(self.features, dtype)

    def __repr__(self) -> str:
        count, width = self.features.shape
        known = len(set(self.identities.tolist()) - {0})
        of = f" of data set {self.dataset}" if self.dataset else ""
        return (
            f"<Descriptors: {count:,} tracklets{of}, {width:,} numbers each, {known:,} identities, model {self.model}>"
        )

    @staticmethod
    def of(
        dataset: Dataset,
        tracklets: Sequence[Tracklet],
        features: np.ndarray,
        model: str,
        pictures: np.ndarray | None = None,
    ) -> Descriptors:
        """Put features together with what the data set says of their tracklets.

        Parameters
        ----------
        pictures
            `csip.data.content.contents_of` the tracklets before the features were made of them; now, where it is not given.
        """
        names, columns = _described(dataset, tracklets)
        pictures = contents_of(dataset.root, tracklets) if pictures is None else pictures
        return Descriptors(features, names, **columns, dataset=dataset.name, model=model, pictures=pictures)

    def take(self, rows: Sequence[int] | np.ndarray) -> Descriptors:
        """Return the descriptors of some rows, in that order."""
        chosen = np.asarray(rows, dtype=np.int64)
        columns = {column: getattr(self, column)[chosen] for column in ("features", *_COLUMNS)}
        names = tuple(self.names[row] for row in chosen.tolist())
        pictures = None if self.pictures is None else self.pictures[chosen]
        return Descriptors(names=names, **columns, dataset=self.dataset, model=self.model, pictures=pictures)

    def save(self, path: Path | str) -> None:
        """Write them as ``.h5``, or as ``.npz`` for programs that do not read HDF5, whole or not at all.

        Raises
        ------
        CsipError
            The name has another ending.
        """
        path = Path(path)
        check_suffix(path)
        (write_descriptors if path.suffix == ".h5" else write_arrays)(path, self)


def check_suffix(path: Path) -> None:
    """See that descriptors can be written under this name.

    Raises
    ------
    CsipError
        It ends in neither ``.h5`` nor ``.npz``.
    """
    if path.suffix not in (".h5", ".npz"):
        raise CsipError(
            f"{path}: descriptors are written as .h5 or .npz; expected a name that ends so", parameter="out"
        )


def write_descriptors(path: Path, descriptors: Descriptors) -> None:
    """Write descriptors; a reader sees the old file or the new one, never a part."""
    columns = {attribute: getattr(descriptors, attribute) for attribute in _COLUMNS}
    texts = {"dataset": descriptors.dataset, "model": descriptors.model}
    _write(path, [descriptors.features], descriptors.names, columns, descriptors.pictures, texts)


def write_in_blocks(
    path: Path,
    dataset: Dataset,
    tracklets: Sequence[Tracklet],
    blocks: Iterable[np.ndarray],
    model: str,
    pictures: np.ndarray,
) -> None:
    """Write descriptors whose features need not fit in memory, see `Descriptors.of`.

    Parameters
    ----------
    blocks
        The features, some rows after the other, at least one block.
    """
    names, columns = _described(dataset, tracklets)
    _write(path, blocks, names, columns, pictures, {"dataset": dataset.name, "model": model})


def _described(dataset: Dataset, tracklets: Sequence[Tracklet]) -> tuple[tuple[str, ...], dict[str, np.ndarray]]:
    """Return the names of tracklets, and what the data set says of them by the attributes of `Descriptors`."""
    query, gallery = ({t.name for t in part} for part in (dataset.query, dataset.gallery))
    columns = {
        "identities": [t.pid for t in tracklets],
        "cameras": [t.camera for t in tracklets],
        "query": [t.name in query for t in tracklets],
        "gallery": [t.name in gallery for t in tracklets],
    }
    typed: dict[str, np.ndarray] = {
        attribute: np.array(columns[attribute], dtype=dtype) for attribute, (_, dtype) in _COLUMNS.items()
    }
    return tuple(t.name for t in tracklets), typed


def _write(
    path: Path,
    blocks: Iterable[np.ndarray],
    names: Sequence[str],
    columns: Mapping[str, np.ndarray],
    pictures: np.ndarray | None,
    texts: Mapping[str, str],
) -> None:
    # Neither texts of variable length nor a structure without checksums: where those are damaged, HDF5 may loop for ever.
    # Mapped features that are not aligned would be copied whole before a row of them is taken.
    how = {"libver": "latest", "alignment_threshold": 256, "alignment_interval": 64}
    with atomic(path) as temporary, h5py.File(temporary, "w", **how) as file:
        write_rows(file, "features", len(names), blocks)
        file["names"] = _fixed_length(names)
        for attribute, (column, dtype) in _COLUMNS.items():
            file[column] = columns[attribute].astype(dtype, copy=False)
        if pictures is not None:
            file["pictures"] = pictures
        file.attrs["format"] = FORMAT
        for key, text in texts.items():
            file.attrs[key] = _fixed_length([text]).reshape(())


def write_arrays(path: Path, descriptors: Descriptors) -> None:
    """Write descriptors as ``.npz``, an array per column, for programs that do not read HDF5."""
    columns = {column: getattr(descriptors, attribute) for attribute, (column, _) in _COLUMNS.items()}
    with atomic(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            features=descriptors.features,
            **columns,
            names=np.array(descriptors.names, dtype=np.str_),
            dataset=np.str_(descriptors.dataset),
            model=np.str_(descriptors.model),
        )


def read_descriptors(path: Path | str, mapped: bool = False) -> Descriptors:
    """Read what `write_descriptors` wrote.

    Parameters
    ----------
    mapped
        Leave the features on the disk, as a memory map that cannot be written to.

    Raises
    ------
    CsipError
        The file is missing, damaged, or no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise CsipError(f"{path}: no such file", parameter="descriptors")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") not in _READABLE:
                raise CsipError(
                    f"{path}: no descriptors of format {' or '.join(map(str, _READABLE))}", parameter="descriptors"
                )
            if file.attrs["format"] == 1:
                check_heaps(path)
            stored = check_dataset(file, "features", path)
            if stored.ndim != 2 or stored.dtype.kind != "f":
                raise CsipError(
                    f"{path}: /features has the shape {stored.shape} of {stored.dtype}, expected (tracklets, D) of float32",
                    parameter="descriptors",
                )
            rows, names_of = len(stored), check_dataset(file, "names", path)
            listed = {attribute: check_dataset(file, column, path) for attribute, (column, _) in _COLUMNS.items()}
            optional = [check_dataset(file, "pictures", path)] if "pictures" in file else []
            for dataset in (names_of, *listed.values(), *optional):
                if dataset.shape != (rows,):
                    raise CsipError(
                        f"{path}: {dataset.name} has the shape {dataset.shape}, expected ({rows},), one per descriptor",
                        parameter="descriptors",
                    )
            names = tuple(name.decode(errors="surrogateescape") for name in names_of[()].tolist())
            columns = {attribute: listed[attribute][()].astype(dtype) for attribute, (_, dtype) in _COLUMNS.items()}
            pictures = optional[0][()].astype(np.uint64) if optional else None
            offset = stored.id.get_offset()  # None where they are not in one piece
            if mapped and offset is not None and stored.dtype == np.float32:
                features = np.memmap(path, np.float32, "r", offset, stored.shape)
            else:
                features = stored[()].astype(np.float32, copy=False)
            dataset, model = _text(file.attrs["dataset"]), _text(file.attrs["model"])
    except CsipError:
        raise
    except (OSError, KeyError, AttributeError, RuntimeError, TypeError, ValueError, MemoryError) as error:
        raise CsipError(f"{path}: damaged or no file of descriptors ({error})", parameter="descriptors") from error
    return Descriptors(features, names, **columns, dataset=dataset, model=model, pictures=pictures)


def _fixed_length(texts: Sequence[str]) -> np.ndarray:
    """Return texts as bytes, all of one length; a file's name need not be UTF-8."""
    encoded = [text.encode(errors="surrogateescape") for text in texts]
    return np.array(encoded, dtype=f"S{max(map(len, encoded), default=0) or 1}")


def _text(value: Any) -> str:
    """Return the text of an attribute, whose length is fixed or, in format 1, variable."""
    return value.decode(errors="surrogateescape") if isinstance(value, bytes) else str(value)


def check_pictures(path: Path, descriptors: Descriptors, settings: DatasetSettings) -> None:
    """Refuse descriptors of pictures that have changed since, under the same names.

    Looked at are at most `_LOOKED_AT` tracklets, evenly spread. Nothing is where the data set is not on this disk.

    Parameters
    ----------
    path
        The file of descriptors, for messages.
    settings
        The data set that they are of.

    Raises
    ------
    CsipError
        Pictures have changed.
    """
    if descriptors.pictures is None or not settings.path.is_dir():
        return
    try:
        dataset = load_dataset(settings)
    except (
        CsipError
    ):  # said where the data set itself is needed: labels that cannot be read may be about to be replaced
        return
    known = {t.name: t for t in (*dataset.train, *dataset.query, *dataset.gallery)}
    spread = np.unique(np.linspace(0, len(descriptors) - 1, min(len(descriptors), _LOOKED_AT)).round().astype(int))
    rows = [row for row in spread.tolist() if descriptors.names[row] in known]
    now = contents_of(dataset.root, [known[descriptors.names[row]] for row in rows])
    changed = np.flatnonzero(now != descriptors.pictures[rows])
    if len(changed):
        raise CsipError(
            f"{path}: the pictures of {len(changed):,} of {len(rows):,} tracklets have changed since it was made, e.g. of "
            f"{descriptors.names[rows[changed[0]]]}",
            parameter="pictures",
        )
