"""What predicts skeletons from images, fitted to a model that stage 2 has trained.

First poses, by ridge regression from the image encoder's tokens of some frames; then who moves how, from the predicted poses of
all training frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F

from csip.config import Settings
from csip.data.clips import sample_training
from csip.data.dataset import Tracklet
from csip.data.samplers import IdentityBatches
from csip.data.skeletons import Skeletons
from csip.models.losses import contrast_within
from csip.models.reid import ReIDModel
from csip.models.skeleton_prediction import MotionReader
from csip.models.vision import VisionOutput
from csip.monitor import Monitor
from csip.runtime import seed_torch, share
from csip.training.frame_features import embed_frames
from csip.training.prototypes import nearest
from csip.training.schedules import cosine

FRAMES = 8192  # that poses are fitted to: more hardly helps
RIDGES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)  # shares of the inputs' whole power
HELD_OUT = 5  # one identity in so many chooses among them
IDENTITIES, CLIPS = 32, 4  # of the reader's batches
LR, WEIGHT_DECAY, SCALE = 1e-3, 0.05, 16.0
NOISE, JITTER = 0.02, 0.01  # metres, for a clip and for a frame: the reader sees few people


def fit_prediction(
    model: ReIDModel,
    root: Path,
    tracklets: Sequence[Tracklet],
    skeletons: Skeletons,
    labels: np.ndarray,
    settings: Settings,
    fabric: Fabric,
    monitor: Monitor,
) -> None:
    """Fit ``model.prediction`` to training tracklets; it is the same in every process.

    Parameters
    ----------
    skeletons
        Of the tracklets, in their order.
    labels
        (tracklets,) identities.
    """
    assert model.prediction is not None
    prediction = model.prediction
    model.eval()
    if fabric.is_global_zero:
        chosen = choose_frames(skeletons.valid, FRAMES)
        names = [tracklets[i].frames[t] for i, t in chosen]
        tokens = embed_frames(
            model.vision, root, names, settings, fabric.device, monitor, "fitting predicted skeletons", _tokens
        )
        joints = torch.from_numpy(np.stack([skeletons.joints[i][t] for i, t in chosen])).to(fabric.device)
        people = torch.from_numpy(labels[[i for i, _ in chosen]]).to(fabric.device)
        poses = prediction.describe(model.skeleton.view(joints))
        weight, bias = fit_ridge(torch.from_numpy(tokens).to(fabric.device), poses, people)
        prediction.project.load_state_dict({"weight": weight, "bias": bias})
    _from_first(fabric, prediction.project)

    def predict(mine: Sequence[Tracklet]) -> list[np.ndarray]:
        frames = [frame for tracklet in mine for frame in tracklet.frames]
        found = embed_frames(
            model.vision, root, frames, settings, fabric.device, monitor, "predicting skeletons",
            lambda seen: prediction.poses(seen.tokens),
        )  # fmt: skip
        return np.split(found, np.cumsum([len(tracklet.frames) for tracklet in mine])[:-1])

    predicted = share(fabric, tracklets, predict)
    train_reader(prediction.reader, predicted, labels, nearest(model.pfu.visual), settings, fabric, monitor)
    _from_first(fabric, prediction.reader)


def _tokens(seen: VisionOutput) -> Tensor:
    return seen.tokens.flatten(1)


def _from_first(fabric: Fabric, module: torch.nn.Module) -> None:
    """Give every process what the first one has."""
    if fabric.world_size > 1:
        for tensor in module.state_dict().values():
            torch.distributed.broadcast(tensor, src=0)


# ---- poses -----------------------------------------------------------------------------------------------------------


def choose_frames(valid: Sequence[np.ndarray], count: int) -> list[tuple[int, int]]:
    """Choose about `count` frames that have a skeleton, spread evenly over all tracklets and over each of them.

    Returns
    -------
    list of (int, int)
        Tracklet and frame.
    """
    known = [i for i, seen in enumerate(valid) if seen.any()]
    if len(known) > count:
        known = [known[i] for i in np.linspace(0, len(known) - 1, count).astype(int)]
    chosen = []
    for i in known:
        frames = np.flatnonzero(valid[i])
        each = min(max(count // len(known), 1), len(frames))
        chosen += [(i, int(frames[k])) for k in np.linspace(0, len(frames) - 1, each).astype(int)]
    return chosen


def fit_ridge(inputs: Tensor, targets: Tensor, people: Tensor) -> tuple[Tensor, Tensor]:
    """Fit ``targets = inputs @ weight.T + bias`` by ridge regression, its strength chosen on people who are held out.

    Solved in its dual form, for far fewer frames than numbers in their tokens: ``weight = X' (X X' + r I)^-1 Y``.

    Parameters
    ----------
    inputs : Tensor
        (N, D) float32; overwritten, as a copy would be gigabytes.
    targets : Tensor
        (N, P) float32.
    people : Tensor
        (N,) identities.

    Returns
    -------
    weight, bias : Tensor
        (P, D) and (P,).
    """
    mean, spread = inputs.mean(dim=0), inputs.std(dim=0, correction=0)
    spread = torch.where(spread > 1e-6, spread, 1.0)
    seen, middle = inputs.sub_(mean).div_(spread), targets.mean(dim=0)
    kernel, wanted = seen @ seen.T, targets - middle
    held = people % HELD_OUT == 0
    ridge = RIDGES[len(RIDGES) // 2]
    if held.any() and not held.all():
        errors = []
        for strength in RIDGES:
            dual = _solve(kernel[~held][:, ~held], wanted[~held], strength)
            errors.append((kernel[held][:, ~held] @ dual - wanted[held]).square().mean().item())
        ridge = RIDGES[int(np.argmin(errors))]
    weight = (seen.T @ _solve(kernel, wanted, ridge)).T / spread
    return weight, middle - weight @ mean


def _solve(kernel: Tensor, wanted: Tensor, ridge: float) -> Tensor:
    """Return ``(kernel + r I)^-1 wanted``, r being a share of the kernel's trace."""
    strength = (ridge * kernel.trace()).clamp(min=1e-6)
    lower = torch.linalg.cholesky(kernel + strength * torch.eye(len(kernel), device=kernel.device))
    return torch.cholesky_solve(wanted, lower)


# ---- who moves how ---------------------------------------------------------------------------------------------------


def train_reader(
    reader: MotionReader,
    poses: Sequence[np.ndarray],
    labels: np.ndarray,
    neighbours: np.ndarray,
    settings: Settings,
    fabric: Fabric,
    monitor: Monitor,
) -> None:
    """Teach the reader of predicted poses who moves how, by contrast among people who look alike; every process does the same.

    Parameters
    ----------
    poses
        (T, P) of each training tracklet.
    labels
        (tracklets,) identities.
    neighbours
        (N, k) labels of those who look most alike.
    """
    seed, clips, steps = settings.runtime.seed, settings.clips, settings.stage2.reader_steps
    starts = np.cumsum([0, *(len(one) for one in poses)])
    frames, lengths = np.concatenate(poses), np.diff(starts)
    people, rng = torch.from_numpy(labels), np.random.default_rng(seed)

    def draw(tracklets: np.ndarray) -> Tensor:
        rows = starts[tracklets, None] + sample_training(lengths[tracklets], clips.frames, clips.stride, rng)
        return torch.from_numpy(frames[rows]).to(fabric.device)

    seed_torch(seed, 0)
    reader.measure(draw(np.arange(len(poses))))
    reader.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(reader.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
    batches = IdentityBatches(labels.tolist(), IDENTITIES, CLIPS, seed, neighbours=neighbours)
    done = 0
    while done < steps:
        batches.set_epoch(done)
        for batch in list(batches)[: steps - done]:
            tracklets = np.array([drawn.tracklet for drawn in batch])
            seen = draw(tracklets)
            moved = seen + NOISE * torch.randn_like(seen[:, :1]) + JITTER * torch.randn_like(seen)
            features = F.normalize(reader(moved), dim=1)
            loss = contrast_within(features, people[tracklets].to(fabric.device), SCALE)
            for group in optimizer.param_groups:
                group["lr"] = LR * cosine(done, epochs=steps, warmup=0, floor=0.01)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            done += 1
            monitor.progress("teaching who moves how", done, steps)
    reader.eval().requires_grad_(False)
