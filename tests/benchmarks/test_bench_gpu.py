"""`make bench-gpu` runs whole on a CPU in small, and says why a line is skipped where there is no GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.slow

PROGRAM = Path(__file__).with_name("bench_gpu.py")


def run(out: Path, *options: str) -> tuple[int, str, list[dict]]:
    command = [sys.executable, str(PROGRAM), "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    return done.returncode, done.stdout + done.stderr, json.loads((out / "bench_gpu.json").read_text())["lines"]


@pytest.mark.parametrize("part", ["check", "decoding", "stage 1, an epoch"])
def test_it_runs_in_small_on_a_cpu(part: str, tmp_path: Path) -> None:
    code, said, lines = run(tmp_path, "--quick", "--device", "cpu", "--only", part)
    assert code == 0, said
    assert lines and all(line["result"] in ("ok", "measured") for line in lines)
    assert (tmp_path / "bench_gpu.md").read_text().count("\n| ") >= len(lines)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_every_line_says_why_it_is_skipped(tmp_path: Path) -> None:
    code, _, lines = run(tmp_path)
    assert code == 0 and len(lines) == 9
    assert all(line["result"].startswith("skipped: torch sees no GPU") for line in lines)
