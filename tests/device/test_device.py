"""Training, embedding, ranking and estimating on a GPU that is simulated, see `simulation`.

It fails where tensors of the device and the processor meet, where training uses inference tensors, and where a step of
training waits for the device.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import compiled
import pytest
from scenarios import NUMBERS, RUNS, scenarios, smaller

from csip.config import Settings, dump_settings
from csip.data.readers import load_dataset
from csip.monitor import Silent
from csip.training.stage1 import train_stage1

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # on a machine that is busy with other work

PROJECT = Path(__file__).parents[2]
# A scaler of losses, which float16 needs, reads whether a gradient was infinite.
ALLOWED = {"16-mixed": 1}


@pytest.fixture(scope="session")
def library() -> Path:
    if compiled.compiler() is None:
        pytest.skip("no C++ compiler to make the simulated device with")
    try:
        return compiled.library(PROJECT / "build")
    except subprocess.CalledProcessError as error:
        pytest.skip(f"the simulated device cannot be compiled: {error.stderr[-500:]}")


@pytest.fixture(scope="session")
def ground(walkers: Path, tower: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with settings, and stage-1 runs that were trained on the processor: see `scenarios.Ground`."""
    folder = tmp_path_factory.mktemp("device")
    tree: dict[str, Any] = {
        "dataset": {"name": "walkers", "layout": "mars", "root": str(walkers), "val_ids": 2},
        "clips": {"frames": 4, "height": 64, "width": 32, "pad": 2},
        "vision": {"model": str(tower), "pretrained": None},
        "skeleton_encoder": {"depth": 2, "heads": 2},
        "stage1": {"epochs": 2, "batch": 4, "warmup_epochs": 1},
        "stage2": {
            "epochs": 2, "ids_per_batch": 2, "tracklets_per_id": 2, "lr": 1e-4, "warmup_epochs": 1, "decay_epochs": [2],
            "val_every": 2,
        },
        "skeleton_training": {
            "epochs": 2, "batch": 8, "width": 16, "embedding": 16, "val_share": 0.3, "window": {"width": 16, "depth": 1},
        },
        "runtime": {"device": "cpu", "precision": "32-true", "workers": 0},
    }  # fmt: skip
    (folder / "settings.yaml").write_text(dump_settings(Settings.model_validate(tree)))
    changes: dict[str, dict[str, Any]] = {
        "run": {}, "raw": {"stage1": {"normalize": False}, "dataset": {"val_ids": 0}}
    }  # fmt: skip
    for name, change in changes.items():
        settings = Settings.model_validate(
            {section: {**values, **change.get(section, {})} for section, values in tree.items()}
        )
        train_stage1(
            smaller(load_dataset(settings.dataset)),
            walkers / "skeletons.h5",
            settings,
            folder / name / "stage1",
            Silent(),
        )
    return folder


@pytest.fixture(scope="session")
def results(library: Path, ground: Path) -> dict[str, dict[str, Any]]:
    """What every scenario came to; they run in a process where torch has met the device before anything else."""
    command = [sys.executable, str(Path(__file__).with_name("scenarios.py")), str(library), str(ground)]
    environment = {**os.environ, "PYTHONPATH": f"{PROJECT}{os.pathsep}{PROJECT / 'tests'}", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    found = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    return {result["name"]: result for result in found}


@pytest.mark.parametrize("name", scenarios())
def test_it_runs_on_a_gpu(name: str, results: dict[str, dict[str, Any]]) -> None:
    result = results[name]
    assert result["error"] is None, result["error"]
    if name.startswith(("stage", "skeletons")):
        assert result["steps"] > 0
        allowed = next((waits for precision, waits in ALLOWED.items() if precision in name), 0)
        assert sum(result["waits"].values()) <= allowed, f"a step waits for the device: {result['waits']}"


def test_every_setting_of_stage_2_is_tried_or_known_to_change_numbers_alone() -> None:
    section: Any = Settings.model_fields["stage2"].annotation
    tried = [(name, value) for run in RUNS for name, value in run.changes.get("stage2", {}).items()]
    options = {name for name, _ in tried} - NUMBERS
    assert options | NUMBERS == set(section.model_fields), (
        "a setting is new or gone: say in RUNS or NUMBERS what it changes"
    )
    for name in options:
        default = section.model_fields[name].default
        assert any(one == name and value != default for one, value in tried), f"{name}: no run has another value"
    elsewhere = {(section, name) for run in RUNS for section, values in run.changes.items() for name in values}
    assert {("stage1", "normalize"), ("runtime", "recompute")} <= elsewhere
