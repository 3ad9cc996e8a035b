"""Atomic writes of files and folders, and content digests of files."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from csip.errors import CsipError
from pose_cache.files import atomic, flush, parse_json, write_bytes, write_json, write_text

__all__ = ["atomic", "digest", "flush", "parse_json", "whole_folder", "write_bytes", "write_json", "write_text"]


def digest(path: Path) -> str:
    """SHA-256 of a file, first 16 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@contextmanager
def whole_folder(root: Path, replace: bool = False) -> Iterator[Path]:
    """Give a folder beside `root` to write into, which takes the name `root` at the end: it is there whole or not at all.

    Parameters
    ----------
    root
        The folder to make; it must not exist, or be empty, unless `replace` is set.
    replace
        Remove what `root` holds once the new content is whole.

    Raises
    ------
    CsipError
        If `root` holds something already.
    """
    if root.exists() and not replace and (not root.is_dir() or any(root.iterdir())):
        raise CsipError(f"{root}: expected a new or an empty folder to write into; remove it, or name another")
    partial = root.parent / f".{root.name}.partial"
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    if root.exists():
        shutil.rmtree(root)
    partial.rename(root)
