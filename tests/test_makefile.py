"""Make passes names on as they are, or says that it cannot."""

from __future__ import annotations

import shutil
import subprocess
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
