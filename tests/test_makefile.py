"""Make passes names on as they are, or says that it cannot; and it redoes what the content asks for."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make here")


def dry_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--dry-run", "--always-make", "--no-print-directory", "-C", str(PROJECT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["2024-11-25", "2024", "no", "1e3", "null", "a,b", "{a}", "!x", "@home", "-x", "ünï"])
def test_names_that_make_carries(name: str) -> None:
    result = dry_run("skeletons", f"DATASET={name}")
    assert result.returncode == 0, result.stderr
    assert f"csip skeletons --dataset '{name}'" in result.stdout


@pytest.mark.parametrize("name", ["people #2", "[old] people", "a: b", "~", "a=b", "it's", "50%", "a$b", "a\\b", "a;b"])
def test_names_that_make_cannot_carry_are_refused(name: str) -> None:
    for variable in ("DATASET", "RUN", "VIDEOS", "FROM"):
        result = dry_run("skeletons", f"{variable}={name.replace('$', '$$')}")
        assert result.returncode != 0
        assert f"{variable}=" in result.stderr and "Make cannot carry" in result.stderr
        assert "csip ... --dataset NAME" in result.stderr
        assert result.stdout == ""


# Stands in for `csip`: notes its command, and writes what the command would; fingerprints as `csip fingerprint` does.
_STUB = """#!/bin/sh
echo "$1" >> commands
mkdir -p data/people runs/r/stage1 runs/r/stage2
case $1 in
    fingerprint)
        for part in train test; do
            if [ ! -f runs/r/$part.fingerprint ]; then
                cp $part runs/r/$part.fingerprint; touch -d @1 runs/r/$part.fingerprint
            fi
            cmp -s $part runs/r/$part.fingerprint || cp $part runs/r/$part.fingerprint
        done;;
    skeletons) touch data/people/skeletons.h5;;
    train-stage1) touch runs/r/stage1/model.safetensors;;
    train-stage2) touch runs/r/stage2/model.safetensors;;
    evaluate) touch runs/r/metrics.json;;
    report) touch runs/r/report.md;;
    ingest) cmp -s videos data/people/tracklets.csv || cp videos data/people/tracklets.csv;;
    embed) touch runs/r/descriptors.h5;;
esac
"""


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., list[str]]:
    """Run Make on stand-ins; returns the commands that it ran, without the question whether the data have changed."""
    shutil.copy(PROJECT / "Makefile", tmp_path)
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/csip").write_text(_STUB)
    (tmp_path / ".venv/bin/csip").chmod(0o755)
    (tmp_path / ".venv/csip-setup.sha256").touch()
    for name in ("pyproject.toml", "pipelines/maintain/bootstrap.py", "pipelines/maintain/constraints.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1, 1))
    for part in ("train", "test", "videos"):
        (tmp_path / part).write_text("as it was")

    def run(*arguments: str) -> list[str]:
        (tmp_path / "commands").write_text("")
        command = ["make", "--no-print-directory", "PYTHON=python3", "DATASET=people", "RUN=runs/r", *arguments]
        result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return [line for line in (tmp_path / "commands").read_text().split() if line != "fingerprint"]

    return run


def test_make_redoes_what_depends_on_the_content_that_changed(made: Callable[..., list[str]], tmp_path: Path) -> None:
    whole = ["skeletons", "train-stage1", "train-stage2", "evaluate", "report"]
    assert made("report") == whole
    assert made("report") == []
    (tmp_path / "test").write_text("another picture")
    assert made("report") == ["evaluate", "report"]
    (tmp_path / "train").write_text("another picture")
    assert made("report") == whole
    assert made("report") == []


def test_what_was_made_before_make_asked_is_left_alone(made: Callable[..., list[str]], tmp_path: Path) -> None:
    made("report")
    for part in ("train", "test"):
        (tmp_path / f"runs/r/{part}.fingerprint").unlink()
    assert made("report") == []


def test_videos_are_looked_at_each_time(made: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / "runs/mars/stage2").mkdir(parents=True)
    (tmp_path / "runs/mars/stage2/model.safetensors").touch()
    search = ("search", "VIDEOS=visits", "FROM=runs/mars")
    assert made(*search) == ["ingest", "embed", "search"]
    assert made(*search) == ["ingest", "search"]
    (tmp_path / "videos").write_text("another video under the same name")
    assert made(*search) == ["ingest", "embed", "search"]
