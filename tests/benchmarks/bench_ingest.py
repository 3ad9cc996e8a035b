"""How well people are followed through videos, how fast, and whether clusters of their tracklets are the people.

    python tests/benchmarks/bench_ingest.py [--quick] [--device cuda] [--run runs/demo]

Rendered videos with known truth: people cross, come and go before two cameras. Two sources of boxes: ``boxes``, the true ones
trembling, with misses and false ones, without ids; and ``hog``, what OpenCV's detector finds in the pictures. From the same
boxes, a tracker that only looks at overlaps is the peer of ours; the same rules fill and smooth the tracks of both. IDF1 is
motmetrics', HOTA TrackEval's, over all videos at once; people of whom less than a quarter is seen count neither way.

Then the whole chain: ``csip ingest`` with its usual rules, ``embed``, ``cluster``; the adjusted Rand index of the proposed
people against the true ones, and what the same groups get by chance, with the tracklets shuffled. The model is the demo's image
encoder as it was pretrained on other rendered people, or with ``--run`` a trained one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chain_scores import Chained, pretrained_model, run_chain
from track_scores import GreedyTracker, Rows, joined, score, track_rows, truth_rows, without_hidden

from csip.monitor import Silent
from csip.synthetic.videos import SceneSpec, render_videos
from csip.video.boxes import THRESHOLDS, read_boxes
from csip.video.decode import VideoReader
from csip.video.hog import HogDetector
from csip.video.one_video import IngestOptions, follow
from csip.video.tracking import Detections, Track
from csip.video.tracklets import Timeline, TrackletRules, make_tracklets
from pipelines.console import console

SOURCES = ("boxes", "hog")
# Tracks as they are found: nothing is left out for its size or for being hidden, as a data set's tracklets would be.
TRACKING = IngestOptions(rules=TrackletRules(min_frames=3, min_height=1, min_width=1, max_overlap=1.0))


class Recorder:
    """Runs a detector, and keeps what it found so that the peer starts from the same boxes."""

    def __init__(self, detector: HogDetector) -> None:
        self.thresholds, self.batch = detector.thresholds, detector.batch
        self._detector = detector
        self.found: list[Detections] = []
        self.seconds = 0.0

    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        started = time.perf_counter()
        found = self._detector.detect(images)
        self.seconds += time.perf_counter() - started
        self.found += found
        return found


def looked_at(timeline: Timeline, rate: float) -> np.ndarray:
    """Numbers of the frames that a detector was shown: the first one of each tick."""
    ticks = np.round(timeline.times * rate)
    return timeline.numbers[np.flatnonzero(np.diff(ticks, prepend=-1))]


def greedy(detections: Sequence[tuple[int, Detections]], least: float, rate: float) -> list[Track]:
    tracker = GreedyTracker(patience=round(TRACKING.rules.max_gap * rate))
    for frame, found in detections:
        sure = found.scores >= least
        tracker.look(frame, Detections(found.boxes[sure], found.scores[sure]))
    return tracker.tracks()


def track_video(video: Path, source: str) -> tuple[Rows, Rows, dict[str, float]]:
    """Follow the people of one video: rows of our tracks, of the peer's, and seconds of each part."""
    reader = VideoReader(video)
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    if source == "boxes":
        given = read_boxes(video.parents[1] / "det" / f"{video.stem}.txt")
        ours, timeline = follow(reader, given, TRACKING, Silent(), video.name)
        rate, high = reader.rate, THRESHOLDS.high
        detections = [(int(number), given.of_frame(int(number))) for number in timeline.numbers]
        seconds["detector"] = 0.0
    else:
        recorder = Recorder(HogDetector(threads=torch.get_num_threads()))
        ours, timeline = follow(reader, recorder, TRACKING, Silent(), video.name)
        rate, high = TRACKING.rate, recorder.thresholds.high
        detections = list(zip(looked_at(timeline, rate).tolist(), recorder.found, strict=True))
        seconds["detector"] = recorder.seconds
    seconds["ours"] = time.perf_counter() - started
    started = time.perf_counter()
    peers = greedy(detections, high, rate)
    seconds["greedy"] = time.perf_counter() - started
    seconds["frames"] = len(timeline.numbers)
    rows = [track_rows(make_tracklets(tracks, timeline, TRACKING.rules)[0]) for tracks in (ours, peers)]
    return rows[0], rows[1], seconds


def track_scenes(scenes: Sequence[Path], source: str) -> dict[str, Any]:
    """Score both trackers over the videos of all scenes."""
    truths: dict[str, list[Rows]] = {"ours": [], "greedy": []}
    founds: dict[str, list[Rows]] = {"ours": [], "greedy": []}
    times = []
    for scene in scenes:
        for video in sorted((scene / "videos").iterdir()):
            truth, visibility = truth_rows(scene / "gt" / f"{video.stem}.txt")
            ours, peers, seconds = track_video(video, source)
            times.append(seconds)
            for name, rows in (("ours", ours), ("greedy", peers)):
                kept, left = without_hidden(truth, visibility, rows)
                truths[name].append(kept)
                founds[name].append(left)
    figures: dict[str, Any] = {name: score(joined(truths[name]), joined(founds[name])) for name in truths}
    figures["ratio"] = figures["ours"]["idf1"] / max(figures["greedy"]["idf1"], 1e-9)
    figures["seconds"] = {key: sum(one[key] for one in times) for key in ("detector", "ours", "greedy")}
    figures["frames"] = int(sum(one["frames"] for one in times))
    return figures


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = run()
    return time.perf_counter() - started, result


def print_tracking(tracking: dict[str, Any]) -> None:
    """Print the scores of both trackers, from the boxes given and from the detector."""
    print(f"{'tracking':16}{'':>10}{'IDF1':>8}{'HOTA':>8}{'DetA':>8}{'AssA':>8}{'switches':>10}{'tracker':>14}")
    for source in SOURCES:
        for name in ("ours", "greedy"):
            figures, seconds = tracking[source][name], tracking[source]["seconds"]
            alone = seconds[name] - (seconds["detector"] if name == "ours" else 0)
            cells = "".join(f"{figures[key]:>8.3f}" for key in ("idf1", "hota", "deta", "assa"))
            print(
                f"{source:16}{name:>10}{cells}{figures['switches']:>10}"
                f"{tracking[source]['frames'] / max(alone, 1e-9):>10.0f} f/s{' (with decoding)' if name == 'ours' else ''}"
            )


def print_chains(chains: dict[str, list[Chained]]) -> dict[str, Any]:
    """Print the scores of the chain from videos to people, and return them."""
    heads = "".join(
        f"{head:>9}" for head in ("pure", "matched", "ARI", "chance", "95 %", "people", "frames/s", "x real")
    )
    print(f"{'chain':16}{'tracklets':>10}{heads}")
    chained: dict[str, Any] = {}
    for source in SOURCES:
        parts = chains[source]
        chained[source] = {
            "tracklets": sum(part.tracklets for part in parts),
            "purity": float(np.mean([part.purity for part in parts])),
            "matched": float(np.mean([part.matched for part in parts])),
            "ari": float(np.mean([part.ari for part in parts])),
            "ari_by_scene": [part.ari for part in parts],
            "ari_told_people": float(np.mean([part.ari_told_people for part in parts])),
            "chance": float(np.mean([part.chance for part in parts])),
            "chance_95": float(np.mean([part.chance_95 for part in parts])),
            "people": [part.people for part in parts],
            "frames_per_second": statistics.median(part.frames_per_second for part in parts),
            "real_time_factor": statistics.median(part.real_time_factor for part in parts),
        }
        row = chained[source]
        shares = "".join(f"{row[key]:>9.1%}" for key in ("purity", "matched"))
        indices = "".join(f"{row[key]:>9.3f}" for key in ("ari", "chance", "chance_95"))
        pace = f"{statistics.mean(row['people']):>9.1f}{row['frames_per_second']:>9.1f}{row['real_time_factor']:>9.2f}"
        print(f"{source:16}{row['tracklets']:>10}{shares}{indices}{pace}")
    return chained


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short, small scene: within 50 s")
    parser.add_argument("--device", default="auto", help="of the model; detectors and trackers run on the processor")
    parser.add_argument(
        "--run", type=Path, help="a run with stage2/model.safetensors instead of the pretrained encoder"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        specs = [SceneSpec(seed=0, people=5, seconds=6, fps=10, height=360)]
    else:
        specs = [SceneSpec(seed=seed, people=8, seconds=20, fps=15, height=432) for seed in range(3)]

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scenes = [folder / f"scene{spec.seed}" for spec in specs]
        rendering, _ = timed(lambda: [render_videos(root, spec, 2) for root, spec in zip(scenes, specs, strict=True)])
        tracking = {source: track_scenes(scenes, source) for source in SOURCES}
        model = pretrained_model(folder / "pretrained") if arguments.run is None else arguments.run / "stage2"
        chains: dict[str, list[Chained]] = {source: [] for source in SOURCES}
        for scene in scenes:
            for source in SOURCES:
                out = folder / f"{scene.name}-{source}"
                chains[source].append(run_chain(scene, source, out, model, arguments.device))

    videos = sum(spec.cameras for spec in specs)
    length = sum(spec.cameras * spec.seconds for spec in specs)
    width, height = specs[0].size
    console.print(
        f"{videos} videos of {width} x {height}, {length:.0f} s at {specs[0].fps} frames/s, {specs[0].people} people in each, "
        f"rendered in {rendering:.0f} s; {torch.get_num_threads()} threads",
        soft_wrap=True,
    )
    print_tracking(tracking)
    chained = print_chains(chains)
    print(
        json.dumps(
            {
                "ratio": tracking["boxes"]["ratio"],
                "ratio_hog": tracking["hog"]["ratio"],
                "tracking": tracking,
                "chain": chained,
                "videos": videos,
                "seconds": length,
                "model": "pretrained encoder" if arguments.run is None else str(arguments.run),
            }
        )
    )


if __name__ == "__main__":
    main()
