"""`make bench-gpu` runs on a CPU in small, and says why a line is skipped; `tests/device` runs all of it on a simulated GPU."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import bench_gpu
import pytest
import torch

pytestmark = pytest.mark.slow


def run(monkeypatch: pytest.MonkeyPatch, out: Path, *options: str) -> tuple[int, list[dict[str, Any]]]:
    monkeypatch.setattr(sys, "argv", ["bench_gpu.py", "--out", str(out), *options])
    with pytest.raises(SystemExit) as end:
        bench_gpu.main()
    return int(end.value.code or 0), json.loads((out / "bench_gpu.json").read_text())["lines"]


def without(*missing: str) -> Any:
    find = importlib.util.find_spec
    return lambda name, package=None: None if name in missing else find(name, package)


def test_it_runs_in_small_on_a_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", without("mmpose"))
    code, lines = run(monkeypatch, tmp_path, "--quick", "--device", "cpu")
    assert code == 0, lines
    results = {line["name"]: line["result"] for line in lines}
    assert len(results) == len(bench_gpu.LINES)
    for name, result in results.items():
        assert result == ("skipped: mmpose is not installed" if "extraction" in name else result), result
        assert result in ("ok", "measured") or "extraction" in name, (name, result)
    assert (tmp_path / "bench_gpu.md").read_text().count("\n| ") >= len(lines)


def test_a_line_that_differs_from_the_cpu_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_gpu, "TOLERANCE", {"32-true": -1.0})
    code, (line,) = run(monkeypatch, tmp_path, "--quick", "--device", "cpu", "--only", "check: step of stage 1")
    assert code == 1 and line["result"].startswith("FAILED: AssertionError: loss in 32-true")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_every_line_says_why_it_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code, lines = run(monkeypatch, tmp_path)
    assert code == 0 and len(lines) == len(bench_gpu.LINES)
    assert all(line["result"].startswith("skipped: torch sees no GPU") for line in lines)
