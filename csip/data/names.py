"""Names of files and people: natural order, Unicode forms, and what is no name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal

_DIGITS = re.compile(r"(\d+)")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")
# What programs write where they know nobody: were it a name, all unknown people would be one.
_NOBODY = frozenset({"nan", "none", "null", "n/a", "na", "#n/a", "<na>", "nat", "-1", "-1.0", "?", "unknown"})
# Folders that systems and storage put among people's own: thumbnails, recycle bins, notes of archives.
_SYSTEM = frozenset({
    "__MACOSX", "@eaDir", "#recycle", "#snapshot", "@Recycle", "@Recently-Snapshot", "$RECYCLE.BIN", "RECYCLER", "lost+found",
    "System Volume Information",
})  # fmt: skip
_ZEROS = re.compile(r"(?<![\d.])0+(?=\d)")
_FRACTION = re.compile(r"(\d)\.0+(?!\d)")
_BETWEEN = re.compile(r"[\W_]+")


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that counts: 1, 2, 10. Where names differ in leading zeros alone, the text decides."""
    # Text and numbers take turns, beginning with text: keys of any two names can be compared.
    parts = _DIGITS.split(name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def in_natural_order(names: Iterable[str]) -> list[str]:
    """Sort names of files as people count.

    Where all names before their endings are numbers, and some have a fraction or a sign, by their values: 0.05, 0.1, 0.15.
    """
    listed = sorted(names, key=natural_order)
    stems = [name.rpartition(".")[0] for name in listed]
    if all(map(_NUMBER.fullmatch, stems)) and not all(map(str.isdecimal, stems)):
        values = dict(zip(listed, map(Decimal, stems), strict=True))
        if len(set(values.values())) == len(listed):  # 1.1 and 1.10 are no values
            return sorted(listed, key=values.__getitem__)
    return listed


def is_nobody(name: str) -> bool:
    """Whether a name is what programs write where they know nobody, as ``nan`` or ``-1``."""
    return name.casefold() in _NOBODY


def is_hidden(name: str) -> bool:
    """Whether an entry of a folder is none of its owner's: hidden, or put there by a system (``@eaDir``, ``__MACOSX``)."""
    return name.startswith(".") or name in _SYSTEM


def look_alikes(names: Iterable[str]) -> list[list[str]]:
    """Return the names that differ in capitals, leading zeros, ``.0``, spaces or punctuation alone, group by group."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        plain = _FRACTION.sub(r"\1", unicodedata.normalize("NFKC", name).casefold())
        groups.setdefault(_BETWEEN.sub(" ", _ZEROS.sub("", plain)).strip(), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def canonical(name: str) -> str:
    """Return the one form of a name that Unicode writes in several ways (NFC): macOS and Linux keep different ones."""
    return unicodedata.normalize("NFC", name)
