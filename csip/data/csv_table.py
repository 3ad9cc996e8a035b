"""Tables as people and their spreadsheets save them: CSV, UTF-8 with or without a mark, commas, semicolons or tabs."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

from csip.errors import CsipError

_SEPARATORS = (",", ";", "\t")


def parse_table(content: bytes, where: Path, needed: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the lines of a table with their numbers, cells by the names of their columns.

    Columns may be in any order and more than are needed. Spaces around names and cells are taken off, and a column's name may
    be in capitals. Lines without anything in them are passed over.

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
        The content is no text in UTF-8 or no table, or a column is missing.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CsipError(f"{where}: not UTF-8 text ({error}); save it as CSV, UTF-8") from error
    head = text.partition("\n")[0]
    separator = max(_SEPARATORS, key=head.count)  # the comma where there is none
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    names: list[str] | None = None
    line = 1
    try:
        for row in reader:
            cells = [cell.strip() for cell in row]
            if names is None:
                names = _columns(cells, where, needed)
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
    return columns
