"""What a person sees: progress bars, notes, and errors that fit on one screen.

Names of people, cameras and files come from outside. Nothing in a text is markup here: colours are `rich.text.Text` with a
style. Characters that would move the cursor, colour the screen or turn the line around are shown by their codes.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

# Controls but for tab and line feed, line separators, changes of writing direction, bytes of names that are not UTF-8.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def is_first_process() -> bool:
    """Tell whether this is the only process, or the first one under torchrun, which speaks for all."""
    return os.environ.get("RANK", "0") == "0"


def visible(text: str) -> str:
    r"""Write characters that a terminal would act upon by their codes, e.g. ``\x1b``."""
    return _UNSEEN.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(name: str) -> str:
    """Return a name from outside as it fits into a sentence: visible, line feeds and tabs too."""
    return visible(name).replace("\n", "\\n").replace("\t", "\\t")


def labelled(label: str, style: str, text: str) -> Text:
    """Return a text with a coloured word before it."""
    return Text.assemble((label, style), visible(text))


class PlainConsole(Console):
    """A console to which every text is just text, in messages and in the cells and titles of tables."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(visible(text), **options)


# Files and pipes are no wider than a terminal to Rich: tables would lose their columns there.
console = PlainConsole(width=None if sys.stdout.isatty() else 160)
errors = PlainConsole(stderr=True)


class RateColumn(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.1f}/s", style="cyan")


class RichMonitor:
    """Shows each task as a bar with its rate and the time left; where there is no terminal, as a line when it ends."""

    def __init__(self) -> None:
        self._bars: dict[str, TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
            transient=not console.is_terminal,
        )

    def __enter__(self) -> RichMonitor:
        if console.is_terminal:
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Move the bar of ``task``."""
        task, note = one_line(task), one_line(note)
        if task not in self._bars or self._progress.tasks[self._bars[task]].total != total:
            self._bars[task] = self._progress.add_task(task, total=total, note=note)
        before = self._progress.tasks[self._bars[task]].completed
        self._progress.update(self._bars[task], completed=done, note=note)
        if not console.is_terminal and done > before and (done >= total or (note and done % max(total // 10, 1) == 0)):
            console.print(f"  {task}: {done}/{total}  {note}".rstrip())

    def say(self, text: str) -> None:
        """Print a note above the bars."""
        self._progress.console.print(f"  {one_line(text)}", soft_wrap=True)
