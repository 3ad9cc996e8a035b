"""An HDF5 file from anywhere may lead elsewhere, or promise far more than it holds: what is looked at before it is read."""

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import h5py
import numpy as np

from pose_cache.errors import PoseCacheError

_LINKS: Final = {h5py.ExternalLink: "an external link", h5py.SoftLink: "a soft link"}

_HEAP: Final = b"GCOL\x01\0\0\0"


def check_heaps(path: Path, reach: int | None = None) -> None:
    """Refuse a file in which a heap of texts of variable length is damaged so that HDF5 would walk through it for ever.

    Source: HDF5 File Format Specification 3.0, III.E: a heap is a row of objects, each with its size before it.

    Parameters
    ----------
    path : Path
        The file, which is not empty.
    reach : int, optional
        How many of its first bytes are searched; all by default.

    Raises
    ------
    PoseCacheError
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        end = len(data) if reach is None else reach
        heap = data.find(_HEAP, 0, end)
        while heap >= 0:
            place, stop = heap + 16, min(heap + int.from_bytes(data[heap + 8 : heap + 16], "little"), len(data))
            while place + 16 <= stop:
                size = int.from_bytes(data[place + 8 : place + 16], "little")
                # What has the number 0 is free space, whose size includes that of its own head.
                step = 16 + -(-size // 8) * 8 if any(data[place : place + 2]) else size
                if not 0 < step <= stop - place:
                    raise PoseCacheError(
                        f"{path} is damaged: the heap of texts at byte {heap} has no end; delete the file and make it again"
                    )
                place += step
            heap = data.find(_HEAP, heap + 1, end)


def check_dataset(group: h5py.Group, key: str, path: Path, *, contiguous: bool = False) -> h5py.Dataset:
    """Return a dataset of a file, once it is seen to lie in that file and to be no larger than it can be.

    Parameters
    ----------
    group : h5py.Group
        The open file, or a group in it.
    key : str
        The dataset's name.
    path : Path
        The file, for messages.
    contiguous : bool
        Its bytes have to lie in one piece, as they must to be mapped; otherwise chunks and compression are welcome.

    Raises
    ------
    PoseCacheError
        It is missing, no dataset, a link, made of other files' data, or says that it holds more than the file does.
    """
    found = group.get(key, getlink=True)
    if found is None:
        raise PoseCacheError(f"{path} lacks {key}: delete it and make it again")
    if type(found) is not h5py.HardLink:
        kind = _LINKS.get(type(found), "a link")
        target = f"{getattr(found, 'filename', '')}:{getattr(found, 'path', '')}".lstrip(":")
        raise PoseCacheError(
            f"{path}: /{key} is {kind} to {target}, expected data in the file itself; links are refused"
        )
    dataset = group.get(key)
    if not isinstance(dataset, h5py.Dataset):
        raise PoseCacheError(f"{path}: /{key} is a {type(dataset).__name__}, expected a dataset; make the file again")
    if dataset.is_virtual or dataset.external:
        raise PoseCacheError(
            f"{path}: /{key} takes its data from other files, expected them in the file; they are refused"
        )
    if dataset.shape is None:
        raise PoseCacheError(f"{path}: /{key} is empty, without a shape; make the file again")
    stored = dataset.id.get_storage_size()
    if stored > path.stat().st_size or (dataset.size and not stored):
        raise PoseCacheError(
            f"{path}: /{key} says it has the shape {dataset.shape} of {dataset.dtype}, but the file holds {stored:,} bytes of "
            "it; it is cut short or damaged: make it again"
        )
    if contiguous:
        _check_piece(dataset, key, path, stored)
    return dataset


def check_rows(path: Path, key: str, dataset: h5py.Dataset, shape: Sequence[int | None], dtype: np.dtype) -> None:
    """Refuse a dataset of another shape (None: any size) or other numbers than the format's.

    Raises
    ------
    PoseCacheError
    """
    sizes = dataset.shape
    fits = len(sizes) == len(shape) and all(want in (None, size) for want, size in zip(shape, sizes, strict=True))
    if not fits or dataset.dtype != dtype:
        expected = "(" + ", ".join("any" if want is None else str(want) for want in shape) + ")"
        raise PoseCacheError(
            f"{path}: /{key} has the shape {sizes} of {dataset.dtype}, expected {expected} of {dtype}; make the file again"
        )


def _check_piece(dataset: h5py.Dataset, key: str, path: Path, stored: int) -> None:
    """Refuse what cannot be mapped: chunks, and a piece that is shorter than its shape or reaches over the file's end."""
    properties = dataset.id.get_create_plist()
    size = dataset.size * dataset.dtype.itemsize
    if properties.get_layout() != h5py.h5d.CONTIGUOUS or properties.get_nfilters():
        raise PoseCacheError(
            f"{path}: /{key} is in chunks or compressed, expected one plain piece, as caches are written; make the file again"
        )
    offset = dataset.id.get_offset()
    if size and (offset is None or stored < size or offset + size > path.stat().st_size):
        raise PoseCacheError(
            f"{path}: /{key} says it has the shape {dataset.shape}, {size:,} bytes, but the file has {stored:,} bytes of it; "
            "it is cut short or damaged: make it again"
        )
