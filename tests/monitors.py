"""Monitors that tests listen with."""

from __future__ import annotations

from collections.abc import Callable

from pose_cache.monitor import Silent


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


class Told(Silent):
    """Calls a function with what is done of how much."""

    def __init__(self, call: Callable[[int, int], object]) -> None:
        self.call = call

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        self.call(done, total)
