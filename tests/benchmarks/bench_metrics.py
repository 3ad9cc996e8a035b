"""How long it takes to score a ranking, against a loop over queries; and how much memory a gallery of a million takes.

    python tests/benchmarks/bench_metrics.py [--quick] [--device cuda]

Sizes are those of MARS: 1,980 queries, 11,310 gallery tracklets, descriptors of 2,048 numbers. The loop does for every
query what evaluation scripts do: distances to the gallery, argsort, precision at every match. Both start from the same
features and must agree. ``scoring_ratio`` starts from the same matrix of distances instead, where only sorting and
counting differ. With ``--quick`` the loop goes over every tenth query and its time is multiplied.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from csip.retrieval.metrics import rank, rank_distances

QUERIES, GALLERY, IDENTITIES, CAMERAS, WIDTH = 1980, 11310, 626, 6, 2048


def make(queries: int, gallery: int, width: int, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Unit features of people that overlap, with a fifth of the gallery distractors."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(IDENTITIES + 1, width)).astype(np.float32)

    def side(count: int, distractors: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        ids = np.where(rng.random(count) < distractors, 0, rng.integers(1, IDENTITIES + 1, count))
        features = centres[ids] + 3 * rng.normal(size=(count, width)).astype(np.float32)
        return features / np.linalg.norm(features, axis=1, keepdims=True), ids, rng.integers(1, CAMERAS + 1, count)

    return (*side(queries, 0), *side(gallery, 0.2))


def loop_over_queries(
    distance_of: Callable[[int], np.ndarray],
    asked: range,
    q_ids: np.ndarray,
    q_cams: np.ndarray,
    g_ids: np.ndarray,
    g_cams: np.ndarray,
) -> tuple[float, float]:
    """Mean average precision and Rank-1 of the queries `asked`, one at a time."""
    precisions, first = [], []
    for i in asked:
        order = np.argsort(distance_of(i))
        kept = (g_ids[order] != q_ids[i]) | (g_cams[order] != q_cams[i])
        match = (g_ids[order] == q_ids[i])[kept].astype(np.int32)
        if not match.any():
            continue
        found = match.cumsum()
        precisions.append((found / np.arange(1, len(found) + 1) * match).sum() / found[-1])
        first.append(match[0])
    return float(np.mean(precisions)), float(np.mean(first))


def timed(run: Callable[[], object]) -> tuple[float, object]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def million(queries: int, gallery: int, width: int, device: str) -> None:
    """Score against a large gallery on the disk, in this process, and print its seconds and peak memory (MiB)."""
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gallery.npy"
        features = np.lib.format.open_memmap(path, "w+", np.float32, (gallery, width))
        for start in range(0, gallery, 50_000):
            features[start : start + 50_000] = rng.normal(size=features[start : start + 50_000].shape)
        features.flush()
        del features
        features = np.load(path, mmap_mode="r")
        identities = gallery // 20
        labels = (rng.integers(1, identities, queries), rng.integers(1, CAMERAS + 1, queries))
        gallery_labels = (rng.integers(0, identities, gallery), rng.integers(1, CAMERAS + 1, gallery))
        asked = rng.normal(size=(queries, width)).astype(np.float32)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        seconds, _ = timed(lambda: rank(asked, *labels, features, *gallery_labels, device=device))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"seconds": seconds, "before_mb": before, "peak_mb": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, a smaller large case: within 50 s")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--million", nargs=3, type=int, metavar=("QUERIES", "GALLERY", "WIDTH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.million:
        million(*arguments.million, arguments.device)
        return

    query, q_ids, q_cams, gallery, g_ids, g_cams = make(QUERIES, GALLERY, WIDTH)
    labels = (q_ids, q_cams, g_ids, g_cams)
    squares = np.square(gallery).sum(axis=1)
    distances = squares - 2 * query @ gallery.T
    step = 10 if arguments.quick else 1
    asked = range(0, QUERIES, step)
    times: dict[str, list[float]] = {"ours": [], "loop": [], "ours_given": [], "loop_given": []}
    for _ in range(1 if arguments.quick else 3):
        seconds, ours = timed(lambda: rank(query, q_ids, q_cams, gallery, g_ids, g_cams, device=arguments.device))
        times["ours"].append(seconds)
        seconds, theirs = timed(lambda: loop_over_queries(lambda i: squares - 2 * gallery @ query[i], asked, *labels))
        times["loop"].append(seconds * step)
        seconds, given = timed(lambda: rank_distances(distances, *labels))
        times["ours_given"].append(seconds)
        seconds, theirs_given = timed(lambda: loop_over_queries(lambda i: distances[i], asked, *labels))
        times["loop_given"].append(seconds * step)
        for one, other in ((ours, theirs), (given, theirs_given)):
            chosen = one.subset(np.arange(QUERIES) % step == 0)
            assert np.allclose((chosen.map, chosen.rank1), other, atol=1e-3), f"{chosen.map, chosen.rank1}, {other}"

    size = (256, 1_000_000, 64) if arguments.quick else (1024, 1_000_000, 128)
    command = [sys.executable, __file__, "--device", arguments.device, "--million", *map(str, size)]
    large = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])

    median = {name: statistics.median(values) for name, values in times.items()}
    print(
        f"{QUERIES} queries, {GALLERY} gallery tracklets, {WIDTH} numbers each, mAP {ours.map:.1%}; "
        f"{torch.get_num_threads()} threads"
    )
    print(f"{'':32}{'ours':>10}{'loop':>10}{'ratio':>8}")
    for what, one, other in (("from features", "ours", "loop"), ("from distances", "ours_given", "loop_given")):
        print(f"{what:32}{median[one]:>8.2f} s{median[other]:>8.2f} s{median[other] / median[one]:>8.1f}")
    print(
        f"{size[0]} queries against {size[1]:,} x {size[2]} on the disk: {large['seconds']:.0f} s, peak "
        f"{large['peak_mb']:.0f} MiB, of which {large['before_mb']:.0f} before"
    )
    print(
        json.dumps(
            {
                "ours_s": median["ours"],
                "loop_s": median["loop"],
                "ratio": median["loop"] / median["ours"],
                "scoring_ratio": median["loop_given"] / median["ours_given"],
                "map": ours.map,
                "large": {"queries": size[0], "gallery": size[1], "width": size[2], **large},
            }
        )
    )


if __name__ == "__main__":
    main()
