"""The HDF5 file under the skeleton cache: its sizes, attributes, checksums, and how it is opened and put in place.

The format is described in `pose_cache.store`, which is the module to use.
"""

import datetime
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np

from pose_cache.errors import PoseCacheError, UserError
from pose_cache.files import atomic, own_temporary
from pose_cache.hdf5_checks import check_dataset, check_heaps, check_rows
from pose_cache.joints import joint_set
from pose_cache.sources import SOURCE, unknown_sources

FORMAT: Final = "csip-skeletons"
VERSION: Final = 1

# From 1.10 on, checksums are over the whole structure: a damaged size is an error and no allocation.
_LIBRARY: Final = ("v110", "v110")
# Headers of the file and of its datasets.
_OVERHEAD: Final = 65536
# The texts of attributes are among the first bytes, before the arrays.
_HEAD: Final = 1 << 20
_REASON: Final = re.compile(r"error message = '([^']*)'")


@dataclass(frozen=True)
class Provenance:
    """Where skeletons come from.

    Attributes
    ----------
    estimator : str
        Name of the estimator, or of the source of imported skeletons.
    joint_set : str
        Name of the joint set of the 3D joints.
    unit : str
        Unit of the 3D joints.
    details : Mapping
        What JSON can hold: configs, digests of weights; under "software" the versions of programs, which do not count
        when two files are compared.
    dataset : str
        Fingerprint of the frames' names.
    """

    estimator: str
    joint_set: str
    unit: str
    details: Mapping[str, Any] = field(default_factory=dict)
    dataset: str = ""


@dataclass(frozen=True)
class Layout:
    """The sizes that a file is made with: N, J, K and the bytes of the longest frame name."""

    frames: int
    joints: int
    keypoints: int
    name_bytes: int

    @staticmethod
    def of(file: h5py.File) -> "Layout":
        return Layout(
            len(file["valid"]), file["joints"].shape[1], file["keypoints2d"].shape[1], file["frames"].dtype.itemsize
        )


@contextmanager
def create_file(
    path: Path, layout: Layout, table: np.ndarray, provenance: Provenance, created: datetime.datetime | None = None
) -> Iterator[h5py.File]:
    """Make a new file of that layout, put in its place when the block ends without an error."""
    temporary = own_temporary(path)
    created = created or datetime.datetime.now(datetime.UTC)
    attributes = {
        "joint_set": provenance.joint_set,
        "unit": provenance.unit,
        "estimator": provenance.estimator,
        "dataset": provenance.dataset,
        "details": json.dumps(lasting_details(provenance.details), sort_keys=True),
        "software": json.dumps(provenance.details.get("software", {}), sort_keys=True),
        "created": created.isoformat(timespec="seconds"),
    }
    frame_bytes = 12 * (layout.joints + layout.keypoints) + 1 + layout.name_bytes + SOURCE.itemsize
    text_bytes = sum(len(text.encode()) for text in attributes.values())
    try:
        with atomic(path, temporary) as partial:
            _reserve(partial, layout.frames * frame_bytes + table.nbytes + 4 * len(table) + 2 * text_bytes + _OVERHEAD)
            # Mapped arrays that are not aligned are copied whole before a row of them is taken.
            with h5py.File(partial, "r+", libver=_LIBRARY, alignment_threshold=256, alignment_interval=64) as file:
                file.attrs["format"] = FORMAT
                file.attrs["version"] = VERSION
                for key, text in attributes.items():
                    file.attrs[key] = text
                file.create_dataset("joints", (layout.frames, layout.joints, 3), "<f4")
                file.create_dataset("keypoints2d", (layout.frames, layout.keypoints, 3), "<f4")
                file.create_dataset("valid", (layout.frames,), bool)
                file.create_dataset("frames", (layout.frames,), h5py.string_dtype("utf-8", layout.name_bytes))
                file.create_dataset("sources", (layout.frames,), SOURCE)
                file.create_dataset("tracklets", data=table)
                file.create_dataset("checksums", (len(table),), "<u4")
                yield file
    except (OSError, RuntimeError) as error:  # h5py raises either, and tells the system's reason in its text
        found = _REASON.search(str(error))
        reason = found.group(1) if found else getattr(error, "strerror", None) or error
        raise PoseCacheError(f"cannot write {path}: {reason}. Is the disk full or the folder read-only?") from error


def _reserve(path: Path, size: int) -> None:
    """Make an empty HDF5 file with disk space for its data to come: HDF5 itself may crash when a disk is full."""
    with h5py.File("empty", "w", libver=_LIBRARY, driver="core", backing_store=False) as empty:
        empty.flush()
        image = empty.id.get_file_image()
    with path.open("xb") as file:
        file.write(image)
        file.flush()
        os.posix_fallocate(file.fileno(), 0, max(size, len(image)))  # HDF5 cuts off what is left over


@contextmanager
def open_file(path: Path) -> Iterator[h5py.File]:
    """Open the file for reading, once it is seen to be a cache of this version."""
    if not path.is_file():
        raise PoseCacheError(
            f"no skeleton cache at {path}: extract skeletons, or check the path", parameter="skeletons"
        )
    try:
        if path.stat().st_size:
            check_heaps(path, _HEAD)
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise PoseCacheError(f"{path} is not a readable HDF5 file ({error}): delete it and make it again") from error
    with file:
        try:
            _check_file(file, path)
            yield file
        except UserError:
            raise
        except (OSError, RuntimeError, KeyError, TypeError, ValueError, OverflowError, MemoryError) as error:
            raise PoseCacheError(f"{path} is damaged ({error}): delete it and make it again") from error


def _check_file(file: h5py.File, path: Path) -> None:
    """See that an open file is a cache of this version, whole and by itself."""
    if _text(file.attrs.get("format")) != FORMAT:
        raise PoseCacheError(f"{path} is an HDF5 file, but not a skeleton cache (no attribute format={FORMAT!r})")
    version = file.attrs.get("version", 0)
    if version != VERSION:
        raise PoseCacheError(
            f"{path} has format version {version}, this program reads version {VERSION}: make it again"
        )
    keys = ("joints", "keypoints2d", "valid", "frames", "tracklets", "checksums")
    if missing := [key for key in keys if file.get(key, getlink=True) is None]:
        raise PoseCacheError(f"{path} lacks {', '.join(missing)}: delete it and make it again")
    optional = ("sources",) if file.get("sources", getlink=True) is not None else ()
    found = {key: check_dataset(file, key, path, contiguous=True) for key in (*keys, *optional)}
    for key, shape, dtype in (
        ("joints", (None, None, 3), np.dtype("<f4")),
        ("keypoints2d", (None, None, 3), np.dtype("<f4")),
        ("valid", (None,), np.dtype(bool)),
        ("checksums", (None,), np.dtype("<u4")),
        *((key, (None,), SOURCE) for key in optional),
    ):
        check_rows(path, key, found[key], shape, dtype)
    frames, table = found["frames"], found["tracklets"]
    if frames.ndim != 1 or frames.dtype.kind != "S":
        raise PoseCacheError(f"{path}: /frames has the shape {frames.shape} of {frames.dtype}, expected (N,) texts")
    fields = table.dtype.fields or {}
    numbers = [fields[name][0] for name in ("start", "length") if name in fields]
    if table.ndim != 1 or "name" not in fields or fields["name"][0].kind != "S" or numbers != [np.dtype("<i8")] * 2:
        raise PoseCacheError(
            f"{path}: /tracklets has the shape {table.shape} of {table.dtype}, expected (M,) of name, start and length"
        )


def check_table(path: Path, table: np.ndarray, frames: int, checksums: int) -> None:
    """Refuse a table whose tracklets do not lie one after the other over all frames, each with a checksum.

    Raises
    ------
    PoseCacheError
    """
    lengths, starts = table["length"], table["start"]
    # Sums of hostile lengths may run over: no length alone exceeds the frames, and the starts then tell.
    whole = not len(table) or (lengths.min() >= 0 and lengths.max() <= frames)
    ends = np.cumsum(lengths)
    if not whole or not np.array_equal(starts, ends - lengths) or (int(ends[-1]) if len(table) else 0) != frames:
        raise PoseCacheError(
            f"{path}: /tracklets does not cover the {frames} frames one after the other; make it again"
        )
    if checksums != len(table):
        raise PoseCacheError(f"{path}: /checksums has {checksums} entries for {len(table)} tracklets; make it again")


def _text(value: Any) -> str | None:
    return value.decode(errors="replace") if isinstance(value, bytes) else value if isinstance(value, str) else None


def read_provenance(file: h5py.File) -> Provenance:
    """Read the attributes of an open file."""
    try:
        details, software = json.loads(file.attrs["details"]), json.loads(file.attrs["software"])
        texts = [str(file.attrs[key]) for key in ("estimator", "joint_set", "unit", "dataset")]
        if not isinstance(details, dict) or not isinstance(software, dict):
            raise ValueError(f"details and software should be JSON objects, found {details!r:.40} and {software!r:.40}")
        joint_set(texts[1])
    except (KeyError, ValueError, TypeError, OSError, RuntimeError, RecursionError) as error:
        raise PoseCacheError(f"{file.filename}: its attributes are damaged ({error}): make it again") from error
    return Provenance(texts[0], texts[1], texts[2], {**details, "software": software}, texts[3])


def tracklet_table(names: Sequence[bytes], lengths: Sequence[int] | np.ndarray, path: Path) -> np.ndarray:
    """Return the tracklet table of names and lengths, in order."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise PoseCacheError(f"{path}: the tracklet {twice.decode()!r} comes twice; names must be unique in a dataset")
    table = np.zeros(len(names), _table_type(max(map(len, names), default=1)))
    table["name"], table["length"] = names, lengths
    table["start"] = np.cumsum(table["length"]) - table["length"]
    return table


def _table_type(name_bytes: int) -> np.dtype:
    return np.dtype([("name", h5py.string_dtype("utf-8", name_bytes)), ("start", "<i8"), ("length", "<i8")])


def lasting_details(details: Mapping[str, Any]) -> dict[str, Any]:
    """Return the details that count when files are compared: all but the programs' versions."""
    return {key: value for key, value in details.items() if key != "software"}


def tracklet_checksum(
    name: bytes,
    frames: Sequence[bytes] | np.ndarray,
    joints: np.ndarray,
    keypoints2d: np.ndarray,
    valid: np.ndarray,
    sources: np.ndarray | None = None,
) -> int:
    """CRC-32 of a tracklet; independent of the padding of names, so that merging can copy it.

    Sources count where one is known: files of before there were sources keep their checksums.
    """
    listed = frames.tolist() if isinstance(frames, np.ndarray) else frames
    value = zlib.crc32(b"\0".join([name, *listed]))
    for array in (joints, keypoints2d, valid):
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    if sources is not None and (sources != unknown_sources(1)).any():
        value = zlib.crc32(np.ascontiguousarray(sources).view(np.uint8).data, value)
    return value


def read_sources(file: h5py.File, rows: slice) -> np.ndarray:
    """Read the sources of some frames; unknown where a file of an earlier program has none."""
    if "sources" in file:
        return file["sources"][rows]
    return unknown_sources(len(range(*rows.indices(len(file["valid"])))))


def read_created(file: h5py.File) -> datetime.datetime:
    """Read when the first of a file's frames was read."""
    try:
        return datetime.datetime.fromisoformat(str(file.attrs["created"])).astimezone(datetime.UTC)
    except (KeyError, ValueError, OSError, RuntimeError, OverflowError) as error:
        raise PoseCacheError(f"{file.filename}: its attributes are damaged ({error}): make it again") from error


def map_dataset(path: Path, dataset: h5py.Dataset) -> np.ndarray:
    """Map a contiguous dataset from the file, read-only."""
    offset = dataset.id.get_offset()
    if offset is None:
        return np.empty(dataset.shape, dataset.dtype)
    # As a plain array: slices of a memmap are memmaps again, which takes longer than reading a clip.
    return np.memmap(path, dataset.dtype, "r", offset, dataset.shape).view(np.ndarray)
