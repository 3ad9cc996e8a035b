"""What a person sees: progress bars, notes, and errors that fit on one screen."""

from __future__ import annotations

import sys

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

# Files and pipes are no wider than a terminal to Rich: tables would lose their columns there.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True, highlight=False)


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
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
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
        if task not in self._bars or self._progress.tasks[self._bars[task]].total != total:
            self._bars[task] = self._progress.add_task(task, total=total, note=note)
        before = self._progress.tasks[self._bars[task]].completed
        self._progress.update(self._bars[task], completed=done, note=note)
        if not console.is_terminal and done > before and (done >= total or (note and done % max(total // 10, 1) == 0)):
            console.print(f"  {task}: {done}/{total}  {note}".rstrip())

    def say(self, text: str) -> None:
        """Print a note above the bars."""
        self._progress.console.print(f"  {text}", markup=False, soft_wrap=True)
