"""Text files of boxes as tables: separators, encodings, comments and a header line; what columns mean is `box_dialects`'."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from csip.data.numerals import parse_number
from csip.errors import CsipError

# Where a head has several names of one column, the first one here counts: MOTChallenge's x and y are places in the world beside
# bb_left and bb_top, and id numbers lines beside track_id.
NAMES: Final = {
    "frame": ("frame", "frame_id", "frameid", "frame_number", "frame_no", "frame_index", "frame_idx"),
    "track": ("track", "track_id", "trackid", "object_id", "obj_id", "target_id", "instance_id", "identity", "id"),
    "x": ("bb_left", "bbox_left", "bbox_x", "bbox_x1", "left", "x_left", "x1", "xmin", "x_min", "xtl", "x"),
    "y": ("bb_top", "bbox_top", "bbox_y", "bbox_y1", "top", "y_top", "y1", "ymin", "y_min", "ytl", "y"),
    "width": ("bb_width", "bbox_width", "bbox_w", "width", "w"),
    "height": ("bb_height", "bbox_height", "bbox_h", "height", "h"),
    "right": ("bb_right", "bbox_right", "bbox_x2", "right", "x_right", "x2", "xmax", "x_max", "xbr"),
    "bottom": ("bb_bottom", "bbox_bottom", "bbox_y2", "bottom", "y_bottom", "y2", "ymax", "y_max", "ybr"),
    "cx": ("cx", "xc", "x_center", "xcenter", "center_x", "x_c"),
    "cy": ("cy", "yc", "y_center", "ycenter", "center_y", "y_c"),
    "score": ("score", "confidence", "conf", "prob"),
    "class": ("class_name", "label", "class", "category", "cls", "class_id", "category_id", "type"),
}
_THOUSANDS: Final = re.compile(r"[1-9]\d{0,2},\d{3}")
_SEPARATORS: Final = ("\t", ";", ",")
_MARKS: Final = ((b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"), (b"", "utf-8-sig"))


@dataclass(frozen=True)
class TextTable:
    """Cells of a text file.

    Attributes
    ----------
    path
        The file.
    header
        Place of each column that is known by its name; None where there is no header line.
    names
        The names as they are written.
    rows
        Cells, without blanks around them and without empty ones at the end.
    lines
        Numbers of the rows' lines, from 1.
    """

    path: Path
    header: dict[str, int] | None
    names: tuple[str, ...]
    rows: list[list[str]]
    lines: list[int]

    @property
    def width(self) -> int:
        """Cells of the longest row."""
        return max((len(row) for row in self.rows), default=0)

    def example(self, row: int = 0) -> str:
        """Show a row in a message."""
        return f"line {self.lines[row]} is {','.join(self.rows[row])}"

    def numbers(self, at: int | None, name: str, default: float | None = None) -> np.ndarray:
        """Return a column as (n,) float64.

        Raises
        ------
        CsipError
            A cell is no finite number, or is missing and there is no default.
        """
        values = np.empty(len(self.rows))
        for row, cells in enumerate(self.rows):
            text = cells[at] if at is not None and at < len(cells) else ""
            if not text and default is not None:
                values[row] = default
            elif (number := as_number(text)) is not None:
                values[row] = number
            else:
                raise CsipError(
                    f"{self.path}: line {self.lines[row]}: {name} is {text!r}; expected "
                    "frame,id,x,y,width,height,confidence as numbers"
                )
        return values

    def integers(self, at: int | None, name: str, default: float | None = None) -> np.ndarray:
        """Return a column as (n,) int64; a cell with a fraction is a CsipError."""
        values = self.numbers(at, name, default)
        wrong = np.flatnonzero((values != np.round(values)) | (np.abs(values) > 2**52))
        if len(wrong):
            raise CsipError(
                f"{self.path}: line {self.lines[wrong[0]]}: {name} is {values[wrong[0]]:.16g}; expected a whole number"
            )
        return values.astype(np.int64)

    def optional(self, at: int) -> np.ndarray:
        """Return a column as (n,) float64, NaN where a cell is missing or is no number."""
        found = (as_number(cells[at]) if at < len(cells) else None for cells in self.rows)
        return np.array([math.nan if value is None else value for value in found])

    def texts(self, at: int) -> list[str]:
        """Return a column's cells; missing ones are empty."""
        return [cells[at] if at < len(cells) else "" for cells in self.rows]


def read_table(path: Path) -> TextTable:
    """Read a text file: comma, semicolon, tab or blanks between cells; UTF-8 or UTF-16 with its mark; # begins a comment.

    Raises
    ------
    CsipError
        It is no text.
    """
    try:
        return _cells(path, _text(path, "of boxes"))
    except csv.Error as error:
        raise CsipError(f"{path}: not a text file of boxes ({error})") from error


def read_names(path: Path) -> list[str]:
    """Read a text file of names of classes, one a line; empty lines do not count.

    Raises
    ------
    CsipError
        It is no text.
    """
    return [line.strip() for line in _text(path, "of names of classes").splitlines() if line.strip()]


def _text(path: Path, what: str) -> str:
    data = path.read_bytes()
    try:
        text = data.decode(next(name for mark, name in _MARKS if data.startswith(mark)))
    except UnicodeError as error:
        raise CsipError(f"{path}: not a text file {what} ({error})") from error
    if "\0" in text:
        raise CsipError(f"{path}: not a text file {what} (there are zero bytes in it)")
    return text


def as_number(text: str) -> float | None:
    """Return a finite number, or None."""
    try:
        value = parse_number(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _cells(path: Path, text: str) -> TextTable:
    lines = text.splitlines()
    full = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    separator = next((one for one in _SEPARATORS if full and one in full[0].strip()), None)
    rows: list[list[str]] = []
    numbers: list[int] = []
    header: dict[str, int] | None = None
    names: list[str] = []
    for number, line in enumerate(lines, start=1):
        comment = line.lstrip().startswith("#")
        cells = _split(line.lstrip("# \t") if comment else line, separator)
        if not cells or (comment and (rows or header or len(_named(cells)) < 3)):
            continue
        if comment or (
            not rows and header is None and as_number(cells[0]) is None and cells[0].lower() not in ("nan", "inf")
        ):
            names, header = [cell.lower() for cell in cells], _named(cells)
            continue
        rows.append(cells)
        numbers.append(number)
    if separator != ",":
        rows = _decimal_points(rows, path, numbers)
    return TextTable(path, header, tuple(names), rows, numbers)


def _split(line: str, separator: str | None) -> list[str]:
    if separator is None:
        return line.split()
    cells = [cell.strip() for cell in next(csv.reader(io.StringIO(line), delimiter=separator), [])]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _decimal_points(rows: list[list[str]], path: Path, lines: list[int]) -> list[list[str]]:
    """Write 10,5 as 10.5, which is a number where other characters are between cells; 1,234 beside 987 is ambiguous."""
    for at in range(max(map(len, rows), default=0)):
        places = [row for row, cells in enumerate(rows) if at < len(cells) and "," in cells[at]]
        if not places:
            continue
        plain = any(cells[at].isdecimal() for cells in rows if at < len(cells))
        if plain and all(_THOUSANDS.fullmatch(rows[row][at]) for row in places):
            raise CsipError(
                f"{path}: line {lines[places[0]]}: is {rows[places[0]][at]} a number with a fraction, or are its thousands "
                "apart? Other lines have whole numbers there; write it without a comma"
            )
        for row in places:
            with_point = rows[row][at].replace(",", ".")
            if as_number(with_point) is not None:
                rows[row][at] = with_point
    return rows


def _named(cells: list[str]) -> dict[str, int]:
    names = [cell.lower().replace(" ", "_") for cell in cells]
    return {column: names.index(name) for column, known in NAMES.items() for name in known[::-1] if name in names}
