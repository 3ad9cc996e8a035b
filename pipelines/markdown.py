"""Text from outside as it fits into a report in Markdown."""

from __future__ import annotations

import re

from pipelines.console import one_line


def plain(text: object) -> str:
    """Escape what Markdown or HTML would take for more than text, in a sentence or the cell of a table."""
    return re.sub(r"([\\`*\[\]<>|]|&(?=[a-zA-Z#]))", r"\\\1", one_line(str(text)))


def code(text: object) -> str:
    """Set text as code: a path or a command."""
    line = one_line(str(text))
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", line)), default=0))
    space = " " if "`" in line or line != line.strip() else ""
    return f"{fence}{space}{line}{space}{fence}"
