"""An annotator that answers a review from the truth, over the interface that the page uses."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from csip.config import Settings
from csip.errors import CsipError
from csip.files import write_json
from csip.review.simulate import Annotator, truth_of_scenes
from pipelines.console import RichMonitor, console
from pipelines.review_tracklets import LOCK, Opened, Source, in_background, open_data
from pose_cache.lock import held

RECORD = "review.json"


@dataclass(frozen=True)
class Simulated:
    """What has come of it; ``RUN/review.json`` holds the same, for the report.

    Attributes
    ----------
    rate
        Share of wrong answers.
    tracklets
        How many there are.
    curve
        Adjusted Rand index after each answer, beginning with that of the proposal.
    """

    rate: float
    tracklets: int
    curve: tuple[float, ...]


def run(settings: Settings, source: Source, truth: Path, rate: float = 0.0, most: int = 10_000) -> Simulated:
    """Answer until the labels are expected to be safe, and write them.

    Parameters
    ----------
    truth
        The folder ``gt`` of rendered videos.
    rate
        Share of wrong answers.
    most
        Answers at which to stop anyhow.

    Raises
    ------
    CsipError
        There are answers already, or the truth does not fit.
    """
    root = settings.dataset.path
    seen = truth_of_scenes(root, truth)
    with held(root / LOCK, f"the review of {root}"):
        opened = open_data(settings, source)
        if opened.review.version:
            raise CsipError(f"{opened.review.journal.path}: there are answers already; rename the file to simulate")
        result = simulate(opened, Annotator(seen, rate), most)
    write_json(source.run_folder / RECORD, asdict(result))
    console.print(
        f"simulated: {len(result.curve) - 1:,} answers, {rate:.0%} of them wrong; adjusted Rand index {result.curve[0]:.3f} "
        f"before, {result.curve[-1]:.3f} after -> {opened.labels.path}",
        soft_wrap=True,
    )
    return result


def simulate(opened: Opened, annotator: Annotator, most: int = 10_000) -> Simulated:
    """Serve a review and answer its questions; see `run`."""
    with in_background(opened) as address:
        curve = _answer(opened, annotator, address, most)
    return Simulated(annotator.rate, len(opened.review.basis.names), tuple(round(value, 4) for value in curve))


def _answer(opened: Opened, annotator: Annotator, address: str, most: int) -> list[float]:
    names = _ask(address, "tracklets")["names"]

    def reached() -> float:
        return annotator.truth.agreement(names, opened.review.grouping.people)

    curve = [reached()]
    with RichMonitor() as monitor:
        while len(curve) <= most and _ask(address, "state")["progress"]["to_go"]:
            questions = _ask(address, "questions")["questions"]
            if not questions:
                break
            a, b = names[questions[0]["a"]], names[questions[0]["b"]]
            marks = [(name, mark) for name in (a, b) if (mark := annotator.mark(name)) is not None]
            if marks:
                told = {"do": "mark", "names": [marks[0][0]], "as": marks[0][1]}
            else:
                told = {"do": "compare", "a": a, "b": b, "answer": "same" if annotator.same(a, b) else "different"}
            _ask(address, "do", told | {"key": str(len(curve))})
            curve.append(reached())
            monitor.progress("answers", len(curve) - 1, most, f"adjusted Rand index {curve[-1]:.3f}")
    _ask(address, "do", {"do": "save"})
    return curve


def _ask(address: str, what: str, told: dict[str, Any] | None = None) -> Any:
    body = None if told is None else json.dumps(told).encode()
    request = urllib.request.Request(address + what, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
