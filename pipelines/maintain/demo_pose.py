"""Train and measure the demo's pose models: a 2D estimator and a 3D lifter that know only the rendered world.

Both are MMPose models defined by the configs under configs/pose/demo and trained by MMEngine's Runner on rendered
walkers of a world (`TRAINING_SEED`) that no data set shows. The lifter learns from the 2D estimator's own estimates
on walks that the estimator was not trained on, so that it meets the errors that it will meet.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch.utils.data import DataLoader, Dataset, Sampler

from csip.synthetic.walks import RenderedTracklet, render_walk
from pose_cache.compat import guard_torchvision
from pose_cache.errors import PoseCacheError
from pose_cache.estimator import EstimatorSpec, PoseEstimator, demo
from pose_cache.framing import place_in_view
from pose_cache.joints import COCO17, H36M17, coco_to_h36m, mirror
from pose_cache.shipped import CONFIGS
from pose_cache.weights import Weights

TRAINING_SEED = 20_231
FOLDER = CONFIGS / "pose" / "demo"
HEIGHT, WIDTH = 128, 64

Report = Callable[[str, int, int, str], None]


@dataclass(frozen=True)
class Recipe:
    """How much to render and to train.

    Attributes
    ----------
    detector_walks, detector_frames
        Rendered walks, and the frames of each, that the 2D estimator learns from.
    long_walks, short_walks
        Walks of 81 and of 24 frames that the lifter learns from.
    iterations
        Of each model; None takes what the configs say.
    """

    detector_walks: int = 1600
    detector_frames: int = 12
    long_walks: int = 400
    short_walks: int = 1200
    iterations: int | None = None


@dataclass(frozen=True)
class Figures:
    """How good the models are on rendered walkers.

    Attributes
    ----------
    walks, frames
        What was measured on.
    pck_torso, pck_box
        Share of the keypoints in the picture that are found within a tenth of the torso (left shoulder to right hip),
        and of the crop's height.
    error_2d
        Median distance of a keypoint, as a share of the crop's height.
    pa_mpjpe
        Mean joint error of the whole chain after the best similarity of each frame, millimetres.
    pa_mpjpe_true_2d
        The same, lifted from the true keypoints.
    crops_per_second
        2D estimates a second, single crops prepared and batches of 32.
    """

    walks: int
    frames: int
    pck_torso: float
    pck_box: float
    error_2d: float
    pa_mpjpe: float
    pa_mpjpe_true_2d: float
    crops_per_second: float


@dataclass(frozen=True)
class _Walk:
    """A rendered walk, and what the 2D estimator made of it."""

    truth: RenderedTracklet
    keypoints: NDArray[np.float32]  # (F, 17, 3)


def train_demo_pose(
    out: Path,
    *,
    recipe: Recipe | None = None,
    workers: int = 1,
    seed: int = TRAINING_SEED,
    report: Report | None = None,
) -> Figures:
    """Train both models from nothing and write their weights.

    Parameters
    ----------
    out
        Folder for `pose2d.safetensors`, `lifter.safetensors` (float16) and `figures.json`.
    recipe
        How much of everything.
    workers
        Processes that render.
    seed
        The world of the walkers; 0 is that of the demo data set.
    report
        Called with a task, what is done, what there is to do, and a note.

    Returns
    -------
    Figures
        Measured on walkers of world 0.
    """
    guard_torchvision()
    recipe = recipe or Recipe()
    out.mkdir(parents=True, exist_ok=True)
    say = report or (lambda task, done, total, note: None)
    started = time.monotonic()

    walks = _render(
        "walks for the 2D estimator", seed, range(recipe.detector_walks), recipe.detector_frames, workers, say
    )
    _train_pose2d(list(walks), out / "pose2d.safetensors", recipe.iterations, say)
    detector_time = time.monotonic() - started

    spec = demo_spec(out, lifter=False)
    first = recipe.detector_walks
    long = range(first, first + recipe.long_walks)
    short = range(long.stop, long.stop + recipe.short_walks)
    estimated = []
    for keys, frames, name in ((long, 81, "long walks"), (short, 24, "short walks")):
        estimated += list(_estimate(spec, _render(f"{name} for the lifter", seed, keys, frames, workers, say)))
    _train_lifter(estimated, out / "lifter.safetensors", recipe.iterations, say)

    figures = measure_demo_pose(demo_spec(out), walks=120 if recipe.iterations is None else 2)
    notes = {"seconds_pose2d": detector_time, "seconds_all": time.monotonic() - started, "recipe": asdict(recipe)}
    (out / "figures.json").write_text(json.dumps({**asdict(figures), **notes}, indent=1) + "\n")
    return figures


def demo_spec(folder: Path = FOLDER, *, lifter: bool = True) -> EstimatorSpec:
    """Return the demo estimator with the weights of a folder; without lifter weights if they do not exist yet."""
    return replace(
        demo(),
        pose2d_weights=Weights(str(folder / "pose2d.safetensors")),
        lifter_weights=Weights(str(folder / "lifter.safetensors")) if lifter else None,
    )


def measure_demo_pose(spec: EstimatorSpec, *, seed: int = 0, walks: int = 120, frames: int = 16) -> Figures:
    """Measure an estimator on rendered walkers.

    Parameters
    ----------
    spec
        The estimator.
    seed
        The world; 0 is that of the demo data set.
    walks, frames
        How many walks of how many frames; each of another person, past one of four cameras.
    """
    from mmpose.evaluation.functional import keypoint_mpjpe

    estimator = PoseEstimator(spec)
    rendered = [_render_one(seed, key, key % 4 + 1, frames, 12.0) for key in range(1, walks + 1)]
    crops = [crop for walk in rendered for crop in walk.crops[..., ::-1]]
    started = time.perf_counter()
    found = np.concatenate([estimator.detect(crops[start : start + 32]) for start in range(0, len(crops), 32)])
    seconds = time.perf_counter() - started
    true = np.concatenate([walk.coco for walk in rendered])
    error = np.linalg.norm(found[..., :2] - true, axis=-1)
    seen = _inside(true)
    torso = np.linalg.norm(true[:, 5] - true[:, 12], axis=-1, keepdims=True)

    sizes = np.tile([WIDTH, HEIGHT], (frames, 1))
    joints = np.concatenate([walk.joints3d for walk in rendered]).astype(np.float64)
    everywhere = np.ones(joints.shape[:2], dtype=bool)

    def lifted_error(keypoints: NDArray[np.floating]) -> float:
        sequences = [(points, sizes) for points in keypoints.reshape(walks, frames, COCO17.size, -1)]
        lifted = np.concatenate(estimator.lift(sequences)).astype(np.float64)
        return 1000 * float(keypoint_mpjpe(lifted, joints, everywhere, alignment="procrustes"))

    return Figures(
        walks=walks,
        frames=len(crops),
        pck_torso=float((error < 0.1 * torso)[seen].mean()),
        pck_box=float((error < 0.1 * HEIGHT)[seen].mean()),
        error_2d=float(np.median(error[seen]) / HEIGHT),
        pa_mpjpe=lifted_error(found),
        pa_mpjpe_true_2d=lifted_error(true),
        crops_per_second=len(crops) / seconds,
    )


def _render_one(seed: int, key: int, camera: int, frames: int, fps: float) -> RenderedTracklet:
    """Render a walk, its crops as JPEG leaves them."""
    walk = render_walk(seed, key, camera, frames=frames, height=HEIGHT, width=WIDTH, fps=fps)
    crops = [cv2.imdecode(cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 90])[1], 1) for crop in walk.crops]
    return replace(walk, crops=np.stack(crops).astype(np.uint8, copy=False))


def _render(
    task: str, seed: int, keys: Sequence[int], frames: int, workers: int, say: Report
) -> Iterator[RenderedTracklet]:
    """Render one walk of each key, at a frame rate of its own, past a camera that four keys share."""
    rates = np.random.default_rng([seed, frames]).uniform(8, 26, len(keys))
    jobs = (delayed(_render_one)(seed, key, 1 + key // 4, frames, fps) for key, fps in zip(keys, rates, strict=True))
    for done, walk in enumerate(Parallel(n_jobs=workers, return_as="generator")(jobs), start=1):
        say(task, done, len(keys), "")
        yield walk


def _inside(keypoints: NDArray[np.floating]) -> NDArray[np.bool_]:
    return np.all((keypoints > -0.5) & (keypoints < [WIDTH - 0.5, HEIGHT - 0.5]), axis=-1)


def _estimate(spec: EstimatorSpec, walks: Iterator[RenderedTracklet]) -> Iterator[_Walk]:
    estimator = PoseEstimator(spec)
    for walk in walks:
        keypoints = estimator.detect(list(walk.crops[..., ::-1]))
        yield _Walk(walk.without_crops(), keypoints)


class _Crops(Dataset[dict[str, Any]]):
    """Rendered crops through the 2D model's training pipeline."""

    def __init__(self, walks: Sequence[RenderedTracklet], config: Any, meta: dict[str, Any]) -> None:
        from mmengine.dataset import Compose

        self._crops = np.concatenate([walk.crops for walk in walks])
        self._keypoints = np.concatenate([walk.coco for walk in walks])
        self._pipeline = Compose(config.train_dataloader.dataset.pipeline)
        self._meta = meta

    def __len__(self) -> int:
        return len(self._crops)

    def __getitem__(self, index: int) -> dict[str, Any]:
        keypoints = self._keypoints[index]
        item = {
            "img": np.ascontiguousarray(self._crops[index, ..., ::-1]),
            "bbox": np.array([[0, 0, WIDTH, HEIGHT]], dtype=np.float32),
            "bbox_score": np.ones(1, dtype=np.float32),
            "keypoints": keypoints[None].astype(np.float32),
            "keypoints_visible": _inside(keypoints)[None].astype(np.float32),
            **self._meta,
        }
        return self._pipeline(item)


class _Windows(Dataset[dict[str, Any]]):
    """Windows of estimated walks through the lifter's training pipeline; indices are (walk, length, seed)."""

    def __init__(self, walks: Sequence[_Walk], config: Any, meta: dict[str, Any]) -> None:
        from mmengine.dataset import Compose

        view = demo().view
        if view is None:
            raise PoseCacheError("the demo estimator's lifter is trained for a view, but its spec names none")
        self._walks, self._view = walks, view
        self._pipeline = Compose(config.train_dataloader.dataset.pipeline)
        self._meta = meta

    def __len__(self) -> int:
        return len(self._walks)

    def __getitem__(self, index: tuple[int, int, int]) -> dict[str, Any]:
        number, length, seed = index
        rng = np.random.default_rng(seed)
        walk = self._walks[number]
        step = int(rng.integers(1, 1 + max(1, min(3, len(walk.keypoints) // length))))
        start = rng.integers(0, len(walk.keypoints) - step * (length - 1))
        rows = slice(start, start + step * (length - 1) + 1, step)
        keypoints = coco_to_h36m(walk.keypoints[rows, :, :2])
        joints = walk.truth.joints3d[rows]

        # Into the picture that the lifter sees, the keypoints as the estimator places them; boxes vary in tightness.
        view = replace(self._view, crop=self._view.crop * rng.uniform(0.85, 1.15))
        keypoints, image = place_in_view(keypoints, np.tile([WIDTH, HEIGHT], (length, 1)), view)
        zoom = view.crop / max(WIDTH, HEIGHT)
        scale = zoom * np.mean(walk.truth.intrinsics[rows, 0, 0] / joints[:, 0, 2])
        target = (joints - joints[:, :1]) * scale / 1000  # the codec counts images in thousands of pixels
        if rng.random() < 0.5:
            keypoints = mirror(keypoints - view.image / 2, H36M17) + view.image / 2
            target = mirror(target, H36M17)
        item = {
            "keypoints": keypoints.astype(np.float32),
            "keypoints_visible": np.ones(keypoints.shape[:2], dtype=np.float32),
            "lifting_target": target.astype(np.float32),
            "lifting_target_visible": np.ones(target.shape[:2], dtype=np.float32),
            "factor": np.ones(length, dtype=np.float32),
            "camera_param": {"w": image[0], "h": image[1]},
            **self._meta,
        }
        return self._pipeline(item)


class _WindowBatches(Sampler[list[tuple[int, int, int]]]):
    """Endless batches of windows of one length, lengths drawn anew for each batch; long ones are rarer."""

    def __init__(self, lengths: Sequence[int], window: int, frames: int, rng: np.random.Generator) -> None:
        self._available = np.asarray(lengths)
        self._window, self._frames, self._rng = window, frames, rng

    def __len__(self) -> int:
        return len(self._available)  # MMEngine asks; training counts iterations, not epochs

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        while True:
            longest = min(self._window, int(self._available.max()))
            length = int(np.clip(np.round(np.exp(self._rng.uniform(np.log(2), np.log(longest * 1.3)))), 2, longest))
            able = np.flatnonzero(self._available >= length)
            chosen = self._rng.choice(able, max(4, self._frames // length))
            yield [(int(walk), length, int(self._rng.integers(2**31))) for walk in chosen]


def _train_pose2d(walks: Sequence[RenderedTracklet], out: Path, iterations: int | None, say: Report) -> None:
    from mmengine.dataset import InfiniteSampler, pseudo_collate

    config, model = _build(FOLDER / "pose2d.py")
    model.to(memory_format=torch.channels_last)  # a third faster on CPUs
    loader = DataLoader(
        _Crops(walks, config, model.dataset_meta),
        batch_size=config.train_dataloader.batch_size,
        sampler=InfiniteSampler(range(sum(len(walk.crops) for walk in walks)), seed=0),
        collate_fn=pseudo_collate,
    )
    _fit("training the 2D estimator", config, model, loader, out, iterations, say)


def _train_lifter(walks: Sequence[_Walk], out: Path, iterations: int | None, say: Report) -> None:
    from mmengine.dataset import pseudo_collate

    config, model = _build(FOLDER / "lifter.py")
    lengths = [len(walk.keypoints) for walk in walks]
    batches = _WindowBatches(lengths, config.window, config.frames_per_batch, np.random.default_rng(0))
    loader = DataLoader(_Windows(walks, config, model.dataset_meta), batch_sampler=batches, collate_fn=pseudo_collate)
    _fit("training the lifter", config, model, loader, out, iterations, say)


def _build(path: Path) -> tuple[Any, Any]:
    from mmengine.config import Config
    from mmpose.apis import init_model

    torch.manual_seed(0)
    config = Config.fromfile(path)
    return config, init_model(config, None, "cpu")


def _fit(
    task: str, config: Any, model: Any, loader: DataLoader[Any], out: Path, iterations: int | None, say: Report
) -> None:
    """Run MMEngine's Runner as the config says, and write the weights."""
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

    class Progress(Hook):
        def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
            done, total = runner.iter + 1, runner.max_iters
            if done % 50 == 0 or done == total:
                say(task, done, total, ", ".join(f"{key} {float(value):.4f}" for key, value in outputs.items()))

    total = iterations or config.train_cfg.max_iters
    shrink = total / config.train_cfg.max_iters
    schedule = [dict(step) for step in config.param_scheduler]
    for step in schedule:
        step.update({key: max(1, int(step[key] * shrink)) for key in ("begin", "end", "T_max") if step.get(key)})
    with tempfile.TemporaryDirectory() as scratch:
        runner = Runner(
            model=model,
            work_dir=scratch,
            train_dataloader=loader,
            train_cfg={**config.train_cfg, "max_iters": total},
            optim_wrapper=config.optim_wrapper,
            param_scheduler=schedule,
            default_scope=config.default_scope,
            default_hooks={"checkpoint": None, "logger": None, "sampler_seed": None},
            custom_hooks=[Progress()],
            randomness={"seed": 0},
            log_level="ERROR",
            experiment_name=f"{out.stem}_{time.monotonic_ns()}",
        )
        runner.train()
    state = {name: value.half() if value.is_floating_point() else value for name, value in model.state_dict().items()}
    save_file({name: value.contiguous() for name, value in state.items()}, out)
