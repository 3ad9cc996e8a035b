"""Atomic writes, content digests of files, and arrays that may be found damaged."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np

from pose_cache.files import atomic, flush, write_bytes, write_json, write_text

__all__ = ["atomic", "digest", "flush", "read_array", "write_array", "write_bytes", "write_json", "write_text"]


def digest(path: Path) -> str:
    """SHA-256 of a file, first 16 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as ``.npy``, whole or not at all."""
    data = io.BytesIO()  # written to a file, np.save hides that the disk is full
    np.save(data, array)
    write_bytes(path, data.getvalue())


def read_array(path: Path, count: int) -> np.ndarray | None:
    """Read what `write_array` wrote; None where it is missing, damaged, or has another number of rows."""
    try:
        array = np.asarray(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None
    return array if array.ndim and len(array) == count else None
