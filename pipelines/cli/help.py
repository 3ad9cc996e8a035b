"""The overview that `csip --help` prints: commands in panels.

Typer's own would do, but imports a Markdown parser and a syntax highlighter first, which takes longer than all the rest.
The help of single commands is Typer's.
"""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text


def print_overview(context: Any, text: str, commands: Mapping[str, Any]) -> None:
    """Print usage, description, options and commands, each panel of commands under its title.

    Parameters
    ----------
    context
        Click's, of the program.
    text
        Description of the program, with its example.
    commands
        By name, in order.
    """
    console = Console(markup=False, emoji=False, highlight=False)
    options = [record for option in context.command.get_params(context) if (record := option.get_help_record(context))]
    panels: dict[str, list[tuple[str, str]]] = {"Options": options}
    for name, command in commands.items():
        panels.setdefault(command.rich_help_panel, []).append((name, command.get_short_help_str(limit=200)))
    width = max(len(name) for rows in panels.values() for name, _ in rows)

    console.print(f"\n{context.get_usage()}\n\n{text}\n", soft_wrap=True)
    for title, rows in panels.items():
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(width=width, no_wrap=True)
        table.add_column()
        for name, about in rows:
            table.add_row(Text(name, "bold cyan"), about)
        console.print(Panel(table, title=title, title_align="left", border_style="dim"))
