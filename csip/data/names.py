"""Names of files and people: natural order, Unicode forms."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal

_DIGITS = re.compile(r"(\d+)")
_NUMBER = re.compile(r"-?\d+(\.\d+)?")


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


def canonical(name: str) -> str:
    """Return the one form of a name that Unicode writes in several ways (NFC): macOS and Linux keep different ones."""
    return unicodedata.normalize("NFC", name)
