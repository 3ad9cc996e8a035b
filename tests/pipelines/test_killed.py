"""Every command, killed or cut off from power at random moments, then given again: the content is that of an undisturbed run.

``CSIP_KILLS=10 pytest --timeout=3600 tests/pipelines/test_killed.py`` is the nightly form.
"""

from __future__ import annotations

import json
import os
import pickle
import random
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml
from forked import Answer, Forker, cut_power, stamps
from safetensors import safe_open
from test_ingest import make_scene

from csip.config import Settings

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("CSIP_KILLS", "1"))
# In order: each needs what those before it have made.
COMMANDS: dict[str, list[str]] = {
    "ingest": ["ingest", "videos", "--out", "data/ingested", "--detector", "boxes"],
    "embed-frames": ["embed-frames", "--dataset", "walkers"],
    "train-stage1": ["train-stage1", "--dataset", "walkers"],
    "train-stage2": ["train-stage2", "--dataset", "walkers"],
    "evaluate": ["evaluate", "--dataset", "walkers"],
    "embed": ["embed", "--dataset", "walkers", "--part", "all", "--out", "runs/walkers/all.h5"],
    "cluster": ["cluster", "--dataset", "walkers"],
    "report": ["report", "--dataset", "walkers"],
    "export": ["export", "--run", "runs/walkers"],
    "train-skeleton": ["train-skeleton", "--dataset", "sticks"],
}
# Of the nightly form alone: other tests kill an ingest, stage 2 and extractions, and the exporter takes most of a minute.
NIGHTLY = pytest.mark.skipif("CSIP_KILLS" not in os.environ, reason="in the nightly form: set CSIP_KILLS")
GATE = ("embed-frames", "train-stage1")
LONG = ("export",)
# What a run says of its own time and place.
PASSING = {"revision", "seconds", "elapsed", "frames_per_second", "real_time_factor", "created", "places"}
# Notes that can be deleted at any time, logs, and files that a program that was killed leaves to be cleaned up.
NO_RESULT = re.compile(r"\.csip-index/|events\.out\.tfevents|\.lock$|/lock|\.partial|\.ingest/work")


@dataclass
class Chain:
    """The commands so far, undisturbed."""

    forker: Forker
    folder: Path
    seconds: dict[str, float]

    def before(self, name: str) -> Path:
        """Return what a command finds, kept from before it was run here."""
        for command in list(COMMANDS)[: list(COMMANDS).index(name) + 1]:
            if command in self.seconds or (command in LONG and command != name):
                continue
            shutil.copytree(self.folder / "now", self.folder / command)
            answer = self.forker.run(COMMANDS[command], self.folder / "now")
            assert answer.code == 0, answer.said
            self.seconds[command] = answer.seconds
        return self.folder / name


@pytest.fixture(scope="module")
def chain(walkers: Path, tower: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chain]:
    folder = tmp_path_factory.mktemp("chain")
    now = folder / "now"
    shutil.copytree(walkers, now / "data/walkers")
    for number in range(3):
        make_scene(now / f"videos/{number}.mp4", seed=number)
    rng = np.random.default_rng(0)
    for person in range(4):
        for walk in range(4):
            place = now / f"data/sticks/Person{person + 1:03d}"
            place.mkdir(parents=True, exist_ok=True)
            joints = rng.normal(size=(8, 20, 3)) * 0.1 + rng.normal(size=(1, 20, 3)) * 0.5
            write_walk(place / f"{walk + 1}.txt", joints)
    (now / "configs").mkdir()
    for name, settings in (("walkers", pictures(tower)), ("sticks", skeletons_alone())):
        Settings.model_validate(settings)
        (now / f"configs/{name}.yaml").write_text(yaml.safe_dump(settings))
    forker = Forker(folder)
    yield Chain(forker, folder, {})
    forker.close()


def write_walk(path: Path, joints: np.ndarray) -> None:
    from csip.data.kgbd import FILE_ORDER

    lines = (
        f"{name};{x:.4f};{y:.4f};{z:.4f}" for frame in joints for name, (x, y, z) in zip(FILE_ORDER, frame, strict=True)
    )
    path.write_text("\n".join(lines) + "\n")


def pictures(tower: Path) -> dict[str, Any]:
    return {
        "dataset": {"name": "walkers", "layout": "mars", "val_ids": 2},
        "estimator": "demo",
        "clips": {"frames": 4, "height": 64, "width": 32, "pad": 2},
        "vision": {"model": str(tower), "pretrained": None},
        "skeleton_encoder": {"depth": 2, "heads": 2},
        "stage1": {"epochs": 3, "batch": 8, "warmup_epochs": 1},
        "stage2": {
            "epochs": 3, "ids_per_batch": 2, "tracklets_per_id": 2, "lr": 1e-4, "warmup_epochs": 1, "decay_epochs": [2],
            "val_every": 2,
        },
        "runtime": {"device": "cpu", "precision": "32-true", "workers": 0, "save_minutes": 0},
        "evaluation": {"bootstrap": 20, "compare_untrained": False},
    }  # fmt: skip


def skeletons_alone() -> dict[str, Any]:
    return {
        "dataset": {"name": "sticks", "layout": "kgbd"},
        "skeleton_training": {
            "encoder": "window",
            "contrast": 0,
            "classifier": 1,
            "epochs": 6,
            "frames": 4,
            "batch": 8,
        },
        "runtime": {"device": "cpu", "precision": "32-true", "workers": 0},
    }


def content(folder: Path) -> dict[str, Any]:
    """What is in a folder, each file by what it holds and not by how it is written."""
    return {
        name: content_of(folder / name)
        for name in sorted(stamps(folder))
        if not NO_RESULT.search(f"/{name}")
    }  # fmt: skip


def content_of(path: Path) -> Any:
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            arrays = {key: pickle.dumps(file[key][()].tolist()) for key in sorted(file)}
            return arrays, {key: str(value) for key, value in file.attrs.items() if key not in ("created", "software")}
    if path.suffix == ".safetensors":
        with safe_open(path, "np") as file:
            tensors = {name: file.get_tensor(name).tobytes() for name in sorted(file.keys())}
            return tensors, without(json.loads(file.metadata()["csip"]))
    if path.suffix == ".json":
        return without(json.loads(path.read_text()))
    if path.suffix in (".html", ".md"):
        # Times of stages, and pictures of learning curves, which have those of a run that was resumed.
        return re.sub(r"[\d.,]+ (s|min|h|frames/s|MB)\b|\| [\d.]+ \|", "TIME", path.read_text())
    return path.read_bytes()


def without(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: without(value) for key, value in tree.items() if key not in PASSING}
    return [without(one) for one in tree] if isinstance(tree, list) else tree


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return sorted(name for name in one.keys() | other.keys() if one.get(name) != other.get(name))


def finish(chain: Chain, name: str, folder: Path) -> Answer:
    """Give a command until it says that it has finished, as a person would."""
    answer = chain.forker.run(COMMANDS[name], folder)
    assert "Traceback" not in answer.said, answer.said
    return answer


def has_finished(answer: Answer) -> bool:
    return answer.code == 0 or "this run has finished" in answer.said


@pytest.mark.parametrize("name", [pytest.param(name, marks=[] if name in GATE else NIGHTLY) for name in COMMANDS])
def test_killed_at_random_moments_it_ends_as_if_nothing_had_been(chain: Chain, name: str, tmp_path: Path) -> None:
    before = chain.before(name)
    chance, kills, lives = random.Random(f"{name} {KILLS}"), 0, 0
    folder = tmp_path / "lives-0"
    shutil.copytree(before, folder)
    while kills < KILLS and lives < 4 * KILLS:
        moment = chance.uniform(0.0, 1.1 * chain.seconds[name])
        answer = chain.forker.run(COMMANDS[name], folder, kill=moment)
        assert "Traceback" not in answer.said, answer.said
        lives += 1
        if answer.code == -9:
            kills += 1
        else:  # there is nothing left to be killed in
            assert has_finished(answer), answer.said
            check(chain, name, folder)
            folder = tmp_path / f"lives-{lives}"
            shutil.copytree(before, folder)
    assert kills, "it was never killed"
    assert has_finished(finish(chain, name, folder))
    check(chain, name, folder)


def check(chain: Chain, name: str, folder: Path) -> None:
    """See that a folder holds what the undisturbed command left, which may have been followed by others since."""
    different = differences(content(chain.folder / following(chain, name)), content(folder))
    assert not different, different


# Where power is lost: those whose files are the largest, and of the most kinds.
CUT = ("ingest", "embed-frames", "train-stage1", "train-stage2", "embed")
ADVICE = re.compile(r"overwrite|delete|rerun|run again|anew|--force")


@pytest.mark.parametrize(
    ("name", "undo"),
    [
        pytest.param(name, undo, marks=[] if (name, undo) == ("train-stage1", False) else NIGHTLY)
        for name in CUT
        for undo in (False, True)
    ],
)
def test_a_power_cut_leaves_what_resumes_or_says_what_to_do(
    chain: Chain, name: str, undo: bool, tmp_path: Path
) -> None:
    before = chain.before(name)
    chance = random.Random(f"{name} {undo} {KILLS}")
    for cut in range(KILLS):
        folder, journal = tmp_path / f"cut-{cut}", tmp_path / f"journal-{cut}"
        shutil.copytree(before, folder)
        known = stamps(folder)
        moment = chance.uniform(0.2, 1.1) * chain.seconds[name]
        chain.forker.run(COMMANDS[name], folder, kill=moment, journal=journal)
        lost = cut_power(folder, journal, known, undo)
        answer = finish(chain, name, folder)
        if has_finished(answer):
            different = differences(content(chain.folder / following(chain, name)), content(folder))
            assert not different, (different, lost)
        else:
            assert answer.code == 1 and ADVICE.search(answer.said), (answer.said, lost)


def following(chain: Chain, name: str) -> str:
    after = list(COMMANDS).index(name) + 1
    return next((one for one in list(COMMANDS)[after:] if one in chain.seconds), "now")
