"""Plain tables on the terminal."""

from __future__ import annotations

from rich.table import Table

from csip.retrieval.tables import TextTable


def rich_table(table: TextTable, bold: str = "") -> Table:
    """Lay out a table: numbers to the right, the row of this name in bold."""
    first, *columns = table.columns
    laid = Table(first, title=table.title or None, title_justify="left")
    for column in columns:
        laid.add_column(column, justify="right")
    for row in table.rows:
        laid.add_row(*row, style="bold" if bold and row[0] == bold else "")
    return laid
