"""The stage that shows the settings."""

from __future__ import annotations

from typing import Literal

from rich.table import Table

from csip.config import Settings
from csip.config.kinds import shown
from csip.config.listing import Setting, as_markdown, as_yaml, list_settings
from pipelines.console import console


def run(prefix: str, settings: Settings | None, form: Literal["table", "yaml", "markdown"]) -> None:
    """Print the settings below a prefix with the values of `settings`, or their defaults.

    Raises
    ------
    CsipError
        There is no such section or setting.
    """
    listed = list_settings(prefix, settings)
    if form == "table":
        console.print(_table(listed, changed=settings is not None))
    else:
        print(as_yaml(listed) if form == "yaml" else as_markdown(listed), end="")


def _table(settings: list[Setting], changed: bool) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("setting", "value" if changed else "default", "expected", "description"):
        table.add_column(column, overflow="fold")
    for setting in settings:
        if setting.section:
            table.add_section()
            table.add_row(setting.key, "", "", setting.description, style="bold")
            continue
        value = "required" if setting.required and not changed else shown(setting.value)
        own = changed and (setting.required or setting.value != setting.default)
        table.add_row(setting.key, value, setting.expected, setting.description, style="cyan" if own else None)
    return table
