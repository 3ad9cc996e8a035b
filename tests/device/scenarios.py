"""What runs on the simulated device: every loop of training, and everything that embeds, ranks and estimates.

``python scenarios.py LIBRARY FOLDER NAME...`` runs scenarios in the folder that `grounds` has made and writes one JSON object
per line: the scenario's name, its error or None, and the waits for the device of its worst step.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

if __name__ == "__main__":
    ctypes.CDLL(sys.argv[1])  # before torch

import numpy as np
import simulation
import torch
import yaml
from simulation import CPU, DEVICE, DISPATCHER, SimulatedDevice, counted
from whole_method import WHOLE

import csip
from csip.config import Settings
from csip.data.dataset import Dataset
from csip.data.readers import load_dataset
from csip.data.sequences import SkeletonDataset, SkeletonSequence
from csip.models.checkpoints import save_model
from csip.models.factory import build_model, empty_encoder
from csip.models.rollout import attention_rollout
from csip.monitor import Silent
from csip.retrieval.embedding import Embedder
from csip.retrieval.evaluation import evaluate
from csip.retrieval.in_parts import embed_to_file
from csip.retrieval.metrics import rank
from csip.retrieval.model import Model, tested
from csip.runtime import Precision
from csip.training.keeper import Keeper
from csip.training.skeletons_alone import train_skeleton
from csip.training.stage1 import train_stage1
from csip.training.stage2 import train_stage2
from csip.video import rtmdet
from pose_cache.compat import guard_torchvision
from pose_cache.estimator import PoseEstimator
from pose_cache.pieces import Spread

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


@dataclass(frozen=True)
class Run:
    """One run of stage 2 with settings that change what runs, by section; several settings that do not meet share a run."""

    changes: dict[str, dict[str, Any]]
    precision: str = "bf16-mixed"
    resume: bool = False

    @property
    def name(self) -> str:
        return f"stage 2 {self.precision}{' resumed' if self.resume else ''} {self.changes}"


# Every setting of stage 2 that changes what runs, with a value that is not the default. The test that reads this table fails
# where a setting of stage 2 is neither here nor in NUMBERS.
RUNS: tuple[Run, ...] = (
    Run({"stage2": {
        **WHOLE,
        "batches": "alike", "fusion": "gate", "prototype_attention": "induced", "prototype_layers": 1, "frozen_blocks": 1,
        "clip_gradient": 0.5, "ema": 0.5, "project_prototypes": True, "dropout": 0.1, "predict_skeletons": True,
    }}, "16-mixed", resume=True),
    Run({"stage2": {
        **WHOLE, "lambda_distill": 0.0, "detach_tokens": False, "update_tokens": "all", "train_skeleton_encoder": True,
        "temporal_residual": True, "share_classifier": True, "new_lr_modules": "authors",
    }, "runtime": {"recompute": True}}, resume=True),
    Run({"stage2": {
        **WHOLE, "update_prototypes": False, "prototype_momentum": 0.5, "detach_visual": False, "camera_embedding": False,
        "frame_position": False, "skeletons": "others", "prototypes": "images",
    }}),
    Run({"stage2": {**WHOLE, "mte": False, "atd": False, "epochs": 1}}),
    Run({"stage2": {"predict_skeletons": False, "epochs": 1}}),
    Run({"stage2": {**WHOLE, "atd": False, "epochs": 1}}),
    Run({"stage2": {**WHOLE, "atd": False, "ta": False, "epochs": 1}}),
    Run({"stage2": {**WHOLE, "ta": False, "epochs": 1}}),
    Run({"stage1": {"normalize": False}, "dataset": {"val_ids": 0}, "stage2": {"epochs": 1}}),
)  # fmt: skip
# Settings of stage 2 that change numbers and sizes alone.
NUMBERS = {
    "epochs", "ids_per_batch", "tracklets_per_id", "lr", "new_lr_factor", "bias_lr_factor", "weight_decay",
    "warmup_epochs", "warmup_start", "decay_epochs", "smoothing", "margin",
    "lambda_ce", "lambda_triplet", "lambda_csip", "lambda_frame", "temporal_heads", "prototype_heads",
    "reader_steps", "val_every",
}  # fmt: skip


def smaller(dataset: Dataset) -> Dataset:
    """Leave out every second training tracklet: the simulated device is slow."""
    return replace(dataset, train=dataset.train[::2])


class Ground:
    """A folder with a rendered data set, its settings, and a run of stage 1 and 2 that was trained on the processor."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = yaml.safe_load((folder / "settings.yaml").read_text())

    def settings(self, precision: str = "32-true", **changes: dict[str, Any]) -> Settings:
        tree = {**self.tree, "runtime": {**self.tree["runtime"], "device": "cuda", "precision": precision}}
        for section, values in changes.items():
            tree[section] = {**tree.get(section, {}), **values}
        return Settings.model_validate(tree)

    def dataset(self, settings: Settings) -> tuple[Dataset, Path]:
        return smaller(load_dataset(settings.dataset)), settings.dataset.path / "skeletons.h5"

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
    start = ground.folder / ("run" if settings.dataset.val_ids else "raw") / "stage1"
    inputs = (dataset, skeletons, start, settings, folder)
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
            SkeletonSequence(f"{name}{pid}_{walk}", pid, rng.normal(size=(18, 20, 3)).astype(np.float32))
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
    assert np.allclose(plain, here, rtol=0, atol=1e-6) == (precision == "32-true"), "it computes as it says"
    model = Model(network, settings, dataset.name, {1: 0}, "none", "none", DEVICE, precision)
    few = replace(dataset, gallery=dataset.gallery[-8:], query=dataset.query[-2:])
    evaluation = evaluate(model, few)
    assert 0 <= evaluation.map <= 1 and evaluation.protocol.precision == precision


def use(ground: Ground) -> None:
    """A model's file, loaded and used: embedding into a file, search, and evaluation beside the untrained model."""
    settings, folder = ground.settings(evaluation={"compare_untrained": True}), ground.new()
    dataset, _ = ground.dataset(settings)
    network = build_model(empty_encoder("h36m17", 32, settings), 0.07, 4, 2, settings)
    description = {
        "kind": "stage2", "dataset": dataset.name, "identities": 4, "cameras": {"1": 0, "2": 1}, "joint_set": "h36m17",
        "width": 32, "settings": settings.model_dump(mode="json"),
    }  # fmt: skip
    save_model(folder / "model.safetensors", network.state_dict(), description)
    model = csip.load(folder / "model.safetensors", "cuda")
    assert (model.device.type, model.precision) == ("cuda", "32-true")
    gallery = embed_to_file(model, dataset, tested(dataset), folder / "all.h5", Spread(), Silent())
    assert gallery is not None
    asked = model.embed([dataset.root / frame for frame in dataset.query[0].frames])
    assert len(csip.search(asked, gallery, top=3)[0]) == 3
    assert set(evaluate(model, dataset).compared) == {"chance", "random weights", "before training"}


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


def benchmark(ground: Ground) -> None:
    """Every line of the GPU's benchmark, in small."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
    program, out = importlib.import_module("bench_gpu"), ground.new()
    with mock.patch.object(sys, "argv", ["bench_gpu.py", "--quick", "--out", str(out)]), redirect_stdout(StringIO()):
        try:
            program.main()
        except SystemExit as end:
            lines = json.loads((out / "bench_gpu.json").read_text())["lines"]
            results = {line["name"]: line["result"] for line in lines}
            assert len(results) == len(program.LINES)
            if importlib.util.find_spec("triton") is None:  # torch's CPU builds come without
                assert results.pop("stage 2, a compiled step") == "skipped: triton is not installed"
            assert not end.code and set(results.values()) == {"ok", "measured"}, results


def scenarios() -> dict[str, Callable[[Ground], Any]]:
    """Name every scenario."""
    found: dict[str, Callable[[Ground], Any]] = {}
    cameras = {"stage1": {"batches": "camera"}, "skeleton_encoder": {"bones": True}}
    alike = {
        "stage1": {"batches": "alike", "lambda_skeletons": 1.0},
        "skeleton_encoder": {"face_front": True, "frequencies": 4},
        "clips": {"stride": 2},
    }
    for precision in PRECISIONS:
        found[f"stage 1 {precision} resumed"] = lambda g, p=precision: stage1(g, p, resume=True)
        found[f"stage 2 {precision} resumed"] = lambda g, p=precision: stage2(g, p, resume=True)
        found[f"skeletons, graph {precision} resumed"] = lambda g, p=precision: skeletons(
            g, p, resume=True, **AUGMENTED
        )
        found[f"skeletons, window {precision} resumed"] = lambda g, p=precision: skeletons(g, p, resume=True, **WINDOW)
    for run in RUNS:
        found[run.name] = lambda g, r=run: stage2(g, r.precision, r.resume, **r.changes)
    found["stage 1 by camera, with bones"] = lambda g: stage1(g, "bf16-mixed", **cameras)
    found["stage 1 by likeness, with the spectrum"] = lambda g: stage1(g, "bf16-mixed", **alike)
    found["ranking"] = ranking
    found["attention"] = attention
    found["use"] = use
    found["benchmark"] = benchmark
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
