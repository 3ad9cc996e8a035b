"""Progress of long work, reported to the caller. Libraries print nothing."""

from __future__ import annotations

from typing import Protocol


class Monitor(Protocol):
    """What a caller may want to hear."""

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """``done`` of ``total`` units of ``task`` are finished; ``note`` is a short figure such as the loss."""

    def say(self, text: str) -> None:
        """Something that a person should read once."""


class Silent:
    """A monitor that listens to nothing."""

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Ignore it."""

    def say(self, text: str) -> None:
        """Ignore it."""
