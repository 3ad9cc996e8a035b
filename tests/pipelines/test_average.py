"""`make splits`: every split trained, scored and averaged."""

import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path


def test_make_trains_every_split_and_averages(checkout: Callable[[str], Path]) -> None:
    project = checkout("splits")
    command = ["make", "-n", "splits", "DATASET=ilidsvid", "SPLITS=0 1", "SET=stage1.epochs=1"]
    output = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout
    lines = [shlex.join(shlex.split(line)) for line in output.splitlines() if line.startswith(".venv/bin/csip")]
    assert lines[0] == ".venv/bin/csip skeletons --dataset ilidsvid --set stage1.epochs=1 --test-too"
    for split in (0, 1):
        settings = f"--set stage1.epochs=1 --set dataset.split={split}"
        folder = f"--run runs/ilidsvid/split{split}"
        assert f".venv/bin/csip train-stage1 --dataset ilidsvid {settings} {folder} --overwrite" in lines
        assert f".venv/bin/csip evaluate --dataset ilidsvid {settings} {folder}" in lines
    assert lines[-1].startswith(".venv/bin/csip average runs/ilidsvid/split0 runs/ilidsvid/split1 --out")
