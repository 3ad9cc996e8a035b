"""Identities of tracklets in a file of their own: ``labels.csv``, which `csip cluster` proposes and you correct.

    tracklet,person             more columns, such as `csip cluster`'s confidence, are for people and not read

A row fills the person that ``tracklets.csv`` leaves open, and overrides one that it names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable
from pathlib import Path

from csip.data.csv_table import format_rows, parse_table
from csip.data.names import canonical, is_nobody
from csip.errors import CsipError
from csip.files import write_bytes

LABELS = "labels.csv"
_NEEDED = ("tracklet", "person")


def parse_labels(content: bytes, where: Path, known: Container[str]) -> dict[str, str]:
    """Return the person of each tracklet that a ``labels.csv`` names.

    Parameters
    ----------
    content
        Of the file.
    where
        The file, for messages.
    known
        The names of the tracklets that there are.

    Raises
    ------
    CsipError
        No such table; a tracklet is unknown, is named twice, or has no person. The message names the line.
    """
    people: dict[str, str] = {}
    lines: dict[str, int] = {}
    for line, row in parse_table(content, where, _NEEDED):
        title, person = (canonical(row[column]) for column in _NEEDED)
        if not title:
            raise CsipError(f"{where}: line {line} has no tracklet")
        if title not in known:
            raise CsipError(
                f"{where}: line {line} is about tracklet {title}, which tracklets.csv does not have; delete the line, or "
                "correct the name"
            )
        if not person:
            raise CsipError(
                f"{where}: line {line} has no person for tracklet {title}; write one, or delete the line where nobody knows"
            )
        if is_nobody(person):
            raise CsipError(
                f"{where}: line {line} has the person {person!r} for tracklet {title}, as programs write where nobody is known; "
                "delete the line, or write another name"
            )
        if title in lines:
            raise CsipError(f"{where}: lines {lines[title]} and {line} are both about tracklet {title}")
        people[title], lines[title] = person, line
    return people


def write_labels(path: Path, rows: Iterable[tuple[str, str, float]], force: bool = False) -> None:
    """Write a proposal, (tracklet, person, confidence) a line, unless a person has been at work on the file.

    The digest of what is written is kept in a hidden file beside it: a file that differs from it was changed.

    Raises
    ------
    CsipError
        The file there is not what was written last, and `force` is not set; or a name is not UTF-8.
    """
    if not force:
        check_replaceable(path)
    lines = ((title, person, f"{confidence:.3f}") for title, person, confidence in rows)
    text = format_rows([(*_NEEDED, "confidence"), *lines])
    try:
        content = text.encode()
    except UnicodeEncodeError as error:
        raise CsipError(
            f"{path}: the name of a tracklet or person is not UTF-8; rename its folder ({error})"
        ) from error
    # The digest first: a run that is stopped in between leaves the old labels, which then look changed, never new ones
    # that pass for a person's.
    write_bytes(_note(path), hashlib.sha256(content).hexdigest().encode())
    write_bytes(path, content)


def check_replaceable(path: Path) -> None:
    """See that a person has not been at work on the labels.

    Raises
    ------
    CsipError
        There is a file, and it is not what `write_labels` wrote last.
    """
    if path.exists() and not is_proposal(path):
        raise CsipError(
            f"{path}: somebody has changed or written it; rename it to keep it, or force its replacement by a new "
            "proposal",
            parameter="force",
        )


def is_proposal(path: Path) -> bool:
    """Whether a file is what `write_labels` wrote last, and nobody has changed it."""
    note = _note(path)
    return note.exists() and path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == note.read_text()


def _note(path: Path) -> Path:
    return path.with_name(f".{path.name}.sha256")
