"""The journal of a review: one JSON object a line, appended and flushed to the disk before anything else happens."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from csip.errors import CsipError
from csip.files import flush, parse_json
from csip.review.entries import check_entry

FORMAT = 1


class Journal:
    """Entries in the order in which they were made. Nothing is ever taken out: undoing is an entry, too.

    Parameters
    ----------
    path
        The file; it is made where there is none.
    dataset
        Name of the data set that it is about.
    say
        Hears of a last line that was cut off.

    Raises
    ------
    CsipError
        The file is of another data set or format, or a line of it is damaged.
    """

    def __init__(self, path: Path, dataset: str, say: Callable[[str], None] = lambda text: None) -> None:
        self.path = path
        self.entries: list[dict[str, Any]] = []
        if path.exists() and path.stat().st_size:
            self._read(dataset, say)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._append({"format": FORMAT, "dataset": dataset})
            flush(path.parent)

    def add(self, entry: dict[str, Any]) -> int:
        """Append an entry and return its number, from 1; it is on the disk when this returns.

        Raises
        ------
        CsipError
            It is no entry that could be read again.
        """
        try:
            check_entry(entry)
        except ValueError as error:
            raise CsipError(f"expected an entry of a review: {error}") from error
        self._append(entry)
        self.entries.append(entry)
        return len(self.entries)

    def _append(self, entry: dict[str, Any]) -> None:
        line = (json.dumps(entry, ensure_ascii=True, allow_nan=False) + "\n").encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            start = os.fstat(descriptor).st_size
            try:
                done = 0
                while done < len(line):
                    done += os.write(descriptor, line[done:])
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, start)  # a part of a line would hide the next one
                raise
        finally:
            os.close(descriptor)

    def _read(self, dataset: str, say: Callable[[str], None]) -> None:
        entries, whole = _parsed(self.path, dataset)
        if whole < self.path.stat().st_size:
            say(f"{self.path}: the last line was cut off when its program was stopped, and is dropped")
            os.truncate(self.path, whole)
            flush(self.path)
        if not whole:
            self._append({"format": FORMAT, "dataset": dataset})
        self.entries = entries


def read_entries(path: Path, dataset: str) -> list[dict[str, Any]]:
    """Return the entries of a journal that another program may be writing; a last line that is not whole does not count.

    Raises
    ------
    CsipError
        As `Journal`.
    """
    return _parsed(path, dataset)[0] if path.exists() else []


def _parsed(path: Path, dataset: str) -> tuple[list[dict[str, Any]], int]:
    """Return the entries and how many bytes their lines have, the head included."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    entries: list[dict[str, Any]] = []
    for number, line in enumerate(content[:whole].splitlines(), 1):
        try:
            entry = parse_json(line)
            if not isinstance(entry, dict):
                raise ValueError("no JSON object")
            if entries:
                check_entry(entry)
        except ValueError as error:
            raise CsipError(
                f"{path}: line {number} is damaged ({error}); restore the file, or delete the line to lose that answer"
            ) from error
        entries.append(entry)
    if not entries:
        return [], whole
    head = entries.pop(0)
    if head.get("format") != FORMAT:
        raise CsipError(f"{path}: expected a journal of format {FORMAT}, found {head.get('format')!r}")
    if head.get("dataset") != dataset:
        raise CsipError(
            f"{path}: expected answers about data set {dataset}, found {head.get('dataset')!r}; rename the file to begin anew"
        )
    return entries, whole
