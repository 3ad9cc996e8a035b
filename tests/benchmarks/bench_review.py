"""Answers that a review needs, against checking tracklet after tracklet, and against asking the nearest undecided pairs first.

    python tests/benchmarks/bench_review.py [--quick] [--root data/crowd --run runs/crowd --truth scenes/gt]

Without --root, tracklets are a synthetic crowd: 60 people, 4 cameras, 600 tracklets; a person is a point of 32 independent normal
numbers, moved by the camera (.3), by them at that camera (.4) and by the tracklet (.54; one in ten .97), and mapped to 128
numbers. With it, they are those of rendered videos: `csip synth-videos`, `csip ingest`, `csip embed`.

All start from the same proposal, and answers are true unless said otherwise. Counted are the answers until the adjusted Rand
index reaches .99:
* ours: the question of `csip review` each time;
* tracklet by tracklet: the proposed groups, largest first; each tracklet is compared with its group; one that does not belong is
  compared with the nearest other groups until one fits, with five at most; groups are then compared with their five nearest;
* nearest first: the nearest pair that no answer decides, over the same constraints as ours.
With 3 % wrong answers, ours goes on until it expects few of the pairs within groups to be wrong, `csip.review.review.SAFE`.

The full run also times an answer, and the opening of the page, with 5,000 and 20,000 tracklets.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import shutil
import statistics
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from csip.data.dataset import Tracklet
from csip.data.folder import Sighting, read_sightings
from csip.retrieval.descriptors import Descriptors, read_descriptors
from csip.review.basis import Basis
from csip.review.journal import Journal
from csip.review.labels import LabelsFile
from csip.review.review import Review
from csip.review.simulate import Annotator, Truth, truth_of_scenes
from pipelines.review_page.picture_search import PictureSearch
from pipelines.review_page.pictures import Pictures
from pipelines.review_page.server import ReviewServer
from pipelines.review_tracklets import Opened, in_background

GOAL, MOST = 0.99, 3000
# A journal is flushed at each answer, which is the disk's time.
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


@dataclass
class Crowd:
    """Tracklets whose people are known."""

    descriptors: Descriptors
    sightings: dict[str, Sighting]
    truth: Truth

    def agreement(self, people: np.ndarray) -> float:
        return self.truth.agreement(self.descriptors.names, people)

    @property
    def people(self) -> np.ndarray:
        """Of each tracklet; -2 and below where it shows nobody or several people."""
        names = self.descriptors.names
        return np.array(
            [-2 - n if name in self.truth.marks else self.truth.people[name] for n, name in enumerate(names)]
        )


def synthetic(people: int, cameras: int, count: int, seed: int = 0, width: int = 128) -> Crowd:
    rng, latent = np.random.default_rng(seed), 32
    centres, offsets = rng.standard_normal((people, latent)), 0.3 * rng.standard_normal((cameras, latent))
    views = 0.42 * rng.standard_normal((people, cameras, latent))
    who = np.concatenate([np.repeat(np.arange(people), 2), rng.integers(people, size=count - 2 * people)])
    rng.shuffle(who)
    camera = rng.integers(cameras, size=count)
    scale = np.where(rng.random(count) < 0.1, 0.97, 0.54)[:, None]
    points = centres[who] + offsets[camera] + views[who, camera] + scale * rng.standard_normal((count, latent))
    features = points @ rng.standard_normal((latent, width))
    features += 0.1 * np.sqrt(latent) * rng.standard_normal(features.shape)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    names = tuple(f"cam{c + 1}/{n:05d}" for n, c in enumerate(camera.tolist()))
    sightings, free = {}, {}
    for name, person, place in zip(names, who.tolist(), camera.tolist(), strict=True):
        # Nobody is at one camera twice at once.
        start = max(free.get((person, place), 0), int(rng.integers(170 * count)))
        end = start + int(rng.integers(300, 1500))
        free[person, place] = end + 1
        sightings[name] = Sighting(f"cam{place + 1}", (f"cam{place + 1}", ""), start, end)
    flags = np.ones(count, bool)
    described = Descriptors(
        features.astype(np.float32), names, np.zeros(count, np.int64), camera + 1, flags, flags, "crowd", "none"
    )
    return Crowd(described, sightings, Truth(dict(zip(names, who.tolist(), strict=True))))


def of_scenes(root: Path, run: Path, truth: Path) -> Crowd:
    descriptors = read_descriptors(run / "descriptors.h5")
    return Crowd(descriptors, read_sightings(root), truth_of_scenes(root, truth))


def ours(crowd: Crowd, basis: Basis, rate: float, folder: Path) -> list[float]:
    """The curve of our questions: to the goal without wrong answers, to what is expected to be safe with them."""
    review = Review(basis, Journal(folder / f"{rate}.jsonl", "crowd"))
    annotator, names = Annotator(crowd.truth, rate), crowd.descriptors.names
    curve = [crowd.agreement(review.grouping.people)]
    while len(curve) < MOST and (curve[-1] < GOAL if not rate else review.progress().to_go):
        questions = review.questions().first
        if not questions:
            break
        a, b = names[questions[0].a], names[questions[0].b]
        marks = [(name, mark) for name in (a, b) if (mark := annotator.mark(name)) is not None]
        if marks:
            review.mark([marks[0][0]], marks[0][1])
        else:
            review.compare(a, b, "same" if annotator.same(a, b) else "different")
        curve.append(crowd.agreement(review.grouping.people))
    return curve


def tracklet_by_tracklet(crowd: Crowd, basis: Basis, start: np.ndarray) -> list[float]:
    """The curve of a person who looks through the proposed groups, one tracklet after the other."""
    truth, labels, features = crowd.people, start.copy(), basis.features
    order = np.argsort(-np.bincount(labels), kind="stable")
    owner: dict[int, int] = {}
    for group in order.tolist():
        known = truth[(labels == group) & (truth >= 0)]
        owner[group] = int(np.bincount(known).argmax()) if len(known) else -1
    middles = np.stack([features[start == group].mean(axis=0) for group in range(len(order))])
    curve = [crowd.agreement(labels)]

    def others(row: np.ndarray, own: int) -> Iterator[int]:
        yield from [int(group) for group in np.argsort(-(middles @ row)) if group != own][:5]

    for group in order.tolist():
        for tracklet in np.flatnonzero(start == group).tolist():
            curve.append(curve[-1])
            if truth[tracklet] == owner[group]:
                continue
            labels[tracklet] = labels.max() + 1
            if truth[tracklet] >= 0:  # otherwise it is marked
                for other in others(features[tracklet], group):
                    curve.append(curve[-1])
                    if owner[other] == truth[tracklet]:
                        labels[tracklet] = other
                        break
            curve[-1] = crowd.agreement(labels)
    done = set()
    for group in order.tolist():
        for other in others(middles[group], group):
            if (min(group, other), max(group, other)) in done or owner[group] < 0:
                continue
            done.add((min(group, other), max(group, other)))
            curve.append(curve[-1])
            if owner[group] == owner[other] and (labels == group).any() and (labels == other).any():
                labels[labels == other] = group
                curve[-1] = crowd.agreement(labels)
    return curve


def nearest_first(crowd: Crowd, basis: Basis, folder: Path, every: int = 5) -> list[float]:
    """The curve of the nearest undecided pairs, looked at after every few answers."""
    review = Review(basis, Journal(folder / "nearest.jsonl", "crowd"))
    truth, names = crowd.people, crowd.descriptors.names
    size = len(names)
    upper = np.triu_indices(size, 1)
    order = np.argsort((1 - basis.features @ basis.features.T)[upper])
    parents, apart = list(range(size)), [set() for _ in range(size)]
    for a, b in basis.apart.tolist():
        apart[a].add(b)
        apart[b].add(a)

    def find(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    curve, marked = [crowd.agreement(review.grouping.people)], set()
    for place in order.tolist():
        i, j = int(upper[0][place]), int(upper[1][place])
        a, b = find(i), find(j)
        if a == b or {i, j} & marked or any(find(row) == b for row in apart[a]):
            continue
        wrong = [row for row in (i, j) if truth[row] < 0]
        if wrong:
            marked.add(wrong[0])
            review.tell({"do": "mark", "names": [names[wrong[0]]], "as": "mixed"})
        else:
            same = truth[i] == truth[j]
            if same:
                parents[a] = b
                apart[b] |= apart[a]
            else:
                apart[a].add(b)
                apart[b].add(a)
            review.tell({"do": "compare", "a": names[i], "b": names[j], "answer": "same" if same else "different"})
        curve.append(curve[-1])
        if len(curve) % every == 1:
            review.work_out()
            curve[-1] = crowd.agreement(review.grouping.people)
            if curve[-1] >= GOAL or len(curve) > MOST:
                break
    return curve


def until(curve: list[float], goal: float = GOAL) -> int | None:
    return next((number for number, reached in enumerate(curve) if reached >= goal), None)


def answering(review: Review, crowd: Crowd, tell: Callable[[str, str, str], None]) -> float:
    """Milliseconds of one answer from the truth; the next question is worked out when it returns."""
    question = review.questions().first[0]
    a, b = (crowd.descriptors.names[row] for row in (question.a, question.b))
    same = crowd.truth.people[a] == crowd.truth.people[b]
    started = time.perf_counter()
    tell(a, b, "same" if same else "different")
    return 1000 * (time.perf_counter() - started)


def timed(count: int, answers: int = 20) -> dict[str, float]:
    """Milliseconds of what opening the page asks for, and of an answer, with many tracklets: within the program, and by HTTP."""
    crowd = synthetic(count // 10, 8, count, width=256)
    started = time.perf_counter()
    basis = Basis(crowd.descriptors, crowd.sightings, threshold=0.6)
    built = time.perf_counter() - started
    built_rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        review = Review(basis, Journal(folder / "review.jsonl", "crowd"))

        def tell(a: str, b: str, answer: Any) -> None:
            review.compare(a, b, answer)
            review.questions()

        within = [answering(review, crowd, tell) for _ in range(answers)]
        (folder / "crop.jpg").write_bytes(cv2.imencode(".jpg", np.full((128, 64, 3), 90, np.uint8))[1].tobytes())
        tracklets = [Tracklet(name, 0, 1, ("crop.jpg",) * 6) for name in basis.names]
        labels = LabelsFile(folder)
        search = PictureSearch(lambda: None, basis.model, folder, "crowd")
        server = ReviewServer(
            review, labels, crowd.sightings, Pictures(tracklets, folder), search, lambda share, seed: {}
        )
        with in_background(Opened(review, labels, server)) as address:

            def ask(what: str, told: dict[str, str] | None = None) -> bytes:
                body = None if told is None else json.dumps(told).encode()
                request = urllib.request.Request(address + what, body, {"Content-Type": "application/json"})
                with urllib.request.urlopen(request, timeout=60) as answer:
                    return answer.read()

            def tell_server(a: str, b: str, answer: str) -> None:
                ask("do", {"do": "compare", "a": a, "b": b, "answer": answer})
                ask("state")  # as the page does after each answer
                ask("questions")

            opening = {}
            for what in ("", "review.js", "tracklets", "state", "questions", "people", "near/0"):
                started = time.perf_counter()
                size = len(ask(what))
                opening[what or "page"] = (1000 * (time.perf_counter() - started), size)
            http = [answering(review, crowd, tell_server) for _ in range(answers)]
            shown = seen_in_browser(address)
    return {
        "tracklets": count, "built_s": built, "answer_ms": statistics.median(within), "slowest_ms": max(within),
        "http_answer_ms": statistics.median(http), "http_slowest_ms": max(http),
        "opening_ms": sum(opening[what][0] for what in ("page", "review.js", "tracklets", "state", "questions")),
        "people_ms": opening["people"][0], "near_ms": opening["near/0"][0],
        "bytes": sum(size for _, size in opening.values()), "browser_ms": shown,
        "built_mb": built_rss / 1024, "kept_mb": resident(),
    }  # fmt: skip


def resident() -> float:
    """Megabytes of memory that this process has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def seen_in_browser(address: str) -> float | None:
    """Milliseconds until headless Chromium shows the first pair; None where there is no Chromium."""
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    if found is None or importlib.util.find_spec("playwright") is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        tab = browser.new_page()
        begin = time.perf_counter()
        tab.goto(address)
        tab.locator(".pair").wait_for()
        took = 1000 * (time.perf_counter() - begin)
        browser.close()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer tracklets, no timing: within 50 s")
    parser.add_argument("--root", type=Path, help="data set of rendered videos")
    parser.add_argument("--run", type=Path, help="folder of its descriptors.h5")
    parser.add_argument("--truth", type=Path, help="folder gt of the videos")
    asked = parser.parse_args()
    crowd = (
        of_scenes(asked.root, asked.run, asked.truth)
        if asked.root
        else synthetic(*(30, 3, 200) if asked.quick else (60, 4, 600))
    )
    basis = Basis(crowd.descriptors, crowd.sightings)
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        folder = Path(name)
        clean, noisy = ours(crowd, basis, 0.0, folder), ours(crowd, basis, 0.03, folder)
        start = Review(basis, Journal(folder / "start.jsonl", "crowd")).grouping.people
        checked, near = tracklet_by_tracklet(crowd, basis, start), nearest_first(crowd, basis, folder)
    baselines = {"tracklet_by_tracklet": checked, "nearest_first": near}
    counts = {"ours": until(clean), **{what: until(curve) for what, curve in baselines.items()}}
    # Where a baseline does not come to the goal, at the highest that it comes to.
    tops = {what: (top := max(curve), until(curve, top), until(clean, top)) for what, curve in baselines.items()}
    print(
        f"{len(crowd.descriptors):,} tracklets of {len(set(crowd.truth.people.values()) - {-1})} people; proposal: {clean[0]:.3f}"
    )
    for what, count in counts.items():
        print(f"{what:24}{'not reached' if count is None else count:>12} answers to {GOAL}")
    for what, (top, theirs, own) in tops.items():
        print(f"{what:24} highest {top:.4f} after {theirs} answers; ours after {own or 'never'}")
    print(f"3 % wrong answers: {noisy[-1]:.3f} after {len(noisy) - 1} answers")
    result: dict[str, object] = {
        "tracklets": len(crowd.descriptors), "proposal": clean[0], **counts,
        "noisy_ari": noisy[-1], "noisy_answers": len(noisy) - 1,
        "ratio_checked": (counts["tracklet_by_tracklet"] or len(checked)) / (counts["ours"] or len(clean)),
        "ratio_nearest": (counts["nearest_first"] or len(near)) / (counts["ours"] or len(clean)),
        "highest": {what: [round(top, 4), theirs, own] for what, (top, theirs, own) in tops.items()},
        "curve": [round(value, 4) for value in clean], "noisy_curve": [round(value, 4) for value in noisy],
    }  # fmt: skip
    if not asked.quick:
        rows = [timed(5000), timed(20_000)]
        result["timed"] = rows
        for row in rows:
            print(
                f"{row['tracklets']:,} tracklets: "
                + ", ".join(f"{key} {value:.0f}" for key, value in row.items() if value)
            )
    print(json.dumps(result))


if __name__ == "__main__":
    main()
