"""What `test_every_setting` tries settings on, and where a change of one shows."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.io import savemat
from whole_method import WHOLE

import csip
import csip.training.keeper
import pipelines.cli
import pipelines.extract_skeletons
from csip.config import Settings, dump_settings
from csip.data.clips import TrainingClips, normalize
from csip.data.dataset import number_cameras, relabel
from csip.data.readers import load_dataset
from csip.data.samplers import IdentityBatches
from csip.data.skeleton_readers import load_skeleton_set
from csip.data.skeletons import load_skeletons
from csip.models.checkpoints import digest_tensors, load_model
from csip.models.factory import build_model, empty_encoder
from csip.models.vision import create_vision
from csip.monitor import Silent
from csip.retrieval.embedding import Embedder
from csip.runtime import make_fabric
from csip.training.run_folder import RunFolder
from csip.training.skeletons_alone import train_skeleton
from csip.training.stage1 import train_stage1
from csip.training.stage2 import train_stage2
from pipelines import evaluate_run as evaluate
from pose_cache.store import SkeletonStore, TrackletSkeletons, write_store

Probe = Callable[[Settings, "Ground"], Any]


# ---- the ground that settings are tried on ---------------------------------------------------------------------------


@dataclass
class Ground:
    """A rendered data set with gaps in its skeletons, index files of other layouts, and a run of both stages."""

    folder: Path
    settings: Settings
    before: dict[str, Any] = field(default_factory=dict)
    runs: int = 0

    @property
    def skeletons(self) -> Path:
        return self.folder / "gaps.h5"

    @property
    def run(self) -> Path:
        return self.folder / "run"

    def new_run(self) -> Path:
        """A folder that knows the base's features of the frames; they are of no use where what they depend on changes."""
        self.runs += 1
        folder = self.folder / f"run{self.runs}"
        folder.mkdir()
        if (self.run / "stage1/features.h5").exists():
            (folder / "features.h5").write_bytes((self.run / "stage1/features.h5").read_bytes())
        return folder


def make_ground(walkers: Path, folder: Path) -> Ground:
    """Make the data and train both stages on them."""
    for name, layers in (("tower", 1), ("other", 2)):
        vision = {"image_size": [32, 16], "layers": layers, "width": 64, "head_width": 32, "patch_size": 16}
        text = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
        (folder / f"{name}.json").write_text(json.dumps({"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}))
    torch.manual_seed(5)
    save_file(create_vision(str(folder / "tower.json"), None, (32, 16)).state_dict(), folder / "tower.safetensors")
    settings = Settings.model_validate({
        "dataset": {"name": "walkers", "layout": "mars", "root": walkers, "val_ids": 2},
        "clips": {"frames": 2, "height": 32, "width": 16, "pad": 2},
        "vision": {"model": str(folder / "tower.json"), "pretrained": None},
        "skeleton_encoder": {"depth": 2, "heads": 2},
        "stage1": {"epochs": 3, "batch": 8, "warmup_epochs": 1, "val_every": 3},
        "stage2": {
            "epochs": 3, "ids_per_batch": 2, "tracklets_per_id": 2, "lr": 1e-3, "warmup_epochs": 1, "decay_epochs": [2],
            "val_every": 3, **WHOLE,
        },
        "skeleton_training": {
            "width": 32, "embedding": 32, "epochs": 2, "batch": 8, "warmup_epochs": 1, "val_share": 0.3,
            "window": {"width": 32},
        },
        "evaluation": {"bootstrap": 20, "rerank": True, "rerank_k1": 4, "rerank_k2": 2},
        "runtime": {"device": "cpu", "precision": "32-true", "workers": 0},
    })  # fmt: skip
    with SkeletonStore(walkers / "skeletons.h5") as store:
        whole = [store.read(name) for name in store.names]
        gaps = [
            TrackletSkeletons(
                name=t.name, frames=t.frames, joints=t.joints, keypoints2d=t.keypoints2d,
                valid=np.arange(len(t.frames)) % 3 != 1,
            )
            for t in whole
        ]  # fmt: skip
        write_store(folder / "gaps.h5", gaps, store.provenance)
    make_lsvid(folder / "lsvid")
    make_ilidsvid(folder / "ilidsvid")
    make_folders(folder / "folders", 8)
    make_folders(folder / "fewer", 6)
    make_transg(folder / "transg")
    ground = Ground(folder, settings)
    dataset = load_dataset(settings.dataset)
    train_stage1(dataset, ground.skeletons, settings, ground.run / "stage1", Silent())
    train_stage2(dataset, ground.skeletons, ground.run / "stage1", settings, ground.run / "stage2", Silent())
    return ground


def make_lsvid(root: Path) -> None:
    (root / "list_sequence").mkdir(parents=True)
    for part in ("train", "test"):
        lines = []
        for pid in (0, 1):
            for camera in (1, 2):
                start = f"tracklet_{part}/{pid:04d}/{pid:04d}_{camera:04d}_{camera:02d}_"
                (root / start).parent.mkdir(parents=True, exist_ok=True)
                for frame in range(9):
                    (root / f"{start}{frame:06d}.jpg").touch()
                lines.append(f"{start} {pid}")
        (root / f"list_sequence/list_seq_{part}.txt").write_text("\n".join(lines))
    (root / "test/data").mkdir(parents=True)
    with h5py.File(root / "test/data/info_test.mat", "w") as file:
        file["query"] = np.array([[1.0], [3.0]])


def make_ilidsvid(root: Path) -> None:
    for camera in (1, 2):
        for person in range(1, 5):
            folder = root / f"i-LIDS-VID/sequences/cam{camera}/person{person:03d}"
            folder.mkdir(parents=True)
            (folder / f"cam{camera}_person{person:03d}_00001.png").touch()
    (root / "train-test people splits").mkdir()
    divisions = np.stack([np.roll(np.arange(1, 5), shift) for shift in range(10)])
    savemat(root / "train-test people splits/train_test_splits_ilidsvid.mat", {"ls_set": divisions.astype(np.float64)})


def make_folders(root: Path, people: int) -> None:
    for person in range(people):
        for camera in (1, 2):
            folder = root / f"person{person}" / f"camera{camera}"
            folder.mkdir(parents=True)
            (folder / "1.jpg").touch()


def make_transg(root: Path) -> None:
    """Six people of 20 joints, 24 frames each, in windows of six."""
    rng = np.random.default_rng(1)
    for folder, prefix in (("train", "source"), ("test/Still", "t_source"), ("test/Walking", "t_source")):
        place = root / folder.replace("train", "train_npy_data").replace("test/", "test_npy_data/")
        place.mkdir(parents=True)
        for axis in "xyz":
            bodies = np.repeat(rng.normal(size=(6, 20)), 24, axis=0)
            np.save(place / f"{prefix}_{axis}_BIWI_6.npy", bodies + 0.1 * rng.normal(size=bodies.shape))
        np.save(place / "frame_id_BIWI_6.npy", np.repeat(np.arange(6), 4))


# ---- where a change shows --------------------------------------------------------------------------------------------


def index(settings: Settings, ground: Ground) -> Any:
    dataset = load_dataset(settings.dataset)
    return dataset.name, dataset.root, dataset.train, dataset.query, dataset.gallery


def batch(settings: Settings, ground: Ground) -> Any:
    """Clips as stage 2 trains on them."""
    train = load_dataset(settings.dataset).train
    skeletons = load_skeletons(ground.skeletons, train, settings.clips.max_gap)
    clips = TrainingClips(
        settings.dataset.path, train, skeletons, relabel(train), number_cameras(train), settings.clips
    )
    sampler = IdentityBatches([0] * 4, 1, 4, 0)
    items = [clips[draw] for draw in next(iter(sampler))]
    return [
        [normalize(item["images"], settings.clips).numpy().tobytes(), item["joints"], item["valid"]] for item in items
    ]


def encoder(settings: Settings, ground: Ground) -> Any:
    """Features and gradients of the skeleton encoder in training."""
    torch.manual_seed(0)
    model = empty_encoder("h36m17", 32, settings).train()
    torch.manual_seed(1)
    tokens = model(torch.randn(2, 3, 17, 3))
    tokens.square().sum().backward()
    return tokens.detach(), [parameter.grad for parameter in model.parameters()]


def stage1(settings: Settings, ground: Ground) -> Any:
    return training(settings, ground, 1)


def stage2(settings: Settings, ground: Ground) -> Any:
    return training(settings, ground, 2)


def recorder(scalars: list[Any]) -> type:
    """Make a stand-in for TensorBoard's writer that keeps the scalars."""

    class Writer:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def add_scalar(self, *scalar: Any) -> None:
            scalars.append(scalar)

        def close(self) -> None: ...

    return Writer


def training(settings: Settings, ground: Ground, stage: int) -> Any:
    """Scalars of every epoch, the figures and the model."""
    scalars: list[Any] = []

    dataset, folder = load_dataset(settings.dataset), ground.new_run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csip.training.keeper, "SummaryWriter", recorder(scalars))
        if stage == 1:
            figures = train_stage1(dataset, ground.skeletons, settings, folder, Silent())
        else:
            figures = train_stage2(dataset, ground.skeletons, ground.run / "stage1", settings, folder, Silent())
    tensors, _ = load_model(folder / "model.safetensors", f"stage{stage}")
    return (
        scalars,
        {k: v for k, v in figures.as_dict().items() if k != "seconds"},
        digest_tensors(tensors),
        sorted(tensors),
    )


def skeleton_index(settings: Settings, ground: Ground) -> Any:
    dataset = load_skeleton_set(settings.dataset, settings.runtime.seed)
    return dataset.protocol, [s.name for s in (*dataset.train, *dataset.probe, *dataset.gallery)]


def skeletons(settings: Settings, ground: Ground) -> Any:
    """Training on skeletons alone: scalars of every epoch, the figures and the model."""
    scalars: list[Any] = []
    whole = load_skeleton_set(settings.dataset, 0)
    # Windows that may start anywhere, so that a step between frames is possible.
    dataset = replace(whole, train=tuple(replace(s, cut=None) for s in whole.train))
    folder = ground.new_run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csip.training.keeper, "SummaryWriter", recorder(scalars))
        figures = train_skeleton(dataset, settings, folder, Silent())
    tensors, _ = load_model(folder / "model.safetensors", "skeleton")
    return (
        scalars,
        {k: v for k, v in figures.as_dict().items() if k != "seconds"},
        digest_tensors(tensors),
        sorted(tensors),
    )


def scores(settings: Settings, ground: Ground) -> Any:
    evaluate.run(settings, ground.run, cross_dataset=False)
    result = json.loads((ground.run / "metrics.json").read_text())
    return {key: value for key, value in result.items() if key != "seconds"}


def descriptors(settings: Settings, ground: Ground) -> Any:
    """Descriptors before the last norm, and how many clips were embedded at once."""
    loaded = csip.load(ground.run, "cpu", evaluation=settings.evaluation)
    model: Any = loaded.network
    calls: list[Any] = []

    def embed(images: torch.Tensor, camera: torch.Tensor | None = None) -> torch.Tensor:
        calls.append((len(images), type(model).embed(model, images, camera)))
        return calls[-1][1]

    model.embed = embed
    dataset = load_dataset(settings.dataset)
    embedder = Embedder(model, settings, loaded.camera_rows, torch.device("cpu"))
    embedder.tracklets(dataset.root, dataset.query[:1], Silent(), sampling="dense")
    return calls


def machine(settings: Settings, ground: Ground) -> Any:
    fabric = make_fabric(settings.runtime)
    return str(fabric.device), type(fabric._precision).__name__


def loaders(settings: Settings, ground: Ground) -> Any:
    """Processes that every loader of stage 2 would start."""
    asked: list[int] = []
    plain = torch.utils.data.DataLoader.__init__

    def init(
        self: Any, *arguments: Any, num_workers: int = 0, persistent_workers: bool = False, **options: Any
    ) -> None:
        asked.append(num_workers)
        plain(self, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.utils.data.DataLoader, "__init__", init)
        training(settings, ground, 2)
    return asked


def built(settings: Settings, ground: Ground) -> Any:
    """How the image encoder is to run: translated, and what it keeps for the gradient."""
    asked: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "compile", lambda self, *_, **__: asked.append(type(self).__name__))
        model = build_model(empty_encoder("h36m17", 32, settings), 1.0, 3, 2, settings)
    return asked, model.vision.visual.transformer.grad_checkpointing


def saving(settings: Settings, ground: Ground) -> Any:
    run = RunFolder(ground.new_run(), settings, {})
    run.open(False, make_fabric(settings.runtime))
    return run.save_is_due()


def extraction(settings: Settings, ground: Ground) -> Any:
    """What ``csip skeletons`` asks for."""
    asked: list[Any] = []
    path = ground.folder / "settings.yaml"
    path.write_text(dump_settings(settings))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            pipelines.extract_skeletons, "extract_skeletons", lambda *_, **options: asked.append(str(options))
        )
        pipelines.cli.app(["skeletons", "--config", str(path)], standalone_mode=False)
    return asked
