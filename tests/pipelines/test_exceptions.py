"""What ends a command becomes one message and an exit code, in one place."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from csip.errors import CsipError, UserError
from pipelines.cli import entry
from pipelines.cli.app import Program
from pose_cache.errors import PoseCacheError


def ends(error: BaseException) -> Callable[[], None]:
    """Return a program with one command, which ends so."""
    app = typer.Typer(cls=Program, pretty_exceptions_enable=False, add_completion=False)

    @app.command()
    def work() -> None:
        raise error

    @app.command()
    def rest() -> None:
        pass

    return app


def outcome(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> tuple[object, str]:
    monkeypatch.setattr(entry, "app", ends(error))
    monkeypatch.setattr(sys, "argv", ["csip", "work"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as stop:
            entry.main()
    finally:
        signal.signal(signal.SIGTERM, before)
    return stop.value.code, capsys.readouterr().err


@pytest.mark.parametrize("kind", [CsipError, PoseCacheError, UserError])
def test_errors_of_the_user(
    kind: type[UserError], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert outcome(kind("a.yaml: [/x] is missing"), monkeypatch, capsys) == (1, "error: a.yaml: [/x] is missing\n")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "data/[a]/x"), "data/[a]/x: No such file or directory"),
        (PermissionError(errno.EACCES, "Permission denied", "runs"), "runs: Permission denied"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "x.csv"), "x.csv: Is a directory"),
        (OSError(errno.ENOSPC, "anything", "a.h5"), "a.h5: No space left on device; finished work is kept: free some space"),
        (OSError(errno.ENOSPC, "anything"), "No space left on device; finished work is kept"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "n" * 300), "File name too long"),
        (OSError(errno.EIO, "Input/output error", "a", None, "b"), "b: Input/output error"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_used(
    error: OSError, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, text = outcome(error, monkeypatch, capsys)
    assert code == 1 and text.startswith("error: ") and message in text
    assert len(text.splitlines()) == 1


def test_interrupts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for error, code in ((KeyboardInterrupt(), 130), (SystemExit(143), 143)):
        assert outcome(error, monkeypatch, capsys) == (
            code,
            "stopped; finished work is kept: rerun the command to resume\n",
        )


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("a fault"), ConnectionError("no file in it"), EOFError("cut short")]
)
def test_faults_of_the_program_keep_their_traceback(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "app", ends(error))
    monkeypatch.setattr(sys, "argv", ["csip", "work"])
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises((type(error), RuntimeError), match=str(error)):
        entry.main()
    signal.signal(signal.SIGTERM, before)


def test_names_that_the_terminal_cannot_write(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path / "caf") + b"\xe9"
    os.mkdir(folder)  # noqa: PTH102, a name that is not UTF-8
    result = subprocess.run(
        [sys.executable, "-m", "pipelines", "settings", "--config", folder],
        capture_output=True, check=False, cwd=Path(__file__).parents[2], env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert result.returncode == 1
    assert rb"caf\udce9: expected a settings file, found a folder" in result.stderr


def test_a_reader_that_has_seen_enough() -> None:
    command = f"{sys.executable} -m pipelines settings | head -1"
    result = subprocess.run(
        command, shell=True, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert result.stderr == ""
