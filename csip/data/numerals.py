"""Numbers as files write them."""

from __future__ import annotations

_LARGEST = 2**53  # up to which floats show a fraction


def parse_number(text: str) -> float:
    """Return the number that a text is; 1_2, which Python reads as 12, is none: in a file it may be track 2 of camera 1.

    Raises
    ------
    ValueError
        It is none.
    """
    if "_" in text:
        raise ValueError(f"{text!r} is no number")
    return float(text)


def whole(value: object) -> int:
    """Return a whole number of a JSON file or a cell: 3, 3.0 or "3".

    Raises
    ------
    ValueError
        It is none, or too large to count anything.
    """
    number = parse_number(value) if isinstance(value, str) else value
    if isinstance(number, bool) or not isinstance(number, int | float):
        raise ValueError(f"expected a whole number, found {value!r:.40}")
    if not abs(number) <= _LARGEST or number != round(number):
        raise ValueError(f"expected a whole number, found {value!r:.40}")
    return int(number)
