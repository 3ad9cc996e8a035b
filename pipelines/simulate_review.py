"""An annotator that answers a review from the truth, over the interface that the page uses."""

from __future__ import annotations

import json
import socket
import threading
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from csip.config import Settings
from csip.errors import CsipError
from csip.retrieval.clustering import agreement
from csip.review.simulate import Annotator, people_of_scenes
from pipelines.console import RichMonitor, console
from pipelines.embed_tracklets import DESCRIPTORS
from pipelines.review_tracklets import HOST, LOCK, Opened, open_data
from pose_cache.lock import held

_TOKEN = "simulated"


@dataclass(frozen=True)
class Simulated:
    """What has come of it.

    Attributes
    ----------
    curve
        Adjusted Rand index after each answer, beginning with that of the proposal.
    """

    curve: tuple[float, ...]


def run(settings: Settings, run_folder: Path, truth: Path, rate: float = 0.0, found: Path | None = None,
        threshold: float | None = None, most: int = 10_000) -> Simulated:  # fmt: skip
    """Answer until the labels are expected to be safe, and write them.

    Parameters
    ----------
    truth
        The folder ``gt`` of rendered videos.
    rate
        Share of wrong answers.
    found, threshold
        As `pipelines.review_tracklets.run` takes them.
    most
        Answers at which to stop anyhow.

    Raises
    ------
    CsipError
        There are answers already, or the truth does not fit.
    """
    root = settings.dataset.path
    people = people_of_scenes(root, truth)
    with held(root / LOCK, f"the review of {root}"):
        opened = open_data(settings, found or run_folder / DESCRIPTORS, threshold)
        if opened.review.version:
            raise CsipError(f"{opened.review.journal.path}: there are answers already; rename the file to simulate")
        result = simulate(opened, Annotator(people, rate), most)
    console.print(
        f"simulated: {len(result.curve) - 1:,} answers, {rate:.0%} of them wrong; adjusted Rand index {result.curve[0]:.3f} "
        f"before, {result.curve[-1]:.3f} after -> {opened.labels.path}",
        soft_wrap=True,
    )
    return result


def simulate(opened: Opened, annotator: Annotator, most: int = 10_000) -> Simulated:
    """Serve a review and answer its questions; see `run`."""
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        listening.listen()  # the first question may come before the server is ready
        port = listening.getsockname()[1]
        config = uvicorn.Config(opened.server.app(_TOKEN, port), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            curve = _answer(opened, annotator, f"http://{HOST}:{port}/{_TOKEN}/", most)
        finally:
            server.should_exit = True
            thread.join()
    return Simulated(tuple(curve))


def _answer(opened: Opened, annotator: Annotator, address: str, most: int) -> list[float]:
    names = _ask(address, "tracklets")["names"]
    truth = np.array([annotator.people[name] for name in names])
    curve = [agreement(opened.review.grouping.people, truth).ari]
    with RichMonitor() as monitor:
        while len(curve) <= most and _ask(address, "state")["progress"]["to_go"]:
            questions = _ask(address, "questions")["questions"]
            if not questions:
                break
            a, b = names[questions[0]["a"]], names[questions[0]["b"]]
            answer = "same" if annotator.same(a, b) else "different"
            _ask(address, "do", {"do": "compare", "a": a, "b": b, "answer": answer, "key": str(len(curve))})
            curve.append(agreement(opened.review.grouping.people, truth).ari)
            monitor.progress("answers", len(curve) - 1, most, f"adjusted Rand index {curve[-1]:.3f}")
    _ask(address, "do", {"do": "save"})
    return curve


def _ask(address: str, what: str, told: dict[str, Any] | None = None) -> Any:
    body = None if told is None else json.dumps(told).encode()
    request = urllib.request.Request(address + what, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)
