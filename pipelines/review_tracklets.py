"""The stage that serves the review of a data set's people to the browser of this machine."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import webbrowser
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvicorn

from csip.config import Settings
from csip.data import folder
from csip.data.health import count_people
from csip.data.readers import load_dataset
from csip.errors import CsipError
from csip.retrieval.descriptors import check_pictures, read_descriptors
from csip.retrieval.labels import has_table
from csip.review.labels import LabelsFile
from csip.review.review import Review, open_review
from pipelines import embed_tracklets, split_dataset
from pipelines.console import console
from pipelines.embed_tracklets import DESCRIPTORS, load, tracklets_of
from pipelines.paths import settings_for
from pipelines.review_page.picture_search import PictureSearch
from pipelines.review_page.pictures import Pictures
from pipelines.review_page.server import ReviewServer
from pose_cache.lock import held

LOCK = ".review.lock"
REVIEWED = "review.h5"
HOST = "127.0.0.1"


@dataclass(frozen=True)
class Opened:
    """A review and what shows it."""

    review: Review
    labels: LabelsFile
    server: ReviewServer


@dataclass(frozen=True)
class Source:
    """What a review starts from.

    Attributes
    ----------
    run_folder
        The run.
    found
        The file of descriptors, if not ``RUN/descriptors.h5``.
    model
        The model to describe the tracklets with, of another run: they are described anew in ``RUN/review.h5``, once.
    threshold
        Up to which mean distance tracklets are joined without an answer.
    """

    run_folder: Path
    found: Path | None = None
    model: Path | None = None
    threshold: float | None = None


def run(settings: Settings, source: Source, port: int = 0, browser: bool = True) -> None:
    """Serve the review until it is stopped, then write ``labels.csv``.

    Parameters
    ----------
    port
        To listen on; any free one where it is 0.
    browser
        Whether to open the page.

    Raises
    ------
    CsipError
        The data set has no table of tracklets, the descriptors are of others, or the journal is damaged.
    PoseCacheError
        Another server has this data set.
    """
    root = settings.dataset.path
    if not has_table(settings.dataset):
        raise CsipError(f"{root / folder.TABLE}: missing; a review needs the table that `csip ingest` makes")
    with held(root / LOCK, f"the review of {root}"):
        opened = open_data(settings, source)
        serve(opened, port, browser)


def open_data(settings: Settings, source: Source) -> Opened:
    """Read what a review needs.

    Raises
    ------
    CsipError
        The descriptors are not of this data set's tracklets, or the journal is damaged.
    """
    root, described = settings.dataset.path, described_by(settings, source)
    descriptors = read_descriptors(described)
    if descriptors.dataset != settings.dataset.name:
        raise CsipError(
            f"{described}: descriptors of data set {descriptors.dataset}, not {settings.dataset.name}; `csip embed` makes them"
        )
    check_pictures(described, descriptors, settings.dataset)
    dataset = load_dataset(settings.dataset)
    known = {t.name: t for t in tracklets_of(dataset, "all")}
    sightings = folder.read_sightings(root)
    if set(descriptors.names) != sightings.keys():
        raise CsipError(
            f"{described}: describes {len(descriptors):,} of the {len(sightings):,} tracklets of "
            f"{root / folder.TABLE}, or others; "
            "run `csip embed --part all`"
        )
    review = open_review(root, descriptors, sightings, source.threshold, console.print)
    labels = LabelsFile(root)
    taken = labels.absorb(review)
    if taken:
        console.print(f"{labels.path}: {taken} tracklets were changed by somebody, which is taken over")
    pictures = Pictures([known[name] for name in descriptors.names], root)
    search = PictureSearch(
        lambda: load(settings, source.run_folder, source.model), descriptors.model, root, settings.dataset.name
    )
    server = ReviewServer(
        review, labels, sightings, pictures, search, lambda share, seed: _split(settings, share, seed)
    )
    return Opened(review, labels, server)


def described_by(settings: Settings, source: Source) -> Path:
    """Return the file of descriptors; where a model is named, they are made, unless those there are the model's.

    Raises
    ------
    CsipError
        The model cannot be read, or as `pipelines.embed_tracklets.run`.
    """
    if source.found is not None or source.model is None:
        return source.found or source.run_folder / DESCRIPTORS
    out = source.run_folder / REVIEWED
    trained = load(settings, source.run_folder, source.model)
    try:
        known = read_descriptors(out)
        check_pictures(out, known, settings.dataset)
        current = (
            known.model == trained.digest and set(known.names) == folder.read_sightings(settings.dataset.path).keys()
        )
    except CsipError:
        current = False  # missing, damaged, or of other pictures
    if not current:
        embed_tracklets.run(settings, source.run_folder, source.model, part="all", out=out)
    return out


def _split(settings: Settings, share: float, seed: int) -> dict[str, Any]:
    """Make the split, and return what the doctor counts in it."""
    root = settings.dataset.path
    out = root.with_name(f"{root.name}-split")
    split_dataset.run(settings, out, share, seed)
    made = settings_for(out.name, None, out, [])
    findings = count_people(load_dataset(made.dataset), made)
    return {"out": str(out), "findings": [{"what": one.what, "text": one.text, "fix": one.fix} for one in findings]}


def serve(opened: Opened, port: int = 0, browser: bool = True) -> None:
    """Serve the page until the process is told to stop; then write the labels."""
    token = secrets.token_urlsafe(24)
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((HOST, port))
            listening.listen()  # the browser may come before the server is ready
        except OSError as error:
            raise CsipError(f"--port {port}: cannot listen there ({error}); name another one, or none") from error
        port = listening.getsockname()[1]
        address = f"http://{HOST}:{port}/{token}/"
        _greet(opened, address)
        if browser:
            webbrowser.open(address)
        config = uvicorn.Config(opened.server.app(token, port), log_level="warning", access_log=False, lifespan="off")
        try:
            # Raises Ctrl-C and the like again when it has ended.
            with contextlib.suppress(KeyboardInterrupt):
                uvicorn.Server(config).run(sockets=[listening])
        finally:
            _finish(opened)


@contextlib.contextmanager
def in_background(opened: Opened) -> Iterator[str]:
    """Serve the page from a thread while the block runs; yields its address."""
    token = secrets.token_urlsafe(24)
    with socket.socket() as listening:
        listening.bind((HOST, 0))
        listening.listen()  # requests may come before the server is ready
        port = listening.getsockname()[1]
        config = uvicorn.Config(opened.server.app(token, port), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://{HOST}:{port}/{token}/"
        finally:
            server.should_exit = True
            thread.join()


def _greet(opened: Opened, address: str) -> None:
    progress = opened.review.progress()
    console.print(
        f"review: {len(opened.review.basis.names):,} tracklets are {progress.people:,} people; {progress.answers:,} answers so "
        f"far, about {progress.to_go:,} to go",
        soft_wrap=True,
    )
    console.print(f"  {address}", soft_wrap=True)
    console.print("  for the browser of this machine; Ctrl-C ends it and writes labels.csv", soft_wrap=True)


def _finish(opened: Opened) -> None:
    if opened.review.version == 0:
        return
    try:
        opened.labels.save(opened.review)
    except CsipError as error:
        console.print(f"  answers are kept in {opened.review.journal.path}; {error}", soft_wrap=True)
        return
    progress = opened.review.progress()
    console.print(
        f"  {progress.people:,} people; {progress.confirmed:,} tracklets confirmed, {progress.implied:,} implied, "
        f"{progress.proposed:,} proposed, {progress.left_out:,} left out -> {opened.labels.path}",
        soft_wrap=True,
    )
