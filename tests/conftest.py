"""A rendered data set small enough for tests, with its true skeletons as a cache, and settings to match."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch
from whole_method import WHOLE

from csip.config import Settings
from csip.data import mars
from csip.data.dataset import Tracklet
from csip.models.checkpoints import save_model
from csip.models.factory import build_model, empty_encoder
from csip.synthetic.world import SyntheticSpec, load_truth, render_mars
from pose_cache.store import Provenance, TrackletSkeletons, write_store

# An example is not wrong because the machine is busy.
hypothesis.settings.register_profile("csip", deadline=None)
hypothesis.settings.load_profile("csip")
torch.set_num_threads(1)  # small models gain nothing by threads, and the suite's processes share two cores

TOWER = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": [64, 32], "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1},
}


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Make a checkout of this project to run Make in, with this environment as its .venv."""
    project = Path(__file__).parents[1]

    def make(name: str) -> Path:
        folder = tmp_path_factory.mktemp(name)
        for file in ("Makefile", "pyproject.toml"):
            shutil.copy2(project / file, folder)
        for package in ("pipelines", "configs"):
            shutil.copytree(project / package, folder / package)
        (folder / ".venv/bin").mkdir(parents=True)
        for program in ("csip", "dask", "torchrun"):
            (folder / ".venv/bin" / program).symlink_to(Path(sys.executable).with_name(program))
        (folder / ".venv/csip-setup.sha256").touch()
        return folder

    return make


@pytest.fixture(scope="session")
def walkers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rendered people in MARS's layout, with true skeletons in ``skeletons.h5``."""
    root = tmp_path_factory.mktemp("data") / "walkers"
    spec = SyntheticSpec(
        train_ids=6, test_ids=4, cameras=2, tracklets_per_camera=2, frames=6, height=64, width=32, distractors=1, junk=1
    )
    render_mars(root, spec, workers=1)
    write_true_skeletons(root, root / "skeletons.h5", mars.load(root).train)
    return root


@pytest.fixture(scope="session")
def whole_cache(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """True skeletons of the test tracklets of `walkers` as well."""
    data = mars.load(walkers)
    path = tmp_path_factory.mktemp("skeletons") / "all.h5"
    write_true_skeletons(walkers, path, (*data.train, *data.query, *data.gallery))
    return path


def write_true_skeletons(root: Path, path: Path, tracklets: Iterable[Tracklet]) -> None:
    """Write the joints that were rendered as the skeleton cache of some tracklets."""
    wanted = {t.name: t for t in tracklets}
    skeletons = [
        TrackletSkeletons(
            name=truth.name,
            frames=wanted[truth.name].frames,
            joints=truth.joints3d,
            keypoints2d=np.zeros((len(truth.joints3d), 17, 3), np.float32),
            valid=np.ones(len(truth.joints3d), bool),
        )
        for truth in load_truth(root)
        if truth.name in wanted
    ]
    write_store(path, skeletons, Provenance("truth", "h36m17", "metres"))


@pytest.fixture(scope="session")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The OpenCLIP config of a very small vision transformer."""
    path = tmp_path_factory.mktemp("tower") / "tower.json"
    path.write_text(json.dumps(TOWER))
    return path


@pytest.fixture(scope="session")
def settings(walkers: Path, tower: Path) -> Settings:
    """Settings of a run of seconds on `walkers`."""
    return Settings.model_validate({
        "dataset": {"name": "walkers", "layout": "mars", "root": walkers, "val_ids": 2},
        "estimator": "demo",
        "clips": {"frames": 4, "height": 64, "width": 32, "pad": 2},
        "vision": {"model": str(tower), "pretrained": None},
        "skeleton_encoder": {"depth": 2, "heads": 2},
        "stage1": {"epochs": 3, "batch": 8, "warmup_epochs": 1},
        "stage2": {
            "epochs": 3, "ids_per_batch": 2, "tracklets_per_id": 2, "lr": 1e-4, "warmup_epochs": 1,
            "decay_epochs": [2], "val_every": 2, **WHOLE,
        },
        "runtime": {"device": "cpu", "precision": "32-true", "workers": 0},
    })  # fmt: skip


@pytest.fixture(scope="session")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Settings], Path]:
    """Make the file of a stage-2 model as it is before its training."""

    def make(settings: Settings) -> Path:
        path = tmp_path_factory.mktemp("untrained") / "model.safetensors"
        width = TOWER["embed_dim"]
        torch.manual_seed(0)
        network = build_model(empty_encoder("h36m17", width, settings), 1.0, 1, 2, settings)
        about = {"kind": "stage2", "dataset": "walkers", "identities": 1, "cameras": {"1": 0, "2": 1},
                 "joint_set": "h36m17", "width": width, "settings": settings.model_dump(mode="json"), "revision": ""}  # fmt: skip
        save_model(path, network.state_dict(), about)
        return path

    return make
