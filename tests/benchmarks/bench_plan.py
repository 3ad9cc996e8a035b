"""Reading the index of a data set of MARS's size and planning its extraction, against a loop of paths.

    python tests/benchmarks/bench_plan.py [--quick]

The index files are in MARS's format; the frames need not exist. The peer does what readers of such data sets commonly do:
it joins a path for every frame and asks the disk whether it is there (here the answer is no at once: on a disk with a
million files it takes longer). It is also timed without asking.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.io import savemat

PARTS = {"train": (480_000, 8_000), "test": (710_000, 12_000)}  # frames, tracklets: 1.19 M and 20,000
SHARD_FRAMES = 4096

# Each measurement is a process of its own. A child that was forked has its parent's peak for a start: only /proc
# tells its own.
PEAK = """
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
"""
OURS = """
import json, sys, time
from pathlib import Path
from csip.data import mars
from pose_cache.plan import FrameSequence, fingerprint, plan_shards
imported = peak()
start = time.perf_counter()
dataset = mars.load(Path(sys.argv[1]))
read = time.perf_counter()
tracklets = {t.name: t for split in (dataset.train, dataset.query, dataset.gallery) for t in split}
sequences = [FrameSequence(t.name, t.frames) for t in tracklets.values()]
shards = plan_shards(sequences, int(sys.argv[2]))
prints = [fingerprint(shard) for shard in shards], fingerprint(sequences)
end = time.perf_counter()
frames = sum(len(s.frames) for s in sequences)
print(json.dumps({"read": read - start, "plan": end - read, "peak": peak(), "imported": imported,
                  "frames": frames, "tracklets": len(sequences), "shards": len(shards)}))
"""
PEER = """
import hashlib, json, sys, time
from pathlib import Path
from scipy.io import loadmat
imported = peak()
root, ask, shard_frames = Path(sys.argv[1]), sys.argv[3] == "ask", int(sys.argv[2])
start = time.perf_counter()
tracklets, missing = [], 0
for part in ("train", "test"):
    names = (root / "info" / f"{part}_name.txt").read_text().split()
    rows = loadmat(root / "info" / f"tracks_{part}_info.mat")[f"track_{part}_info"].astype(int)
    for first, last, pid, camera in rows[:: int(sys.argv[4])]:
        paths = []
        for name in names[first - 1 : last]:
            path = root / f"bbox_{part}" / name[:4] / name
            if ask and not path.is_file():
                missing += 1
            paths.append(path)
        tracklets.append((paths, pid, camera))
read = time.perf_counter()
shards, count = [[]], 0
for tracklet in tracklets:
    if count >= shard_frames:
        shards.append([])
        count = 0
    shards[-1].append(tracklet)
    count += len(tracklet[0])
digest = hashlib.sha256()
for shard in shards:
    for paths, _, _ in shard:
        for path in paths:
            digest.update(str(path).encode())
end = time.perf_counter()
print(json.dumps({"read": read - start, "plan": end - read, "peak": peak(), "imported": imported,
                  "frames": sum(len(t[0]) for t in tracklets), "tracklets": len(tracklets), "shards": len(shards)}))
"""


def write_index(root: Path) -> None:
    """Write the five index files, with tracklets of uneven lengths."""
    info = root / "info"
    info.mkdir()
    rng = np.random.default_rng(0)
    for part, (frames, count) in PARTS.items():
        cuts = np.sort(rng.choice(np.arange(1, frames), count - 1, replace=False))
        bounds = np.concatenate([[0], cuts, [frames]])
        names, rows = [], []
        for number, (start, stop) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
            person, camera = 2 * (number // 13) + (1 if part == "train" else 2), number % 6 + 1
            stem = f"{person:04d}C{camera}T{number % 13 + 1:04d}"
            names += [f"{stem}F{frame:03d}.jpg" for frame in range(1, stop - start + 1)]
            rows.append((start + 1, stop, person, camera))
        (info / f"{part}_name.txt").write_text("\n".join(names) + "\n")
        savemat(info / f"tracks_{part}_info.mat", {f"track_{part}_info": np.array(rows, np.float64)})
    savemat(info / "query_IDX.mat", {"query_IDX": np.arange(1, 12_000, 6)[None]})


def run(program: str, root: Path, *arguments: str) -> dict[str, float]:
    command = [sys.executable, "-c", PEAK + program, str(root), str(SHARD_FRAMES), *arguments]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="one round instead of three, the peer on a fourth of the data"
    )
    parser.add_argument("--device", help="without meaning here: everything is on the processor")
    arguments = parser.parse_args()
    runs: dict[str, list[dict[str, float]]] = {"ours": [], "peer": [], "peer, not asking": []}
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        write_index(root)
        for _ in range(1 if arguments.quick else 3):
            runs["ours"].append(run(OURS, root))
            stride = "4" if arguments.quick else "1"
            runs["peer"].append(run(PEER, root, "ask", stride))
            runs["peer, not asking"].append(run(PEER, root, "trust", stride))
    middle = {
        name: {key: statistics.median(one[key] for one in done) for key in done[0]} for name, done in runs.items()
    }
    print(f"{'':<18}{'read, s':>9}{'plan, s':>9}{'all, s':>9}{'peak, MB':>10}{'of it imports':>15}")
    for name, one in middle.items():
        whole = one["read"] + one["plan"]
        print(
            f"{name:<18}{one['read']:>9.2f}{one['plan']:>9.2f}{whole:>9.2f}{one['peak']:>10.0f}{one['imported']:>15.0f}"
        )
    ours, peer, trusting = middle.values()
    if arguments.quick:
        print(f"(the peer on {peer['frames']:,.0f} frames; in the ratios its time is scaled to all)")
    seconds = [(one["read"] + one["plan"]) * ours["frames"] / one["frames"] for one in (ours, peer, trusting)]
    print(f"{ours['frames']:,.0f} frames, {ours['tracklets']:,.0f} tracklets, {ours['shards']:,.0f} shards")
    result = {
        "ratio": seconds[1] / seconds[0],
        "ratio_not_asking": seconds[2] / seconds[0],
        "seconds": seconds[0],
        "peak_mb": ours["peak"],
        "peak_mb_beyond_imports": ours["peak"] - ours["imported"],
        "peer_seconds": seconds[1],
        "peer_peak_mb": peer["peak"],
    }
    print(json.dumps({key: round(value, 4) for key, value in result.items()}))


if __name__ == "__main__":
    main()
