"""Extractions that are killed, stopped, starved and disturbed. The estimator is a stand-in, the rest is real."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import h5py
import pytest
from stub_estimator import LENGTHS, environment, write_frames

from pose_cache.store import SkeletonStore, verify_store

pytestmark = pytest.mark.slow

FRAMES = sum(LENGTHS)

# `csip` with one command, so that signals and exit codes are those of the command line.
_MAIN = """
import sys
from pathlib import Path
import typer
from stub_estimator import EstimatorSpec, sequences
from pipelines.cli import entry as cli
from pose_cache.extract import ExtractOptions, Share, extract, merge_shards
from pose_cache.monitor import Silent

cli.app = typer.Typer(pretty_exceptions_enable=False)

@cli.app.command()
def run(root: Path, out: Path, device: str = "cpu", backend: str = "", shard: str = "", digest: str = "0" * 64,
        force: bool = False, merge: bool = False, count: int = 1000) -> None:
    class Printed(Silent):
        def progress(self, task, done, total, note=""):
            print(done, total, flush=True)

    if merge:
        summary = merge_shards(sequences()[:count], root, out, force=force)
    else:
        options = ExtractOptions(device=device, batch_size=4, shard_frames=10, backend=backend or None)
        summary = extract(sequences()[:count], root, EstimatorSpec(digest=digest), out, options,
                          share=Share.parse(shard) if shard else None, force=force, monitor=Printed())
    print("kept", summary.kept_frames, "up to date" if summary.up_to_date else "made")

cli.main()
"""

# Forks a process for every life of one extraction, and kills it: a moment after its first batches. However late that is,
# it makes a few more at most, and too few for a shard once a third of all shards are there: no life finishes the work.
_KILLER = """
import json, os, random, signal, sys, time
from pathlib import Path
import stub_estimator
from pose_cache.extract import ExtractOptions, extract

root, out, log = Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[2]).with_name("batches")
shards = out.with_name(out.name + ".shards")
chance, lives = random.Random(0), []
while len(lives) < 25:
    before = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in shards.glob("*.h5")}
    first, more = (chance.randrange(6), 3) if len(before) < 10 else (chance.randrange(3), 0)
    log.write_text("")
    child = os.fork()
    if child == 0:
        os.environ["STUB_LOG"], os.environ["STUB_HOLD"] = str(log), f"{first + more} {log}"
        extract(stub_estimator.sequences(), root, stub_estimator.EstimatorSpec(), out,
                ExtractOptions(batch_size=4, shard_frames=10))
        os._exit(0)
    deadline = time.monotonic() + 60
    while log.read_text().count("\\n") < first and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(chance.uniform(0, 0.03))
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    after = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in shards.glob("*.h5")}
    lives.append({"killed": os.WIFSIGNALED(status), "before": before, "after": after, "out": out.exists()})
print(json.dumps(lives))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("frames") / "root"
    write_frames(root)
    return root


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    assert run(root, folder / "whole.h5", folder).returncode == 0
    assert SkeletonStore(folder / "whole.h5").frame_count == FRAMES
    return folder / "whole.h5"


def start(root: Path, out: Path, folder: Path, *options: str, **settings: object) -> subprocess.Popen:
    command = [sys.executable, "-c", _MAIN, str(root), str(out), *options]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    # What runs the tests in the background has Ctrl-C ignored, and so would its children.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen(
        command, env=environment(folder, **settings), start_new_session=True, preexec_fn=heed, **pipes
    )


def run(root: Path, out: Path, folder: Path, *options: str, **settings: object) -> subprocess.CompletedProcess:
    process = start(root, out, folder, *options, **settings)
    stdout, stderr = process.communicate(timeout=60)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


@pytest.fixture
def hold(tmp_path: Path) -> Path:
    """A file as long as which is there processes with `STUB_HOLD` wait, after a few batches."""
    (tmp_path / "hold").touch()
    return tmp_path / "hold"


def wait_for_waiting(hold: Path, count: int) -> None:
    """Wait until so many processes wait for the file."""
    deadline = time.monotonic() + 60
    while len(list(hold.parent.glob("hold.*"))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def wait_until_none(group: int, seconds: float = 60) -> list[int]:
    """Wait for a session's processes to end; returns those that have not."""
    # Counted, not timed: where a machine stands still for a while, its clock may go on.
    for _ in range(int(seconds / 0.05)):
        if not (left := processes_of(group)):
            return []
        time.sleep(0.05)
    return left


def contents(path: Path) -> dict[str, object]:
    with h5py.File(path) as file:
        found: dict[str, object] = {key: file[key][()].tobytes() + str(file[key].dtype).encode() for key in file}
        found["attributes"] = {key: value for key, value in file.attrs.items() if key not in ("created", "software")}
    return found


def processes_of(group: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdecimal() else []
        except OSError:
            continue
        if fields and int(fields[3]) == group and fields[0] not in "ZX":
            found.append(int(entry.name))
    return found


def shards_of(out: Path) -> dict[str, tuple[int, int]]:
    return {
        path.name: (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in out.with_name(out.name + ".shards").glob("*.h5")
    }


def test_killed_25_times_at_random_it_ends_as_if_nothing_had_been(root: Path, whole: Path, tmp_path: Path):
    out = tmp_path / "out.h5"
    command = [sys.executable, "-c", _KILLER, str(root), str(out)]
    killer = subprocess.run(command, env=environment(tmp_path, STUB_PAUSE=0.004), capture_output=True, text=True)
    assert killer.returncode == 0, killer.stderr
    lives = json.loads(killer.stdout)
    assert len(lives) == 25 and all(life["killed"] and not life["out"] for life in lives)
    for life in lives:  # what was finished is the same file still
        assert life["before"].items() <= life["after"].items()
    kept = sum(SkeletonStore(path).frame_count for path in (tmp_path / "out.h5.shards").glob("*.h5"))
    assert 0 < kept < FRAMES
    last = run(root, out, tmp_path, STUB_LOG=tmp_path / "log")
    assert last.returncode == 0 and f"kept {kept} made" in last.stdout, last.stderr
    assert sum(int(line.split()[1]) for line in (tmp_path / "log").read_text().splitlines()) == FRAMES - kept
    assert contents(out) == contents(whole) and verify_store(out) == []
    assert sorted(path.name for path in tmp_path.glob("out.h5*")) == ["out.h5"]


@pytest.mark.parametrize("device", ["cpu", "cpu,cpu"])
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_it_cleanly_and_it_goes_on(
    root: Path, whole: Path, tmp_path: Path, hold: Path, name: str, device: str
):
    out = tmp_path / "out.h5"
    process = start(root, out, tmp_path, "--device", device, STUB_HOLD=f"20 {hold}")
    assert process.stdout is not None
    while int(process.stdout.readline().split()[0]) < 40:
        pass
    wait_for_waiting(hold, len(device.split(",")))  # who is killed while it writes leaves a .partial
    if name == "SIGINT":  # as a terminal does: to the whole group, worker processes included
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == {"SIGINT": 130, "SIGTERM": 143}[name], stderr
    assert "rerun the command to resume" in stderr and "Traceback" not in stderr, stderr
    assert not wait_until_none(process.pid)
    before = shards_of(out)
    assert before and not out.exists() and not list(tmp_path.rglob("*.partial"))
    again = run(root, out, tmp_path)
    assert again.returncode == 0 and "made" in again.stdout and "kept 0 " not in again.stdout
    assert contents(out) == contents(whole)


def test_workers_end_when_their_parent_is_killed(root: Path, whole: Path, tmp_path: Path, hold: Path):
    out = tmp_path / "out.h5"
    process = start(root, out, tmp_path, "--device", "cpu,cpu", STUB_HOLD=f"12 {hold}")
    assert process.stdout is not None
    while int(process.stdout.readline().split()[0]) < 20:
        pass
    assert len(processes_of(process.pid)) >= 3
    process.kill()
    assert not wait_until_none(process.pid)
    process.communicate(timeout=60)
    assert run(root, out, tmp_path, "--device", "cpu,cpu").returncode == 0
    assert contents(out) == contents(whole)


def test_of_two_runs_at_once_one_is_refused_and_told_by_whom(root: Path, whole: Path, tmp_path: Path, hold: Path):
    out = tmp_path / "out.h5"
    first = start(root, out, tmp_path, STUB_HOLD=f"6 {hold}")
    assert first.stdout is not None and first.stdout.readline()
    for options in ((), ("--shard", "1/2")):
        second = run(root, out, tmp_path, *options)
        assert second.returncode == 1 and "Traceback" not in second.stderr
        assert f"out.h5 is being written by process {first.pid} on " in second.stderr, second.stderr
    hold.unlink()
    _, stderr = first.communicate(timeout=60)
    assert first.returncode == 0, stderr
    assert contents(out) == contents(whole)
    assert "up to date" in run(root, out, tmp_path).stdout


def test_shares_run_at_once_and_are_merged_when_all_are_there(root: Path, whole: Path, tmp_path: Path, hold: Path):
    out = tmp_path / "out.h5"
    assert "nothing to merge" in run(root, out, tmp_path, "--merge").stderr
    jobs = [start(root, out, tmp_path, "--shard", f"{index}/3", STUB_HOLD=f"6 {hold}") for index in (1, 2)]
    for job in jobs:
        assert job.stdout is not None and job.stdout.readline()
    twice = run(root, out, tmp_path, "--shard", "2/3")
    assert twice.returncode == 1 and f"the share 2/3 of {out} is being written by process {jobs[1].pid}" in twice.stderr
    for options in ((), ("--merge",)):
        refused = run(root, out, tmp_path, *options)
        assert refused.returncode == 1 and f"process {jobs[0].pid} on" in refused.stderr, refused.stderr
    hold.unlink()
    for job in jobs:
        assert job.communicate(timeout=60) and job.returncode == 0
    early = run(root, out, tmp_path, "--merge")
    assert (
        early.returncode == 1 and "extract the shares 3/3 (`csip skeletons --shard" in early.stderr and not out.exists()
    )
    before = shards_of(out)
    assert run(root, out, tmp_path, "--shard", "3/3", "--device", "cpu,cpu").returncode == 0
    assert before.items() < shards_of(out).items()
    merged = run(root, out, tmp_path, "--merge")
    assert merged.returncode == 0, merged.stderr
    assert contents(out) == contents(whole)
    assert sorted(path.name for path in tmp_path.glob("out.h5*")) == ["out.h5"]


def test_what_another_estimator_has_begun_is_not_mixed_in(root: Path, whole: Path, tmp_path: Path):
    out = tmp_path / "out.h5"
    assert run(root, out, tmp_path, "--shard", "1/2", "--digest", "f" * 64).returncode == 0
    refused = run(root, out, tmp_path)
    assert refused.returncode == 1 and "did not finish: drop them by force" in refused.stderr
    assert "(--force)" in refused.stderr
    assert shards_of(out)
    assert run(root, out, tmp_path, "--force").returncode == 0
    assert contents(out) == contents(whole)


def test_a_dataset_that_grew_amid_a_killed_run_keeps_what_is_finished(root: Path, whole: Path, tmp_path: Path):
    out = tmp_path / "out.h5"
    assert run(root, out, tmp_path, "--shard", "1/2", "--count", "31").returncode == 0
    kept = sum(SkeletonStore(path).frame_count for path in (tmp_path / "out.h5.shards").glob("*.h5"))
    grown = run(root, out, tmp_path, STUB_LOG=tmp_path / "log")
    assert f"kept {kept} made" in grown.stdout, grown.stderr
    assert sum(int(line.split()[1]) for line in (tmp_path / "log").read_text().splitlines()) == FRAMES - kept
    assert contents(out) == contents(whole)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of four megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.parametrize("free", [0, 20_000, 250_000, 700_000])
def test_a_full_disk_is_one_clear_error_and_no_damaged_file(
    root: Path, whole: Path, tmp_path: Path, small_disk: Path, free: int
):
    out = small_disk / "out.h5"
    filler = small_disk / "filler"
    filler.write_bytes(bytes(4 * 2**20 - free))
    full = run(root, out, tmp_path)
    assert full.returncode == 1, full.stdout + full.stderr
    assert "No space left" in full.stderr and str(small_disk) in full.stderr and "Traceback" not in full.stderr
    assert full.stderr.count("error:") == 1 and full.stderr.count("\n") == 1, full.stderr
    assert not out.exists() and not list(small_disk.rglob("*.partial*"))
    assert not any(verify_store(path) for path in small_disk.rglob("*.h5"))
    filler.unlink()
    assert run(root, out, tmp_path).returncode == 0
    assert contents(out) == contents(whole)


def test_where_a_file_may_not_grow_any_more_the_error_is_as_clear(root: Path, tmp_path: Path):
    limit = "import resource, signal; resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
    command = [sys.executable, "-c", limit + _MAIN, str(root), str(tmp_path / "out.h5")]
    full = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True)
    assert full.returncode == 1 and "File too large" in full.stderr and ".h5" in full.stderr, full.stderr
    assert "Traceback" not in full.stderr and not list(tmp_path.rglob("*.h5")) and not list(tmp_path.rglob("*.partial"))
