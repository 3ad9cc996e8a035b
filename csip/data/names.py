"""Names of files and people: natural order, Unicode forms."""

from __future__ import annotations

import re
import unicodedata

_DIGITS = re.compile(r"(\d+)")


def natural_order(name: str) -> tuple[list[str | int], str]:
    """Return a sort key that counts: 1, 2, 10. Where names differ in leading zeros alone, the text decides."""
    # Text and numbers take turns, beginning with text: keys of any two names can be compared.
    parts = _DIGITS.split(name)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], name


def canonical(name: str) -> str:
    """Return the one form of a name that Unicode writes in several ways (NFC): macOS and Linux keep different ones."""
    return unicodedata.normalize("NFC", name)
