"""No setting that nothing reads: changing each one changes what is computed, written or asked for.

`SHOWN` says for every leaf of the settings a value to change it to and where the change shows. A new setting without an
entry fails the first test.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file
from scipy.io import savemat

import csip.training.stage1
import csip.training.stage2
import pipelines.cli
import pipelines.skeletons
from csip.checkpoints import digest_tensors, load_model
from csip.config import Settings, dump_settings, load_settings, valid_keys
from csip.data.clips import TrainingClips, normalize
from csip.data.datasets import load_dataset
from csip.data.skeletons import load_skeletons
from csip.data.tracklets import number_cameras, relabel
from csip.embedding import embed_tracklets
from csip.errors import CsipError
from csip.models.vision import create_vision
from csip.monitor import Silent
from csip.training.common import RunFolder, make_fabric
from csip.training.stage1 import empty_encoder, train_stage1
from csip.training.stage2 import build_model, load_trained, train_stage2
from pipelines import evaluate
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


@pytest.fixture(scope="module")
def ground(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("ground")
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
            "val_every": 3,
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
    sampler = csip.training.stage2.IdentityBatches([0] * 4, 1, 4, 0)
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


def training(settings: Settings, ground: Ground, stage: int) -> Any:
    """Scalars of every epoch, the figures and the model."""
    scalars: list[Any] = []

    class Writer:
        def __init__(self, *_: Any, **__: Any) -> None: ...

        def add_scalar(self, *scalar: Any) -> None:
            scalars.append(scalar)

        def close(self) -> None: ...

    dataset, folder = load_dataset(settings.dataset), ground.new_run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csip.training.stage1, "SummaryWriter", Writer)
        patch.setattr(csip.training.stage2, "SummaryWriter", Writer)
        if stage == 1:
            figures = train_stage1(dataset, ground.skeletons, settings, folder, Silent())
        else:
            figures = train_stage2(dataset, ground.skeletons, ground.run / "stage1", settings, folder, Silent())
    tensors, _ = load_model(folder / "model.safetensors", f"stage{stage}")
    return scalars, {k: v for k, v in figures.items() if k != "seconds"}, digest_tensors(tensors), sorted(tensors)


def scores(settings: Settings, ground: Ground) -> Any:
    evaluate.run(settings, ground.run, cross_dataset=False)
    result = json.loads((ground.run / "metrics.json").read_text())
    return {key: value for key, value in result.items() if key != "seconds"}


def descriptors(settings: Settings, ground: Ground) -> Any:
    """Descriptors before the last norm, and how many clips were embedded at once."""
    model, cameras, _ = load_trained(ground.run / "stage2/model.safetensors", settings, None)
    calls: list[Any] = []

    def embed(images: torch.Tensor, camera: torch.Tensor | None = None) -> torch.Tensor:
        calls.append((len(images), type(model).embed(model, images, camera)))
        return calls[-1][1]

    model.embed = embed  # type: ignore[method-assign]
    dataset = load_dataset(settings.dataset)
    embed_tracklets(
        model, dataset.root, dataset.query[:1], cameras, settings, torch.device("cpu"), Silent(), sampling="dense"
    )
    return calls


def machine(settings: Settings, ground: Ground) -> Any:
    fabric = make_fabric(settings.runtime)
    return str(fabric.device), type(fabric._precision).__name__


def loaders(settings: Settings, ground: Ground) -> Any:
    """Processes that every loader of stage 2 would start."""
    asked: list[int] = []
    plain = torch.utils.data.DataLoader.__init__

    def init(self: Any, *arguments: Any, num_workers: int = 0, **options: Any) -> None:
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
        patch.setattr(pipelines.skeletons, "extract_skeletons", lambda *_, **options: asked.append(str(options)))
        pipelines.cli.app(["skeletons", "--config", str(path)], standalone_mode=False)
    return asked


# ---- every setting ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A value to change a setting to, where it shows, what else must hold for it to show, and whether it may be refused."""

    value: Any
    probe: Probe
    given: tuple[str, ...] = ()
    refused: bool = False


LSVID = ("dataset.layout=lsvid", "dataset.root={folder}/lsvid")
ILIDSVID = ("dataset.layout=ilidsvid", "dataset.root={folder}/ilidsvid")
FOLDERS = ("dataset.layout=folder", "dataset.root={folder}/folders")

SHOWN: dict[str, Case] = {
    "dataset.name": Case("others", index),
    "dataset.layout": Case("folder", index, refused=True),
    "dataset.root": Case("{folder}/fewer", index, FOLDERS),
    "dataset.gallery": Case("without_queries", index),
    "dataset.split": Case(3, index, ILIDSVID),
    "dataset.piece_frames": Case(4, index, LSVID),
    "dataset.train_share": Case(0.25, index, FOLDERS),
    "dataset.val_ids": Case(1, stage1),
    "estimator": Case("demo", extraction),
    "clips.frames": Case(3, batch),
    "clips.height": Case(48, batch),
    "clips.width": Case(32, batch),
    "clips.mean": Case([0.5, 0.5, 0.5], batch),
    "clips.std": Case([0.5, 0.5, 0.5], batch),
    "clips.flip": Case(0.0, batch),
    "clips.pad": Case(0, batch),
    "clips.erase": Case(0.0, batch),
    "clips.max_gap": Case(0, batch),
    "vision.model": Case("{folder}/other.json", stage1),
    "vision.pretrained": Case("{folder}/tower.safetensors", stage1),
    "skeleton_encoder.depth": Case(3, encoder),
    "skeleton_encoder.heads": Case(4, encoder),
    "skeleton_encoder.mlp_ratio": Case(1.0, encoder),
    "skeleton_encoder.dropout": Case(0.1, encoder),
    "skeleton_encoder.positions": Case(4, encoder),
    "skeleton_encoder.temporal": Case(False, encoder),
    "skeleton_encoder.temporal_every": Case(1, encoder),
    "skeleton_encoder.sign_flips": Case(False, encoder),
    "stage1.epochs": Case(2, stage1),
    "stage1.batch": Case(4, stage1),
    "stage1.lr": Case(1e-3, stage1),
    "stage1.min_lr": Case(1e-4, stage1),
    "stage1.warmup_epochs": Case(0, stage1),
    "stage1.weight_decay": Case(0.1, stage1),
    "stage1.val_every": Case(1, stage1),
    "stage1.clips_per_tracklet": Case(2, stage1),
    "stage1.normalize": Case(False, stage1),
    "stage1.tau": Case(0.5, stage1),
    "stage2.epochs": Case(2, stage2),
    "stage2.ids_per_batch": Case(3, stage2),
    "stage2.tracklets_per_id": Case(3, stage2),
    "stage2.batches": Case("alike", stage2),
    "stage2.lr": Case(2e-3, stage2),
    "stage2.new_lr_factor": Case(2.0, stage2),
    "stage2.bias_lr_factor": Case(1.0, stage2),
    "stage2.weight_decay": Case(0.1, stage2),
    "stage2.warmup_epochs": Case(0, stage2),
    "stage2.decay_epochs": Case([1, 2], stage2),
    "stage2.smoothing": Case(0.0, stage2),
    "stage2.margin": Case(0.6, stage2),
    "stage2.lambda_ce": Case(0.0, stage2),
    "stage2.lambda_triplet": Case(0.0, stage2),
    "stage2.lambda_csip": Case(0.0, stage2),
    "stage2.lambda_frame": Case(0.0, stage2),
    "stage2.lambda_distill": Case(0.5, stage2),
    "stage2.fusion": Case("gate", stage2),
    "stage2.update_tokens": Case("all", stage2),
    "stage2.prototype_momentum": Case(0.5, stage2),
    "stage2.train_skeleton_encoder": Case(True, stage2),
    "stage2.detach_visual": Case(False, stage2),
    "stage2.mte": Case(False, stage2, ("stage2.atd=false",)),
    "stage2.atd": Case(False, stage2),
    "stage2.ta": Case(False, stage2),
    "stage2.temporal_heads": Case(2, stage2),
    "stage2.frame_position": Case(False, stage2),
    "stage2.camera_embedding": Case(False, stage2),
    "stage2.clip_gradient": Case(0.01, stage2),
    "stage2.ema": Case(0.5, stage2),
    "stage2.val_every": Case(1, stage2),
    "evaluation.sampling": Case("rrs", scores),
    "evaluation.level": Case("clip", scores),
    "evaluation.bootstrap": Case(0, scores),
    "evaluation.rerank": Case(False, scores),
    "evaluation.rerank_k1": Case(8, scores),
    "evaluation.rerank_k2": Case(4, scores),
    "evaluation.rerank_mix": Case(0.9, scores),
    "evaluation.part_norm": Case(False, descriptors),
    "evaluation.compare_untrained": Case(True, scores),
    "runtime.seed": Case(1, stage1),
    "runtime.device": Case("cuda", machine, refused=True),
    "runtime.precision": Case("bf16-mixed", machine),
    "runtime.workers": Case(3, loaders),
    "runtime.embed_batch": Case(2, descriptors),
    "runtime.save_minutes": Case(0.0, saving),
    "runtime.compile": Case(True, built),
    "runtime.recompute": Case(True, built),
}


def leaves() -> Iterator[str]:
    keys = valid_keys()
    return (key for key in keys if not any(other.startswith(f"{key}.") for other in keys))


def test_every_setting_has_an_entry() -> None:
    assert set(leaves()) == SHOWN.keys(), "a setting is new or gone: say in SHOWN how its change shows"


@pytest.mark.parametrize("key", SHOWN)
def test_changing_it_changes_something(key: str, ground: Ground) -> None:
    case = SHOWN[key]
    given = tuple(line.format(folder=ground.folder) for line in case.given)
    value = case.value.format(folder=ground.folder) if isinstance(case.value, str) else case.value
    known = f"{case.probe.__name__} {given}"
    if known not in ground.before:
        ground.before[known] = observe(case.probe, ground, given)
        assert same(ground.before[known], observe(case.probe, ground, given)), "what shows it is not the same twice"
    after = observe(case.probe, ground, (*given, f"{key}={json.dumps(value)}"), case.refused)
    assert not same(ground.before[known], after)


def observe(probe: Probe, ground: Ground, changes: tuple[str, ...], refused: bool = False) -> Any:
    path = ground.folder / "base.yaml"
    path.write_text(yaml.safe_dump(ground.settings.model_dump(mode="json")))
    settings = load_settings(path, changes)
    try:
        return probe(settings, ground)
    except CsipError as error:
        if not refused:
            raise
        return str(error)


def same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.shape == two.shape and torch.equal(one, two)
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    return bool(one == two)
