"""How long it takes to find the nearest of a million descriptors, against comparing all of them by torch.

    python tests/benchmarks/bench_search.py [--quick] [--device cuda]

1,000,000 descriptors of 2,048 numbers (--quick: 100,000 of 512), 10 tracklets each of 100,000 people. They are made like this:
a person is a point of 128 independent normal numbers, a tracklet adds normal noise of .6 to each, a camera (of 6) an offset of
.3; a random linear map takes them to 2,048 numbers, where noise of a tenth of their length is added, and then unit length. So
tracklets of one person have a cosine of about .7, and there are no groups of people that an index could follow, which is harder
than what models say of real crowds. Queries are tracklets of the same people that the index has not seen.

The index is `csip.retrieval.search_index`'s, which chooses by itself how hard to search. The peer is one matrix product and topk
in torch, in parts, on the same array. Both are asked for the 10 nearest, many queries at once and one at a time, in turn;
times are medians.
The full size takes about 11 GB of memory and some minutes.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import torch

from csip.retrieval.search_index import build, load, recall, save

TOP, EACH, LATENT, CAMERAS, PART = 10, 10, 128, 6, 65_536


class Crowd:
    """Where descriptors come from."""

    def __init__(self, people: int, width: int, seed: int = 0) -> None:
        self.generator = np.random.default_rng(seed)
        self.people = self._normal(people, LATENT)
        self.cameras = 0.3 * self._normal(CAMERAS, LATENT)
        self.map = self._normal(LATENT, width)
        self.width = width

    def tracklets(self, person: np.ndarray) -> np.ndarray:
        """Descriptors of tracklets of these people, (n, width) float32."""
        camera = self.generator.integers(CAMERAS, size=len(person))
        points = self.people[person] + self.cameras[camera] + 0.6 * self._normal(len(person), LATENT)
        features = points @ self.map
        features += 0.1 * np.sqrt(LATENT) * self._normal(*features.shape)
        return features / np.linalg.norm(features, axis=1, keepdims=True)

    def _normal(self, *shape: int) -> np.ndarray:
        return self.generator.standard_normal(shape, dtype=np.float32)


def by_torch(features: torch.Tensor, queries: np.ndarray, device: str) -> np.ndarray:
    """The rows of the TOP nearest, by comparing everything."""
    asked = torch.from_numpy(queries).to(device)
    best = torch.empty(len(asked), 0, device=device)
    rows = torch.empty(len(asked), 0, dtype=torch.int64, device=device)
    for start in range(0, len(features), PART):
        found = (asked @ features[start : start + PART].T).topk(TOP)
        both = torch.cat([best, found.values], dim=1)
        among = torch.cat([rows, found.indices + start], dim=1)
        best, place = both.topk(TOP)
        rows = among.gather(1, place)
    return rows.cpu().numpy()


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100,000 x 512: within 50 s")
    parser.add_argument("--device", default="cpu", help="of the peer; the index is searched on the CPU")
    arguments = parser.parse_args()
    size, width, batch, rounds = (100_000, 512, 100, 3) if arguments.quick else (1_000_000, 2048, 100, 3)
    singles = 10
    faiss.omp_set_num_threads(torch.get_num_threads())

    crowd = Crowd(size // EACH, width)
    features = np.empty((size, width), dtype=np.float32)
    for start in range(0, size, PART):
        rows = np.arange(start, min(start + PART, size))
        features[rows] = crowd.tracklets(rows // EACH)
    queries = crowd.tracklets(crowd.generator.choice(size // EACH, batch, replace=False))

    before = peak_mb()
    started = time.perf_counter()
    index = build(features)
    build_s = time.perf_counter() - started
    after = peak_mb()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index"
        if index.codes is not None:
            save(index, path, "bench")
            index_mb = path.stat().st_size / 2**20
            load_s = timed(lambda: load(path, features, "bench"))
        else:
            index_mb = load_s = 0.0

    everything = torch.from_numpy(features).to(arguments.device)
    found: list[np.ndarray] = []
    truth: list[np.ndarray] = []
    times: dict[str, list[float]] = {"ours": [], "torch": [], "ours_one": [], "torch_one": []}
    for number in range(rounds):
        times["ours"].append(timed(lambda: found.append(index.search(queries, TOP)[1])) / batch)
        times["torch"].append(timed(lambda: truth.append(by_torch(everything, queries, arguments.device))) / batch)
        for i in range(number, singles, rounds):
            one = queries[i : i + 1]
            times["ours_one"].append(timed(lambda one=one: index.search(one, TOP)))
            times["torch_one"].append(timed(lambda one=one: by_torch(everything, one, arguments.device)))
    reached = recall(found[0], truth[0])
    milliseconds = {name: 1000 * statistics.median(values) for name, values in times.items()}

    print(
        f"{size:,} descriptors of {width:,} numbers ({features.nbytes / 2**30:.1f} GiB), top {TOP}; "
        f"{torch.get_num_threads()} threads, torch on {arguments.device}"
    )
    effort = index.effort
    print(
        f"index: built in {build_s:.0f} s, {index_mb:.0f} MiB, loaded in {load_s:.1f} s; peak memory {before:.0f} MiB before "
        f"and {after:.0f} MiB after; it compares {effort.candidates} candidates (recall {effort.recall:.4f} on its own sample)"
    )
    print(f"recall@{TOP} against torch on {batch} queries it has not seen: {reached:.4f}")
    print(f"{'ms a query':32}{'ours':>10}{'torch':>10}{'ratio':>8}")
    for what, ours, theirs in ((f"{batch} queries at once", "ours", "torch"), ("one query", "ours_one", "torch_one")):
        one, other = milliseconds[ours], milliseconds[theirs]
        print(f"{what:32}{one:>10.2f}{other:>10.2f}{other / one:>8.1f}")
    assert reached >= 0.99, f"recall@{TOP} is {reached}"
    print(
        json.dumps(
            {
                "size": size,
                "width": width,
                "build_s": build_s,
                "index_mb": index_mb,
                "peak_before_mb": before,
                "peak_after_mb": after,
                "candidates": effort.candidates,
                "recall_at_10": reached,
                "batch": batch,
                "ours_ms": milliseconds["ours"],
                "torch_ms": milliseconds["torch"],
                "ratio": milliseconds["torch"] / milliseconds["ours"],
                "ours_one_ms": milliseconds["ours_one"],
                "torch_one_ms": milliseconds["torch_one"],
                "ratio_one": milliseconds["torch_one"] / milliseconds["ours_one"],
            }
        )
    )


if __name__ == "__main__":
    main()
