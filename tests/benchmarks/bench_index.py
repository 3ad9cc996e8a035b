"""How long it takes to know what is in a data set: the first time, and again; and how much memory that needs.

    python tests/benchmarks/bench_index.py [--quick]

Two trees are made. One has MARS's index files at full size (8,298 training and 12,180 test tracklets, 1.19 million names; no
reader of MARS looks at the frames). The other has frames on the disk in LS-VID's layout, empty ones: 1.2 million, or with
``--quick`` 60,000. The peer reads them as published readers do: it asks for every tracklet's frames with a pattern, and
whether each frame is there. Every reading is a process of its own; the first of ours finds no index. Nothing empties the
disk's cache: after a restart of the machine all of them, and the peer most, wait for the disk.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import h5py
import numpy as np
from scipy.io import savemat

from csip.data.index import FOLDER

OURS = """
import json, resource, sys, time
from pathlib import Path
start = time.perf_counter()
from csip.data import {reader}
imported = time.perf_counter()
dataset = {reader}.load(Path(sys.argv[1]))
end = time.perf_counter()
print(json.dumps({{
    "seconds": end - imported, "import_s": imported - start,
    "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "frames": sum(len(t.frames) for t in dataset.train) + sum(len(t.frames) for t in dataset.gallery),
    "tracklets": [len(dataset.train), len(dataset.query), len(dataset.gallery)],
}}))
"""

PEER = """
import glob, json, os, resource, sys, time
start = time.perf_counter()
root, frames = sys.argv[1], 0
for part in ("train", "test"):
    for line in open(os.path.join(root, "list_sequence", "list_seq_" + part + ".txt")):
        path, pid = line.rstrip().split(" ")
        images = sorted(glob.glob(os.path.join(root, path) + "*"))
        cameras = {os.path.basename(image).split("_")[2] for image in images}
        assert len(cameras) == 1 and all(os.path.isfile(image) for image in images)
        frames += len(images)
print(json.dumps({"seconds": time.perf_counter() - start, "frames": frames,
                  "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
"""


def make_mars(root: Path) -> None:
    """MARS's index files at full size, with people, cameras and lengths drawn at random."""
    rng = np.random.default_rng(0)
    (root / "info").mkdir(parents=True)
    for part, people, count in (("train", 625, 8298), ("test", 636, 12180)):
        names, rows = [], []
        pids, cameras = np.sort(rng.integers(1, 2 * people, count)), rng.integers(1, 7, count)
        for number, (pid, camera) in enumerate(zip(pids.tolist(), cameras.tolist(), strict=True)):
            start = len(names) + 1
            frames = int(rng.geometric(1 / 58))
            names += [f"{pid:04d}C{camera}T{number:04d}F{i:03d}.jpg" for i in range(1, frames + 1)]
            rows.append((start, len(names), pid, camera))
        (root / f"info/{part}_name.txt").write_text("\n".join(names))
        savemat(root / f"info/tracks_{part}_info.mat", {f"track_{part}_info": np.array(rows, dtype=np.float64)})
    savemat(root / "info/query_IDX.mat", {"query_IDX": np.arange(1, 1981, dtype=np.uint16)[None]})


def make_lsvid(root: Path, tracklets: int, frames: int) -> None:
    """LS-VID's layout: people with ten tracklets each in one folder, `frames` empty files a tracklet."""
    (root / "list_sequence").mkdir(parents=True)
    (root / "test/data").mkdir(parents=True)
    for part, count in (("train", tracklets // 5), ("test", tracklets - tracklets // 5)):
        lines = []
        for number in range(count):
            folder = f"tracklet_{part}/{number // 10:04d}"
            (root / folder).mkdir(parents=True, exist_ok=True)
            beginning = f"{folder}/{number // 10:04d}_{number:05d}_{number % 15 + 1:02d}"
            lines.append(f"{beginning} {number // 10}")
            for i in range(frames):
                (root / f"{beginning}_{i:06d}.jpg").touch()
        (root / f"list_sequence/list_seq_{part}.txt").write_text("\n".join(lines))
    with h5py.File(root / "test/data/info_test.mat", "w") as file:
        file["query"] = np.arange(1, tracklets // 4, dtype=np.float64)[None]


def read(code: str, root: Path) -> dict:
    return json.loads(subprocess.run([sys.executable, "-c", code, str(root)], check=True, capture_output=True).stdout)


def measure(root: Path, reader: str, rounds: int, peer: bool) -> dict[str, dict]:
    """Cold (no index), warm, and the peer, one after the other in each round; the median by seconds."""
    found: dict[str, list[dict]] = {"cold": [], "warm": [], "peer": []}
    for _ in range(rounds):
        shutil.rmtree(root / FOLDER, ignore_errors=True)
        for name in ("cold", "warm"):
            found[name].append(read(OURS.format(reader=reader), root))
        if peer:
            found["peer"].append(read(PEER, root))
    assert len({one["frames"] for runs in found.values() for one in runs}) == 1, "they disagree"
    middle = {name: statistics.median_low(one["seconds"] for one in runs) for name, runs in found.items() if runs}
    return {name: next(one for one in found[name] if one["seconds"] == value) for name, value in middle.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, few frames on the disk: within 50 s")
    parser.add_argument("--device", help="not used: nothing here runs on a GPU")
    quick = parser.parse_args().quick
    with tempfile.TemporaryDirectory() as folder:
        tracklets, frames = (1000, 60) if quick else (20_000, 60)
        rounds = 1 if quick else 3
        make_mars(Path(folder) / "mars")
        make_lsvid(Path(folder) / "lsvid", tracklets, frames)
        mars = measure(Path(folder) / "mars", "mars", rounds, peer=False)
        disk = measure(Path(folder) / "lsvid", "lsvid", rounds, peer=True)
        size = next((Path(folder) / "mars" / FOLDER).iterdir()).stat().st_size / 2**20
    print(f"{'':48}{'seconds':>10}{'peak MiB':>10}")
    for title, runs in (
        (f"MARS, {mars['cold']['frames']:,} names", mars),
        (f"frames on disk, {tracklets * frames:,}", disk),
    ):
        for name, run in runs.items():
            print(f"{title + ', ' + name:48}{run['seconds']:>10.2f}{run['peak_mb']:>10.0f}")
    print(f"MARS's index is {size:.0f} MiB; imports take {mars['warm']['import_s']:.2f} s more")
    print(
        json.dumps(
            {
                "mars_cold_s": mars["cold"]["seconds"],
                "mars_warm_s": mars["warm"]["seconds"],
                "mars_peak_mb": max(run["peak_mb"] for run in mars.values()),
                "disk_frames": tracklets * frames,
                "disk_cold_s": disk["cold"]["seconds"],
                "disk_warm_s": disk["warm"]["seconds"],
                "peer_s": disk["peer"]["seconds"],
                "ratio": disk["peer"]["seconds"] / disk["cold"]["seconds"],
                "warm_ratio": disk["peer"]["seconds"] / disk["warm"]["seconds"],
            }
        )
    )


if __name__ == "__main__":
    main()
