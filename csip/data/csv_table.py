"""CSV tables: UTF-8 with or without a byte-order mark; commas, semicolons or tabs.

A spreadsheet takes a cell that begins with ``=``, ``+``, ``-`` or ``@`` for a formula, and runs it. Names come from outside,
so `format_rows` writes such a cell with an apostrophe before it, and `parse_table` takes that apostrophe off again. Names
with spaces at an end are written likewise, since spaces around a cell are not read. Plain numbers stay as they are.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from csip.errors import CsipError

_SEPARATORS = (",", ";", "\t")
# The last four are wide = + - @: formulas to spreadsheets in Chinese and Japanese.
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


def format_rows(rows: Iterable[Sequence[object]]) -> str:
    """Return rows as lines of CSV with commas; `parse_table` gives every cell back as it was."""
    text = io.StringIO()
    plain, quoted = (csv.writer(text, lineterminator="\n", quoting=rule) for rule in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL))
    for row in rows:
        cells = ["" if cell is None else guarded(str(cell)) for cell in row]
        # A line of its own is what a bare carriage return would begin.
        (quoted if any("\r" in cell for cell in cells) else plain).writerow(cells)
    return text.getvalue()


def guarded(cell: str) -> str:
    """Return a cell as it is written: with an apostrophe before what would be a formula, or would not be read back."""
    return f"'{cell}" if _needs_guard(cell) else cell


def _unguarded(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _needs_guard(cell[1:]) else cell.strip()


def _needs_guard(cell: str) -> bool:
    begins = cell.lstrip("'")  # an apostrophe of the name's own must not be taken for ours
    if len(begins) < len(cell):
        return _needs_guard(begins) or cell != cell.strip()
    return cell != cell.strip() or (cell.startswith(_FORMULA) and not _NUMBER.fullmatch(cell))


def parse_table(content: bytes, where: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the lines of a table with their numbers, cells by the names of their columns.

    Columns may be in any order and more than are needed. Spaces around names and cells are taken off, as is the apostrophe of
    `format_rows`, and a column's name may be in capitals. Lines without anything in them are passed over.

    Parameters
    ----------
    content
        Of the file.
    where
        The file, for messages.
    needed
        Names of the columns that have to be there.

    Raises
    ------
    CsipError
        The content is no text in UTF-8 or no table, or a column is missing or there twice.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CsipError(f"{where}: not UTF-8 text ({error}); save it as CSV, UTF-8") from error
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise CsipError(f"{where}: line {line} holds a NUL byte; save it as CSV, UTF-8")
    head = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=head.count)  # the comma where there is none
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    names: list[str] | None = None
    line = 1
    try:
        for row in reader:
            cells = [_unguarded(cell) for cell in row]
            if names is None:
                names = _columns(cells, where, needed)
            elif separator == "," and any(cells[len(names) :]):  # a name such as Doe, John would be cut
                raise CsipError(
                    f"{where}: line {line} has {len(cells)} cells, the head has {len(names)} columns; put a cell that holds "
                    "a comma in quotation marks"
                )
            elif any(cells):
                yield line, dict.fromkeys(names, "") | dict(zip(names, cells, strict=False))
            line = reader.line_num + 1
    except csv.Error as error:
        raise CsipError(
            f"{where}: what begins in line {line} cannot be read as CSV ({error}); is a quotation mark missing?"
        ) from error
    if names is None:
        _columns([], where, needed)


def _columns(names: list[str], where: Path, needed: Sequence[str]) -> list[str]:
    columns = [name.lower() for name in names]
    missing = [column for column in needed if column not in columns]
    if missing:
        raise CsipError(
            f"{where}: no column {', '.join(missing)}; found {', '.join(names) or 'nothing'}, expected {', '.join(needed)}"
        )
    repeated = [column for column, count in Counter(columns).items() if count > 1 and column]
    if repeated:
        raise CsipError(
            f"{where}: {columns.count(repeated[0])} columns are called {repeated[0]}; expected one of each name"
        )
    return columns
