"""Atomic writes: a file is written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import filecmp
import json
import math
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# HDF5, safetensors and torch raise errors of their own and put the system's number or words into the text.
_NUMBER = re.compile(r"(?:errno = |os error )(\d+)")
_FULL = "No space left on device"
# Ends the names of `own_temporary`; what a killed process leaves under one is removed by the next writer.
PARTIAL = ".partial"


@contextmanager
def atomic(path: Path, temporary: Path | None = None, *, if_changed: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, which takes the place of ``path`` when the block ends.

    The file and its folder are flushed to the disk, so that after a crash of the program or of the machine a reader finds
    the old file or the new one, never a part. If the block raises, the temporary file is removed and ``path`` is left as it was.
    Folders that are missing are made. One process writes a file at a time.

    Parameters
    ----------
    path : Path
        The file to make or replace.
    temporary : Path, optional
        Another name in the same folder to write under, for a file that several processes may write at once.
    if_changed : bool
        Leave `path` alone where it holds the same, so that its time says when its content last changed.

    Raises
    ------
    OSError
        The file cannot be written (full disk, read-only folder, ...); ``filename`` is ``path``, whatever library met it.
    """
    temporary = temporary or path.with_name(f".{path.name.lstrip('.')}.partial{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.unlink(missing_ok=True)
        yield temporary
        if if_changed and path.is_file() and filecmp.cmp(temporary, path, shallow=False):
            temporary.unlink()
        else:
            flush(temporary)
            temporary.replace(path)
            flush(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        number = _system_error(error, temporary)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(path)) from error


def own_temporary(path: Path) -> Path:
    """Return a name for `atomic` that no other writer has: of two that make one file at once, each leaves a whole one."""
    return path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL}")


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file whole or not at all; what is no Unicode in a file's name stays as it is."""
    write_bytes(path, text.encode(errors="surrogateescape"))


def write_json(path: Path, tree: Any, indent: int = 1) -> None:
    """Write a tree of plain values as JSON, whole or not at all; JSON has no NaN and no infinity, which become null.

    What is no Unicode in a file's name is written as JSON's escapes, which every reader of JSON gives back.
    """
    text = json.dumps(_finite(tree), indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    write_bytes(path, text.encode(errors="backslashreplace"))


def parse_json(content: bytes | str) -> Any:
    """Return what a JSON text holds; bytes are UTF-8, with or without a byte-order mark.

    Raises
    ------
    ValueError
        It is no JSON, or its lists are nested so deeply that nobody meant it.
    """
    try:
        return json.loads(content.decode("utf-8-sig") if isinstance(content, bytes) else content)
    except RecursionError as error:
        raise ValueError("its lists are nested too deeply") from error


def flush(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _finite(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def _system_error(error: BaseException, temporary: Path) -> int | None:
    """Return the system's number of an error that writing has met; None for any other error."""
    if isinstance(error, OSError) and error.errno is not None:
        here = (None, str(temporary), str(temporary.parent))
        return error.errno if str(error.filename) in map(str, here) else None
    if isinstance(error, Exception):
        found = _NUMBER.search(str(error))
        if found:
            return int(found.group(1))
        if _FULL in str(error):
            return errno.ENOSPC
    return None
