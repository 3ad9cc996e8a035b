"""Commands in forked children, so that each costs its work and not its imports: killed at a moment, or cut off from power.

A program of its own, which reads requests and writes answers, a line of JSON each:

    {"argv": ["train-stage1", ...], "folder": "/where", "log": "/output", "kill": 0.7, "journal": "/journal"}
    {"code": 0, "seconds": 1.3, "syncs": 12}

A child is the leader of a session that is killed whole. With a journal it notes what has reached the disk, for `cut_power`.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Answer:
    """How a command ended: its exit code (-9 where it was killed), seconds, and what it said."""

    code: int
    seconds: float
    said: str


class Forker:
    """The program that forks, seen from a test."""

    def __init__(self, scratch: Path) -> None:
        self.log = scratch / "said.txt"
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(self, argv: list[str], folder: Path, kill: float | None = None, journal: Path | None = None) -> Answer:
        """Run a command in a folder, kill it after some seconds where told to."""
        assert self._process.stdin is not None and self._process.stdout is not None
        request: dict[str, Any] = {"argv": argv, "folder": str(folder), "log": str(self.log), "kill": kill}
        request["journal"] = None if journal is None else str(journal)
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        found = json.loads(self._process.stdout.readline())
        return Answer(found["code"], found["seconds"], self.log.read_text(errors="replace"))

    def close(self) -> None:
        """End the program."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def serve() -> None:
    """Answer requests until there are no more."""
    import torch

    torch.set_num_threads(1)
    _import()
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)


def _import() -> None:
    import csip.export.model_export
    import csip.retrieval.in_parts
    import csip.training.frame_features
    import pipelines.cli.entry
    import pipelines.cluster_people
    import pipelines.evaluate_run
    import pipelines.export_model
    import pipelines.ingest_videos
    import pipelines.train_skeleton
    import pipelines.train_stage1
    import pipelines.train_stage2
    import pipelines.write_report  # noqa: F401

    # Several shards of small data.
    csip.retrieval.in_parts.SHARD = 4
    csip.training.frame_features.SHARD = 16


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _run(request)
    kill, code = request["kill"], None
    while code is None:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
        elif kill is not None and time.monotonic() - started >= kill:
            with contextlib.suppress(ProcessLookupError):  # it may not be the leader of its session yet
                os.killpg(child, signal.SIGKILL)
            os.kill(child, signal.SIGKILL)
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        else:
            time.sleep(0.002)
    return {"code": code, "seconds": time.monotonic() - started}


def _run(request: dict[str, Any]) -> None:
    """Be the command; never returns."""
    code = 70
    try:
        os.setsid()
        os.chdir(request["folder"])
        with open(request["log"], "w") as log:  # noqa: PTH123
            for stream in (1, 2):
                os.dup2(log.fileno(), stream)
        if request["journal"] is not None:
            Journal(Path(request["journal"])).attach()
        sys.argv = ["csip", *request["argv"]]
        from pipelines.cli import entry

        entry.main()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


# ---- power -----------------------------------------------------------------------------------------------------------


class Journal:
    """Notes, by a file outside of the data, which files and which entries of folders have reached the disk.

    A line each: ``file INODE SIZE TIME`` for a file that was flushed; ``rename OLD NEW BACKUP`` and ``folder PATH`` for entries.
    What a rename replaces is kept as BACKUP.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.mkdir(exist_ok=True)
        self._count = len(list(self.path.glob("replaced-*")))

    def attach(self) -> None:
        """Listen to this process."""
        real_fsync, real_replace, real_rename = os.fsync, os.replace, os.rename

        def fsync(descriptor: Any) -> None:
            real_fsync(descriptor)
            number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
            place = Path(f"/proc/self/fd/{number}").readlink()
            if place.is_dir():
                self._note("folder", str(place))
            else:
                found = os.fstat(number)
                self._note("file", str(found.st_ino), str(found.st_size), str(found.st_mtime_ns))

        def sync() -> None:
            self._note("all")
            for file in (entry for entry in Path.cwd().rglob("*") if entry.is_file() and not entry.is_symlink()):
                found = file.stat()
                self._note("file", str(found.st_ino), str(found.st_size), str(found.st_mtime_ns))

        def moving(real: Any) -> Any:
            def move(old: Any, new: Any, **options: Any) -> None:
                before, after = (str(Path(name).absolute()) for name in (old, new))
                backup = "-"
                if Path(after).is_file():
                    self._count += 1
                    backup = str(self.path / f"replaced-{self._count}")
                    os.link(after, backup)
                real(old, new, **options)
                self._note("rename", before, after, backup)

            return move

        os.fsync, os.sync = fsync, sync  # type: ignore[assignment]
        os.replace, os.rename = moving(real_replace), moving(real_rename)

    def _note(self, *words: str) -> None:
        with (self.path / "journal").open("a") as file:
            file.write("\t".join(words) + "\n")

    def lines(self) -> list[list[str]]:
        """Return what was noted."""
        place = self.path / "journal"
        return [line.split("\t") for line in place.read_text().splitlines()] if place.exists() else []


def cut_power(folder: Path, journal: Path, since: dict[str, tuple[int, int, int]], undo: bool) -> list[str]:
    """Do to a folder what a power cut may do, at worst; returns what was lost.

    Parameters
    ----------
    since
        The files of `stamps` before the command was started: these are on the disk.
    undo
        Lose the renames whose folder was not flushed afterwards; without it these stay, and the content of files that were not
        flushed is lost: they are empty, or half of them is zeros.
    """
    lost = []
    lines = Journal(journal).lines()
    if undo:
        for number in range(len(lines) - 1, -1, -1):
            kind, *words = lines[number]
            if kind != "rename":
                continue
            old, new, backup = words
            flushed = {one[1] for one in lines[number:] if one[0] == "folder"}
            whole = any(one[0] == "all" for one in lines[number:])
            if whole or str(Path(new).parent) in flushed or not Path(new).exists() or not Path(old).parent.is_dir():
                continue
            Path(new).rename(old)
            if backup != "-":
                os.link(backup, new)
            lost.append(f"the renaming to {new}")
    safe = {tuple(map(int, words)) for kind, *words in lines if kind == "file"} | set(since.values())
    for number, (name, stamp) in enumerate(sorted(stamps(folder).items())):
        if stamp not in safe:
            file, size = folder / name, stamp[1]
            data = file.read_bytes()
            file.write_bytes(b"" if number % 2 else data[: size // 2] + bytes(size - size // 2))
            lost.append(f"the content of {name}")
    return lost


def stamps(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return inode, size and time of each file."""
    found = {}
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            status = file.stat()
            found[str(file.relative_to(folder))] = (status.st_ino, status.st_size, status.st_mtime_ns)
    return found


if __name__ == "__main__":
    serve()
