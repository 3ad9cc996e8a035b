"""What runs on the simulated device: every loop of training, and everything that embeds, ranks and estimates.

``python scenarios.py LIBRARY FOLDER NAME...`` runs scenarios in the folder that `grounds` has made and writes one JSON object
per line: the scenario's name, its error or None, and the waits for the device of its worst step.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    ctypes.CDLL(sys.argv[1])  # before torch

import numpy as np
import simulation
import torch
import yaml
from simulation import CPU, DEVICE, DISPATCHER, SimulatedDevice, counted

from csip.config import Settings
from csip.data.dataset import Dataset
from csip.data.readers import load_dataset
from csip.data.sequences import SkeletonDataset, SkeletonSequence
from csip.models.factory import build_model, empty_encoder
from csip.models.rollout import attention_rollout
from csip.monitor import Silent
from csip.retrieval.embedding import Embedder
from csip.retrieval.evaluation import evaluate
from csip.retrieval.metrics import rank
from csip.retrieval.model import Model
from csip.runtime import Precision
from csip.training.keeper import Keeper
from csip.training.skeletons_alone import train_skeleton
from csip.training.stage1 import train_stage1
from csip.training.stage2 import train_stage2
from csip.video import rtmdet
from pose_cache.compat import guard_torchvision
from pose_cache.estimator import PoseEstimator

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")

# Every setting of stage 2 that changes what runs, with values that the defaults do not have. The test that reads this table
# fails where a setting of stage 2 is neither here nor in NUMBERS.
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "batches": ({"batches": "alike"},),
    "lambda_distill": ({"lambda_distill": 0.0},),
    "fusion": ({"fusion": "gate"},),
    "prototype_attention": ({"prototype_attention": "induced"},),
    "prototype_layers": ({"prototype_layers": 1},),
    "update_prototypes": ({"update_prototypes": False},),
    "detach_tokens": ({"detach_tokens": False},),
    "update_tokens": ({"update_tokens": "all"},),
    "prototype_momentum": ({"prototype_momentum": 0.5},),
    "frozen_blocks": ({"frozen_blocks": 1},),
    "train_skeleton_encoder": ({"train_skeleton_encoder": True},),
    "detach_visual": ({"detach_visual": False},),
    "mte": ({"mte": False, "atd": False}, {"mte": False, "atd": False, "ta": False}),
    "atd": ({"atd": False}, {"atd": False, "ta": False}),
    "ta": ({"ta": False},),
    "frame_position": ({"frame_position": False},),
    "temporal_residual": ({"temporal_residual": True},),
    "camera_embedding": ({"camera_embedding": False},),
    "clip_gradient": ({"clip_gradient": 0.5},),
    "ema": ({"ema": 0.5},),
}
# Settings of stage 2 that change numbers and sizes alone.
NUMBERS = {
    "epochs", "ids_per_batch", "tracklets_per_id", "lr", "new_lr_factor", "bias_lr_factor", "weight_decay",
    "warmup_epochs", "decay_epochs", "smoothing", "margin", "lambda_ce", "lambda_triplet", "lambda_csip", "lambda_frame",
    "temporal_heads", "prototype_heads", "val_every",
}  # fmt: skip
# The same of the other sections that a training loop reads.
OTHERS: dict[str, tuple[dict[str, Any], ...]] = {
    "stage1.normalize": ({"stage1": {"normalize": False}},),
    "runtime.recompute": ({"runtime": {"recompute": True}},),
}


class Ground:
    """A folder with a rendered data set, its settings, and a run of stage 1 and 2 that was trained on the processor."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = yaml.safe_load((folder / "settings.yaml").read_text())

    def settings(self, precision: str = "32-true", **changes: dict[str, Any]) -> Settings:
        tree = {**self.tree, "runtime": {**self.tree["runtime"], "device": "cuda", "precision": precision}}
        for section, values in changes.items():
            tree[section] = {**tree[section], **values}
        return Settings.model_validate(tree)

    def dataset(self, settings: Settings) -> tuple[Dataset, Path]:
        return load_dataset(settings.dataset), settings.dataset.path / "skeletons.h5"

    def new(self) -> Path:
        """A new folder for a run."""
        return Path(tempfile.mkdtemp(dir=self.folder)) / "run"


class Stop(Exception):
    pass


class StopAfter(Silent):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        if task in ("stage 1", "stage 2", "skeleton") and done == self.epoch:
            raise Stop


@contextmanager
def steps_counted() -> Iterator[list[dict[str, int]]]:
    """Collect the waits of each step; the first step of an epoch is not one, as it follows the work between epochs."""
    steps: list[dict[str, int]] = []
    plain_step, plain_end = Keeper.end_step, Keeper.end_steps
    at = [-1]

    def end_step(keeper: Keeper, terms: Any) -> None:
        plain_step(keeper, terms)
        if at[0] == keeper.progress.epoch:
            steps.append(dict(DISPATCHER.waits))
        at[0] = keeper.progress.epoch
        DISPATCHER.waits.clear()

    Keeper.end_step = end_step  # type: ignore[method-assign]
    try:
        with counted():
            yield steps
    finally:
        Keeper.end_step, Keeper.end_steps = plain_step, plain_end  # type: ignore[method-assign]


# ---- scenarios -------------------------------------------------------------------------------------------------------


def stage1(ground: Ground, precision: str = "32-true", resume: bool = False, **changes: Any) -> Path:
    settings, folder = ground.settings(precision, **changes), ground.new()
    inputs = (*ground.dataset(settings), settings, folder)
    if resume:
        stop(lambda: train_stage1(*inputs, StopAfter(1)))
    figures = train_stage1(*inputs, Silent())
    assert np.isfinite(figures.loss), figures
    return folder


def stage2(ground: Ground, precision: str = "32-true", resume: bool = False, **changes: Any) -> dict[str, Any]:
    settings, folder = ground.settings(precision, **changes), ground.new()
    dataset, skeletons = ground.dataset(settings)
    held = settings.dataset.val_ids
    start = "raw" if not settings.stage1.normalize else "run" if held else "all"
    inputs = (dataset, skeletons, ground.folder / start / "stage1", settings, folder)
    if resume:
        stop(lambda: train_stage2(*inputs, StopAfter(1)))
    figures = train_stage2(*inputs, Silent()).as_dict()
    assert all(np.isfinite(figures[name]) for name in ("ce", "triplet", "csip")), figures
    return figures


def stop(run: Callable[[], Any]) -> None:
    try:
        run()
    except Stop:
        return
    raise AssertionError("the run was not stopped")


def skeletons(ground: Ground, precision: str = "32-true", resume: bool = False, **changes: Any) -> None:
    settings = ground.settings(precision, skeleton_training=changes)
    inputs = (walks(), settings, ground.new())
    if resume:
        stop(lambda: train_skeleton(*inputs, StopAfter(1)))
    assert np.isfinite(train_skeleton(*inputs, Silent()).loss)


def walks() -> SkeletonDataset:
    rng = np.random.default_rng(0)

    def part(name: str, walks: int) -> tuple[SkeletonSequence, ...]:
        return tuple(
            SkeletonSequence(f"{name}{pid}_{walk}", pid, rng.normal(size=(30, 20, 3)).astype(np.float32))
            for pid in range(4)
            for walk in range(walks)
        )

    return SkeletonDataset("walks", Path("nowhere"), "kinect20", "", part("t", 2), part("p", 1), part("g", 1))


WINDOW = {"encoder": "window", "contrast": 0.0, "classifier": 1.0, "ema": 0.9}
AUGMENTED = {"augment": {"mirror": 0.5, "scale": 0.1, "stride": 2}}


def embedding(ground: Ground, precision: Precision) -> None:
    """Descriptors of tracklets and what they score, against the processor's in float32."""
    settings = ground.settings()
    dataset, _ = ground.dataset(settings)
    encoder = empty_encoder("h36m17", 32, settings)
    with torch.random.fork_rng([]):
        network = build_model(encoder, 0.07, 4, 2, settings)
    queries = dataset.query[:3]
    plain = Embedder(network, settings, {1: 0}, CPU).tracklets(dataset.root, queries, Silent())
    here = Embedder(network, settings, {1: 0}, DEVICE, precision).tracklets(dataset.root, queries, Silent())
    cosines = (plain * here).sum(axis=1)
    assert cosines.min() > 1 - 1e-3, cosines
    evaluation = evaluate(Model(network, settings, dataset.name, {1: 0}, "none", "none", DEVICE, precision), dataset)
    assert 0 <= evaluation.map <= 1


def attention(ground: Ground) -> None:
    """Where the image encoder looks, for the report."""
    settings = ground.settings()
    vision = build_model(empty_encoder("h36m17", 32, settings), 0.07, 4, 2, settings).vision.eval()
    images = torch.randn(3, 3, settings.clips.height, settings.clips.width)
    there = attention_rollout(vision, images)
    here = attention_rollout(vision.to(DEVICE), images.to(DEVICE))
    torch.testing.assert_close(here.cpu(), there, rtol=1e-4, atol=1e-5)


def extraction(ground: Ground, precision: str) -> None:
    """Keypoints and joints of made-up crops; the demo's models, detector and lifter."""
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 255, (128, 64, 3)).astype(np.uint8) for _ in range(6)]
    found = []
    for device in ("cpu", "cuda:0"):
        kind = "32" if device == "cpu" else precision
        found.append(PoseEstimator.load("demo", device, True, kind).estimate(crops))
    assert np.isfinite(found[1].joints).all()
    if precision == "32":
        np.testing.assert_allclose(found[1].keypoints2d, found[0].keypoints2d, atol=0.5)


RTMDET = """
_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
model = dict(
    backbone=dict(deepen_factor=0.167, widen_factor=0.125, init_cfg=None),
    neck=dict(in_channels=[32, 64, 128], out_channels=32, num_csp_blocks=1),
    bbox_head=dict(in_channels=32, feat_channels=32, num_classes=1),
    test_cfg=dict(nms_pre=300, max_per_img=20))
test_pipeline = [
    dict(type='LoadImageFromFile', backend_args=None),
    dict(type='Resize', scale=(96, 96), keep_ratio=True),
    dict(type='Pad', size=(96, 96), pad_val=dict(img=(114, 114, 114))),
    dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'))]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
"""


def detection(ground: Ground) -> None:
    """People in pictures, by a small RTMDet that is sure of what it sees; equal to the processor's."""
    guard_torchvision()
    extension: Any = importlib.import_module("mmcv.ops.nms").ext_module
    extension.nms = simulation.kernel(extension.nms)
    folder = ground.new()
    folder.mkdir()
    config, checkpoint = folder / "small.py", folder / "small.pth"
    config.write_text(RTMDET)
    model, _ = rtmdet._build(config, CPU)
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 4:
            torch.nn.init.normal_(parameter, std=0.1)
        if "rtm_" in name and name.endswith("bias"):
            torch.nn.init.constant_(parameter, 2.0)
    torch.save({"state_dict": model.state_dict()}, checkpoint)
    images = list(np.random.default_rng(0).integers(0, 255, (2, 60, 90, 3), np.uint8))
    there, here = (rtmdet.RTMDetDetector(config, checkpoint, device).detect(images) for device in ("cpu", "cuda:0"))
    for expected, found in zip(there, here, strict=True):
        assert len(expected.scores)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-3)


def ranking(ground: Ground) -> None:
    """Scores of random descriptors, equal to those of the processor."""
    rng = np.random.default_rng(0)
    query, gallery = (rng.normal(size=(n, 16)).astype(np.float32) for n in (20, 50))
    ids, cameras = rng.integers(0, 5, 70), rng.integers(0, 3, 70)
    given = (query, ids[:20], cameras[:20], gallery, ids[20:], cameras[20:])
    here, there = rank(*given, device=DEVICE), rank(*given, device=torch.device("cpu"))
    assert here.map == there.map and here.cmc == there.cmc


def scenarios() -> dict[str, Callable[[Ground], Any]]:
    """Name every scenario."""
    found: dict[str, Callable[[Ground], Any]] = {}
    for precision in PRECISIONS:
        for resume in (False, True):
            name = f"{precision}{' resumed' if resume else ''}"
            found[f"stage 1 {name}"] = lambda g, p=precision, r=resume: stage1(g, p, r)
            found[f"stage 2 {name}"] = lambda g, p=precision, r=resume: stage2(g, p, r)
            found[f"skeletons, graph {name}"] = lambda g, p=precision, r=resume: skeletons(g, p, r, **AUGMENTED)
            found[f"skeletons, window {name}"] = lambda g, p=precision, r=resume: skeletons(g, p, r, **WINDOW)
    for name, precision in (
        ("ema", "bf16-mixed"), ("train_skeleton_encoder", "bf16-mixed"), ("clip_gradient", "16-mixed"),
    ):  # fmt: skip
        changes = OPTIONS[name][0]
        found[f"stage 2 {precision} {changes} resumed"] = lambda g, p=precision, c=changes: stage2(
            g, p, resume=True, stage2=c
        )
    for cases in OPTIONS.values():
        for changes in cases:
            short = changes if "prototype_momentum" in changes else {"epochs": 1, **changes}
            found[f"stage 2 {changes}"] = lambda g, c=short: stage2(g, "bf16-mixed", stage2=c)
    for cases in OTHERS.values():
        for changes in cases:
            found[f"stage 2 {changes}"] = lambda g, c=changes: stage2(g, "bf16-mixed", **c)
    found["stage 1 by camera"] = lambda g: stage1(g, stage1={"batches": "camera", "batch": 5})
    found["stage 1 bones"] = lambda g: stage1(g, skeleton_encoder={"bones": True})
    found["stage 2 without held-out identities"] = lambda g: stage2(g, dataset={"val_ids": 0})
    found["ranking"] = ranking
    found["attention"] = attention
    found["detection"] = detection
    for precision in PRECISIONS:
        found[f"embedding {precision}"] = lambda g, p=precision: embedding(g, p)
    for precision in ("32", "bf16", "16"):
        found[f"extraction {precision}"] = lambda g, p=precision: extraction(g, p)
    return found


def main() -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    simulation.install(sys.argv[1])
    ground = Ground(Path(sys.argv[2]))
    known = scenarios()
    for name in sys.argv[3:] or known:
        error = None
        with SimulatedDevice(), steps_counted() as steps:
            try:
                known[name](ground)
            except Exception as problem:
                at = traceback.extract_tb(problem.__traceback__)
                lines = " <- ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(at[-12:]))
                error = f"{type(problem).__name__}: {str(problem)[:400]} at {lines}"
        worst = max(steps, key=lambda step: sum(step.values()), default={})
        print(json.dumps({"name": name, "error": error, "steps": len(steps), "waits": worst}), flush=True)


if __name__ == "__main__":
    main()
