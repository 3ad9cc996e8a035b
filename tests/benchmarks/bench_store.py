"""The skeleton store against one JSON file a frame: reading a random clip, size, and opening a store as big as MARS.

    python tests/benchmarks/bench_store.py [--quick] [--folder FOLDER]

Both sides hold the same joints. Everything is in the page cache, which favours the JSON files: a data set's worth of them
takes ten times the memory.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pose_cache.interchange import export_json
from pose_cache.store import Provenance, SkeletonStore, TrackletSkeletons, write_store

CLIP = 8
MARS_FRAMES, MARS_TRACKLETS = 1_190_000, 20_000

IMPORT = """
import json, resource, sys, time
from pathlib import Path
import numpy
import pose_cache.store
"""
# A child that was forked has its parent's peak for a start: only /proc tells its own.
PEAK = """
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
"""
OPEN = """
start = time.perf_counter()
store = pose_cache.store.SkeletonStore(Path(sys.argv[1]))
opened = time.perf_counter() - start
clip = store.joints(store.names[-1], [0, 1])
"""


def tracklets(frames: int, count: int, keypoints: int, seed: int = 0) -> Iterator[TrackletSkeletons]:
    """Generate walks of people with names as in MARS."""
    rng, others = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    lengths = np.full(count, frames // count)
    lengths[: frames - int(lengths.sum())] += 1
    for number, length in enumerate(lengths.tolist()):
        person, camera = number // 16 + 1, number % 6 + 1
        stem = f"{person:04d}C{camera}T{number % 16 + 1:04d}"
        names = tuple(f"bbox_train/{person:04d}/{stem}F{frame:03d}.jpg" for frame in range(1, length + 1))
        joints = rng.standard_normal((length, 17, 3), dtype=np.float32)
        points = 128 * others.random((length, keypoints, 3), dtype=np.float32)
        yield TrackletSkeletons(f"train/{stem}", names, joints, points, np.ones(length, bool))


def read_json_clip(folder: str, frames: list[str]) -> np.ndarray:
    """Read a clip as one would from the authors' files."""
    clip = []
    for frame in frames:
        with open(f"{folder}/{frame[:-4]}.json") as file:  # noqa: PTH123  pathlib would be slower
            clip.append(json.load(file)["keypoints"])
    return np.array(clip, np.float32)


def time_clips(store: SkeletonStore, folder: Path, rounds: int, clips: int) -> tuple[float, float, float]:
    """Return the median seconds a clip of the store and of the JSON files, in turns, and the median of their ratios."""
    rng = np.random.default_rng(1)
    frames = {name: store.read(name).frames for name in store.names}
    times: tuple[list[float], list[float]] = [], []
    for _ in range(rounds):
        names = [store.names[index] for index in rng.integers(len(store), size=clips)]
        rows = [np.sort(rng.integers(len(frames[name]), size=CLIP)) for name in names]
        chosen = [[frames[name][row] for row in row_set] for name, row_set in zip(names, rows, strict=True)]
        start = time.perf_counter()
        for name, row_set in zip(names, rows, strict=True):
            store.joints(name, row_set)
        middle = time.perf_counter()
        for clip in chosen:
            read_json_clip(str(folder), clip)
        times[0].append((middle - start) / clips)
        times[1].append((time.perf_counter() - middle) / clips)
        np.testing.assert_array_equal(store.joints(names[0], rows[0]), read_json_clip(str(folder), chosen[0]))
    ratio = statistics.median(theirs / ours for ours, theirs in zip(*times, strict=True))
    return statistics.median(times[0]), statistics.median(times[1]), ratio


def disk(path: Path) -> tuple[int, int]:
    """Return what a file or a folder of files takes: bytes, and bytes of whole file-system blocks."""
    files = [path] if path.is_file() else [file for file in path.rglob("*.json")]
    stats = [file.stat() for file in files]
    return sum(one.st_size for one in stats), sum(512 * one.st_blocks for one in stats)


def measure_opening(path: Path) -> tuple[float, float]:
    """Open a store in fresh processes; return the seconds, and the MB beyond those of the imports."""
    opened, peaks = [], []
    for _ in range(3):
        full = json.loads(run(IMPORT + OPEN + PEAK + "print(json.dumps([opened, peak]))", str(path)))
        bare = json.loads(run(IMPORT + PEAK + "print(peak)"))
        opened.append(full[0])
        peaks.append(full[1] - bare)
    return statistics.median(opened), statistics.median(peaks)


def run(program: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True
    ).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer files: 20,000 instead of 200,000")
    parser.add_argument("--device", help="without meaning here: everything is on the processor")
    parser.add_argument(
        "--folder", type=Path, help="folder for the files, removed afterwards; a temporary one by default"
    )
    arguments = parser.parse_args()
    frames, rounds = (20_000, 15) if arguments.quick else (200_000, 45)
    made = Provenance("generated", "h36m17", "m")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as place:
        root = Path(place)
        write_store(root / "plain.h5", tracklets(frames, frames // 60, keypoints=0), made)
        write_store(root / "full.h5", tracklets(frames, frames // 60, keypoints=17), made)
        plain = SkeletonStore(root / "plain.h5")
        export_json(plain, root / "json", workers=2)
        ours, theirs, ratio = time_clips(SkeletonStore(root / "full.h5"), root / "json", rounds, 500)
        sizes = {name: disk(root / name) for name in ("plain.h5", "full.h5", "json")}
        write_store(root / "mars.h5", tracklets(MARS_FRAMES, MARS_TRACKLETS, keypoints=17), made)
        size = (root / "mars.h5").stat().st_size
        opened, memory = measure_opening(root / "mars.h5")

    result = {
        "ratio": ratio,
        "store_us": 1e6 * ours,
        "json_us": 1e6 * theirs,
        "size_ratio": sizes["full.h5"][1] / sizes["json"][1],
        "size_ratio_bytes": sizes["full.h5"][0] / sizes["json"][0],
        "size_ratio_without_2d": sizes["plain.h5"][1] / sizes["json"][1],
        "size_ratio_bytes_without_2d": sizes["plain.h5"][0] / sizes["json"][0],
        "open_seconds": opened,
        "open_mb": memory,
    }
    print(f"{frames:,} frames, joints of {CLIP} random frames of a random tracklet, files in the page cache")
    print(f"{'':<44}{'store':>10}{'JSON files':>12}{'ratio':>9}")
    print(f"{'a clip, microseconds':<44}{1e6 * ours:>10.2f}{1e6 * theirs:>12.1f}{ratio:>8.0f}x")
    for name, label in (("full.h5", "3D, 2D, scores"), ("plain.h5", "3D alone")):
        for unit, what in ((1, "blocks on the disk"), (0, "bytes")):
            a, b = (sizes[key][unit] / frames for key in (name, "json"))
            text = f"a frame, {what} ({label})"
            print(f"{text:<44}{a:>10.0f}{b:>12.0f}{a / b:>9.3f}")
    print(
        f"opening {MARS_FRAMES:,} frames, {MARS_TRACKLETS:,} tracklets ({size / 1e6:.0f} MB): {1000 * opened:.0f} ms, "
        f"{memory:.0f} MB more than its imports"
    )
    print(json.dumps({key: round(value, 4) for key, value in result.items()}))


if __name__ == "__main__":
    main()
