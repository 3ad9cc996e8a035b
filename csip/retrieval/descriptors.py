"""Descriptors of a data set's tracklets in one HDF5 file: what search, clusters and reports start from.

/features  (tracklets, D)  float32   unit length
/names     (tracklets,)    string    names of the tracklets
/pids      (tracklets,)    int64     the person; 0 where unknown
/cameras   (tracklets,)    int64     as the data set's reader numbers them
/query     (tracklets,)    bool      whether the tracklet is a query of the data set's protocol
/gallery   (tracklets,)    bool      whether it is in the gallery
attributes: format, dataset, model
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from csip.errors import CsipError

FORMAT = 1
_COLUMNS = {"pids": np.int64, "cameras": np.int64, "query": np.bool_, "gallery": np.bool_}


@dataclass(frozen=True)
class Descriptors:
    """What a model says of tracklets.

    Attributes
    ----------
    features
        (tracklets, D) float32, each of unit length.
    names
        Names of the tracklets, each once.
    pids
        (tracklets,) int64, the person; 0 where unknown.
    cameras
        (tracklets,) int64, as the data set's reader numbers them.
    query, gallery
        (tracklets,) bool, the parts that the tracklet has in the data set's protocol.
    dataset
        Name of the data set.
    model
        Digest of the model's file.

    Raises
    ------
    CsipError
        The lengths differ, or a name appears twice.
    """

    features: np.ndarray
    names: tuple[str, ...]
    pids: np.ndarray
    cameras: np.ndarray
    query: np.ndarray
    gallery: np.ndarray
    dataset: str
    model: str

    def __post_init__(self) -> None:
        count = len(self.names)
        if self.features.ndim != 2 or len(self.features) != count:
            raise CsipError(f"descriptors of {count} tracklets must be ({count}, D), got {self.features.shape}")
        for column in _COLUMNS:
            if getattr(self, column).shape != (count,):
                raise CsipError(f"{column} of {count} tracklets must be ({count},), got {getattr(self, column).shape}")
        if len(set(self.names)) != count:
            raise CsipError(f"descriptors: {count - len(set(self.names))} names of tracklets appear twice")

    def __len__(self) -> int:
        return len(self.names)


def write_descriptors(path: Path, descriptors: Descriptors) -> None:
    """Write descriptors; a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    with h5py.File(temporary, "w") as file:
        file["features"] = descriptors.features.astype(np.float32, copy=False)
        # As bytes: a file's name need not be UTF-8.
        names = [name.encode(errors="surrogateescape") for name in descriptors.names]
        file.create_dataset("names", data=np.array(names, dtype=object), dtype=h5py.string_dtype())
        for column, dtype in _COLUMNS.items():
            file[column] = getattr(descriptors, column).astype(dtype, copy=False)
        file.attrs["format"] = FORMAT
        file.attrs["dataset"], file.attrs["model"] = descriptors.dataset, descriptors.model
    with temporary.open("rb") as written:
        os.fsync(written.fileno())
    temporary.replace(path)


def write_arrays(path: Path, descriptors: Descriptors) -> None:
    """Write descriptors as ``.npz``, an array a column, for programs that do not read HDF5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    columns = {column: getattr(descriptors, column) for column in ("features", *_COLUMNS)}
    with temporary.open("wb") as file:
        np.savez(
            file,
            **columns,
            names=np.array(descriptors.names, dtype=np.str_),
            dataset=np.str_(descriptors.dataset),
            model=np.str_(descriptors.model),
        )
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def read_descriptors(path: Path, mapped: bool = False) -> Descriptors:
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
    if not path.is_file():
        raise CsipError(f"{path}: no such file; `csip embed` and `csip evaluate` make RUN/descriptors.h5")
    try:
        with h5py.File(path, "r") as file:
            if file.attrs.get("format") != FORMAT:
                raise CsipError(f"{path}: no descriptors of format {FORMAT}; make the file anew with `csip embed`")
            names = tuple(name.decode(errors="surrogateescape") for name in file["names"][()])
            columns = {column: file[column][()].astype(dtype) for column, dtype in _COLUMNS.items()}
            stored = file["features"]
            offset = stored.id.get_offset()  # None where they are not in one piece
            if mapped and offset is not None and stored.dtype == np.float32:
                features = np.memmap(path, np.float32, "r", offset, stored.shape)
            else:
                features = stored[()].astype(np.float32, copy=False)
            dataset, model = str(file.attrs["dataset"]), str(file.attrs["model"])
    except (OSError, KeyError, AttributeError, RuntimeError, ValueError) as error:
        raise CsipError(
            f"{path}: damaged or no file of descriptors ({error}); make it anew with `csip embed`"
        ) from error
    return Descriptors(features, names, **columns, dataset=dataset, model=model)
