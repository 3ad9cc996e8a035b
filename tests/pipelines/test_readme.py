"""Every command of the README is run, in order, as it stands there.

They run in a folder with rendered people under the names of the data sets and small settings; what would take minutes
is shortened by `SHORTER`, and `make test` and `make lint` are left to those who run them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from csip.data import mars
from csip.synthetic.world import load_truth

PROJECT = Path(__file__).parents[2]
README = (PROJECT / "README.md").read_text()
COMMANDS = [
    line.partition("  #")[0].strip()
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
ELSEWHERE = {"make test", "make lint"}
SHORTER = {
    "csip synth --out data/crowd --train-ids 200 --test-ids 100 --cameras 6":
        "csip synth --out data/crowd --train-ids 2 --test-ids 2 --cameras 2 --frames 2",
    "csip synth-videos --out scenes --people 6 --cameras 2 --seconds 12":
        "csip synth-videos --out scenes --people 3 --cameras 2 --seconds 5",
    "make ablate":
        "make ablate SEEDS=1 ABLATION='--train-ids 6 --test-ids 4 --cameras 2 --tracklets 1 --frames 8 --twins 0.5' "
        "SET='stage1.epochs=1 stage2.epochs=1 stage2.ids_per_batch=2 skeleton_encoder.depth=1 runtime.precision=32-true'",
    "csip train-demo-pose --out weights": "csip train-demo-pose --help",  # run by test_demo_pose.py
    "csip train-demo-vision --out weights/demo.safetensors":
        "csip train-demo-vision --out weights/demo.safetensors --people 64 --steps 1",
}  # fmt: skip
SMALL = """
extends: {base}
dataset: {{name: {name}, layout: {layout}, val_ids: {val_ids}}}
estimator: demo
stage1: {{epochs: 1}}
stage2: {{epochs: 1, ids_per_batch: 2}}
skeleton_encoder: {{depth: 1}}
evaluation: {{compare_untrained: false}}
runtime: {{workers: 0}}
"""


@pytest.fixture(scope="module")
def project(checkout: Callable[[str], Path]) -> Path:
    """A checkout with rendered people as its data sets."""
    folder = checkout("readme")
    base = folder / "configs/demo.yaml"
    for name, layout, val_ids in (("mars", "mars", 2), ("mine", "folder", 0)):
        text = SMALL.format(base=base.rename(folder / "base.yaml") if base.exists() else folder / "base.yaml",
                            name=name, layout=layout, val_ids=val_ids)  # fmt: skip
        (folder / f"configs/{name}.yaml").write_text(text)
    shutil.copy2(PROJECT / "configs/demo.yaml", base)
    small = folder / "configs/presets/small.yaml"
    small.write_text(small.read_text().replace("epochs: 20", "epochs: 1").replace("epochs: 10", "epochs: 1"))

    people = ("--train-ids", "6", "--test-ids", "4", "--cameras", "2", "--tracklets", "1", "--frames", "8")
    run(folder, "csip synth --out data/mars " + " ".join(people))
    kinect = {}
    truths = {truth.name: truth for truth in load_truth(folder / "data/mars")}
    for tracklet in mars.load(folder / "data/mars").train:
        for name in ("mine", "visits"):
            place = folder / "data" / name / f"person{tracklet.pid}" / f"camera{tracklet.camera}"
            place.mkdir(parents=True)
            for frame in tracklet.frames:
                shutil.copy2(folder / "data/mars" / frame, place)
        joints = truths[tracklet.name].joints3d[:, np.arange(20) % 17] * [1, -1, 1]
        kinect[f"person{tracklet.pid}_camera{tracklet.camera}"] = joints
    np.savez(folder / "kinect.npz", **kinect)

    walks = {
        f"Person{p:03d}_{k}": joints[:6] + 0.01 * k for p, joints in enumerate(kinect.values()) for k in range(1, 6)
    }
    (folder / "data/kgbd").mkdir()
    np.savez(folder / "data/kgbd/kgbd.npz", **walks)
    return folder


def run(project: Path, command: str) -> str:
    environment = os.environ | {
        "PATH": f"{project / '.venv/bin'}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "SYNTH": "--train-ids 6 --test-ids 4 --cameras 2 --tracklets 1 --frames 8",
        "SET": "stage1.epochs=1 stage2.epochs=1 stage2.ids_per_batch=2 dataset.val_ids=2 skeleton_encoder.depth=1",
    }
    if not command.startswith("make demo"):
        del environment["SET"]
    result = subprocess.run(
        command, shell=True, cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def test_the_readme_has_its_commands() -> None:
    assert len(COMMANDS) > 15
    assert COMMANDS[:2] == ["make demo", "make test"], "the two commands come first"
    assert SHORTER.keys() <= set(COMMANDS)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ELSEWHERE], ids=lambda c: c[:60])
def test_command_runs(project: Path, command: str) -> None:
    run(project, SHORTER.get(command, command))


def test_the_commands_left_the_files_they_promise(project: Path) -> None:
    for name in ("demo", "mars", "mine"):
        assert (project / f"runs/{name}/report.md").read_text().startswith(f"# {name}")
    for file in ("runs/visits/metrics.json", "runs/mars-authors/stage1/model.safetensors", "data/demo/skeletons.png",
                 "runs/kgbd/report.md", "runs/kgbd-1/metrics.json", "runs/kgbd-graph/skeleton/model.safetensors",
                 "runs/demo/report.html", "data/hall/labels.csv", "runs/hall/report.html", "runs/shop/search.csv",
                 "export/demo/model.onnx", "runs/ablation/ablation.md"):  # fmt: skip
        assert (project / file).exists()
