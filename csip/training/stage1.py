"""Stage 1: align the skeleton encoder with the frozen image encoder by contrast.

frames    -> frozen V -> projected CLS, one a frame, cached      v = mean over the clip's frames
skeletons -> S        -> CLS, one a frame                        s = mean over the clip's frames
loss = SupCon(v -> s) + SupCon(s -> v) + lambda_skeletons SupCon(s -> s)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F

from csip.config import Settings
from csip.data.clips import sample_dense
from csip.data.dataset import Dataset, Tracklet, fingerprint, hold_out
from csip.data.fingerprints import TrainingData, check_skeletons
from csip.data.skeletons import Skeletons, load_skeletons
from csip.errors import CsipError
from csip.models.factory import empty_encoder
from csip.models.losses import LearnableTemperature, contrast_within, supervised_contrastive
from csip.models.skeleton_encoder import SkeletonGraphTransformer
from csip.models.vision import VisionEncoder, create_vision
from csip.monitor import Monitor
from csip.retrieval.metrics import chance, rank
from csip.runtime import gather, make_fabric, only_first, seed_torch, share, share_out, to_device
from csip.training.clip_arrays import TrainingArrays
from csip.training.frame_features import FeatureCache, frame_features
from csip.training.keeper import Keeper
from csip.training.results import Retrieval, Stage1Result
from csip.training.run_folder import RunFolder
from csip.training.schedules import cosine
from pose_cache.pieces import Spread

FEATURES = "features.h5"
UNREAD = ("stage2", "skeleton_training")  # sections of the settings that stage 1 does not read


def train_stage1(
    dataset: Dataset, skeleton_path: Path, settings: Settings, folder: Path, monitor: Monitor, overwrite: bool = False
) -> Stage1Result:
    """Train the skeleton encoder; write ``model.safetensors`` and ``metrics.json`` into ``folder``.

    Raises
    ------
    CsipError
        Data that do not fit together, a folder that holds another run, a non-finite loss.
    """
    training = prepare(dataset, skeleton_path, settings, folder, monitor, overwrite)
    for epoch in training.keeper.epochs_left():
        train_epoch(training, epoch)
    return finish(training)


class Pretraining(nn.Module):
    """What stage 1 trains: the skeleton encoder and the temperature of the contrast."""

    def __init__(self, encoder: SkeletonGraphTransformer, temperature: LearnableTemperature) -> None:
        super().__init__()
        self.encoder, self.temperature = encoder, temperature

    def forward(self, joints: Tensor, valid: Tensor) -> Tensor:
        """Return the features (B, C) of clips (B, T, J, 3) with valid frames (B, T)."""
        return SkeletonGraphTransformer.pool(self.encoder(joints, valid), valid)


@dataclass
class Training:
    """A run of stage 1: what `prepare` has made and `train_epoch` changes."""

    settings: Settings
    fabric: Fabric
    keeper: Keeper
    model: Pretraining
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    clips: TrainingArrays
    held: HeldOut | None
    description: dict[str, Any]


def prepare(
    dataset: Dataset, skeleton_path: Path, settings: Settings, folder: Path, monitor: Monitor, overwrite: bool
) -> Training:
    """Read the data, embed the frames, make the encoder, resume where there is something to resume."""
    chosen = settings.stage1
    fabric = make_fabric(settings.runtime)
    monitor = only_first(monitor, fabric)
    check_step(settings)
    train, held = hold_out(dataset.train, settings.dataset.val_ids)
    data = TrainingData.of(dataset, skeleton_path).as_dict()
    check_skeletons(skeleton_path, dataset.train, dataset.root)
    run = RunFolder(folder, settings, data, skeleton_path, unread=UNREAD)
    state = run.open(overwrite, fabric)

    skeletons = load_skeletons(skeleton_path, train, settings.clips.max_gap)
    features = embed_training_frames(dataset, settings, folder, fabric, monitor)
    encoder = empty_encoder(skeletons.joint_set.name, features[0].shape[1], settings)
    step = settings.clips.stride or 1
    clip = slice(None, settings.clips.frames * step, step)
    encoder.calibrate((j[v] for j, v in zip(skeletons.joints, skeletons.valid, strict=True)), clip)
    model = Pretraining(encoder, LearnableTemperature(chosen.tau, learnable=chosen.normalize)).to(fabric.device)
    optimizer = torch.optim.Adam(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=chosen.lr,
        weight_decay=chosen.weight_decay,
        fused=settings.runtime.precision != "16-mixed",
    )
    wrapped, optimizer = fabric.setup(model, optimizer)
    keeper = Keeper(run, fabric, monitor, "stage 1", model, optimizer)
    keeper.start(chosen.epochs, state)
    unseen = load_skeletons(skeleton_path, held, settings.clips.max_gap) if held else None
    clips = TrainingArrays.of(train, features[: len(train)], skeletons, settings, fabric.device)
    if alone := clips.alone(settings):
        monitor.say(
            f"cameras {', '.join(map(str, alone))} have one clip each, which no batch of one camera can hold: left out of stage 1"
        )
    return Training(
        settings,
        fabric,
        keeper,
        model,
        wrapped,
        optimizer,
        clips,
        HeldOut(held, features[len(train) :], unseen) if unseen is not None else None,
        {
            "kind": "stage1",
            "dataset": dataset.name,
            "identities": fingerprint(train),
            "joint_set": skeletons.joint_set.name,
            "width": encoder.width,
            **data,
        },
    )


def check_step(settings: Settings) -> None:
    """Refuse an encoder that sees frequencies where the frames of a clip are no fixed step apart."""
    frequencies = settings.skeleton_encoder.frequencies
    if frequencies and settings.clips.stride is None:
        raise CsipError(
            f"skeleton_encoder.frequencies is {frequencies}: expected clips.stride, the step between two frames of a clip, found "
            "none; set clips.stride, or skeleton_encoder.frequencies=0"
        )


def train_epoch(training: Training, epoch: int) -> None:
    """Train for one epoch; measure retrieval where it is due."""
    chosen, keeper = training.settings.stage1, training.keeper
    seed_torch(training.settings.runtime.seed, epoch, process=training.fabric.global_rank)
    factor = cosine(epoch, epochs=chosen.epochs, warmup=chosen.warmup_epochs, floor=chosen.min_lr / chosen.lr)
    for group in training.optimizer.param_groups:
        group["lr"] = chosen.lr * factor
    training.wrapped.train()
    for rows, labels in training.clips.draw(training.settings, epoch):
        terms = contrast(training, rows, labels)
        training.optimizer.zero_grad()
        training.fabric.backward(terms["contrastive"] + chosen.lambda_skeletons * terms.get("skeletons", 0.0))
        training.optimizer.step()
        keeper.end_step(terms)
    means = keeper.end_steps()
    mean = means["contrastive"]
    scalars = {
        "loss": mean,
        **means,
        "lr": chosen.lr * factor,
        "temperature": 1 / training.model.temperature.scale().item(),
    }
    if training.held is not None and ((epoch + 1) % chosen.val_every == 0 or epoch + 1 == chosen.epochs):
        scores = training.held.retrieval(training.model.encoder, training.settings, training.fabric)
        keeper.validated(scores, keep_best=False)
        scalars |= {"retrieval_rank1": scores["rank1"], "retrieval_map": scores["map"]}
    keeper.end_epoch(scalars, f"loss {mean:.3f}")


def contrast(training: Training, rows: np.ndarray, labels: Tensor) -> dict[str, Tensor]:
    """Return the loss terms of a batch of clips (B, T), to which each process has contributed the features of its share."""
    fabric, size = training.fabric, len(rows)
    # Every process gets as many clips; the last ones repeat a clip, whose features are then left out of the loss.
    mine = -(-size // fabric.world_size)
    padded = np.concatenate([rows, rows[:1].repeat(mine * fabric.world_size - size, axis=0)])
    image, joints, valid = training.clips.read(
        padded[fabric.global_rank * mine : (fabric.global_rank + 1) * mine], fabric.device
    )
    skeleton = training.wrapped(joints, valid)
    if training.settings.stage1.normalize:
        image, skeleton = F.normalize(image, dim=1), F.normalize(skeleton, dim=1)
    image, skeleton = gather(fabric, image)[:size], gather(fabric, skeleton)[:size]
    labels, scale = to_device(labels, fabric.device), training.model.temperature.scale()
    terms = {"contrastive": supervised_contrastive(image, skeleton, labels, scale)}
    if training.settings.stage1.lambda_skeletons:
        terms["skeletons"] = contrast_within(skeleton, labels, scale)
    return terms


def finish(training: Training) -> Stage1Result:
    """Write the encoder and the metrics."""
    keeper, scores = training.keeper, training.keeper.progress.validation
    retrieval = Retrieval(**{k: v for k, v in scores[-1].items() if k != "epoch"}) if scores else None
    result = Stage1Result(keeper.progress.means["contrastive"], retrieval, keeper.seconds())
    keeper.finish(training.description, result.as_dict(), training.model.state_dict())
    return result


def embed_training_frames(
    dataset: Dataset, settings: Settings, folder: Path, fabric: Fabric, monitor: Monitor
) -> list[np.ndarray]:
    """Return what the frozen image encoder says of the frames of all training tracklets, held-out ones last.

    It is kept in ``features.h5`` in the folder of the stage-1 run.

    Returns
    -------
    list of ndarray, each (T, C) float32
        One array a tracklet.
    """
    train, held = hold_out(dataset.train, settings.dataset.val_ids)
    vision = frozen_encoder(settings)
    return frame_features(folder / FEATURES, vision, dataset.root, train + held, settings, fabric, monitor)


def fill_features(
    dataset: Dataset, settings: Settings, folder: Path, spread: Spread, fabric: Fabric, monitor: Monitor
) -> list[np.ndarray] | None:
    """Do what `embed_training_frames` does before the training starts, by whoever `spread` says.

    Returns
    -------
    list of ndarray or None
        As `embed_training_frames`; None after a share, which leaves parts alone.

    Raises
    ------
    PoseCacheError
        Somebody else is writing the file, a worker died, or shares that are to be merged are missing.
    """
    train, held = hold_out(dataset.train, settings.dataset.val_ids)
    vision = frozen_encoder(settings)
    kept = FeatureCache(folder / FEATURES, vision, dataset.root, train + held, settings, fabric.device)
    features = kept.read()
    if features is None:
        create = partial(frozen_encoder, settings)
        share_out(fabric, spread, lambda chosen: kept.fill(chosen, monitor, create))
        features = kept.read() if spread.share is None else None
    return features


def frozen_encoder(settings: Settings) -> VisionEncoder:
    """Make the image encoder as it is before training."""
    torch.manual_seed(settings.runtime.seed)
    size = settings.clips.height, settings.clips.width
    return create_vision(settings.vision.model, settings.vision.pretrained, size)


@torch.inference_mode()
def embed_skeletons(
    encoder: SkeletonGraphTransformer, skeletons: Skeletons, frames: int, stride: int = 1
) -> np.ndarray:
    """Embed whole tracklets: every frame, in clips of ``frames`` that are ``stride`` apart, averaged over the valid ones.

    Parameters
    ----------
    encoder
        On the device to compute on: moved here, its weights would become tensors that cannot be trained.

    Returns
    -------
    ndarray, shape (tracklets, C), float32
        Zero for a tracklet without a valid skeleton.
    """
    encoder.eval()
    device = encoder.scale.device
    result = []
    for joints, valid in zip(skeletons.joints, skeletons.valid, strict=True):
        clips = sample_dense(len(joints), frames, stride)
        tokens = encoder(torch.from_numpy(joints[clips]).to(device), torch.from_numpy(valid[clips]).to(device))
        cls = tokens[:, :, 0].float().cpu().numpy().reshape(clips.size, -1)
        # The last clip repeats frames; each frame counts once.
        once = np.unique(clips.reshape(-1), return_index=True)[1]
        weight = valid[clips].reshape(-1)[once][:, None]
        result.append((cls[once] * weight).sum(axis=0) / max(weight.sum(), 1))
    return np.stack(result)


@dataclass(frozen=True)
class HeldOut:
    """Held-out training tracklets, on which retrieval from skeletons to images is measured."""

    tracklets: Sequence[Tracklet]
    features: Sequence[np.ndarray]
    skeletons: Skeletons

    def retrieval(self, encoder: SkeletonGraphTransformer, settings: Settings, fabric: Fabric) -> dict[str, float]:
        """Rank the image features of the tracklets for each one's skeleton feature, other cameras only.

        Tracklets without a skeleton are no queries. Each process embeds its share.
        """
        frames, stride = settings.clips.frames, settings.clips.stride or 1
        bodies = np.stack(
            share(
                fabric,
                range(len(self.tracklets)),
                lambda mine: list(embed_skeletons(encoder, self.skeletons.subset(mine), frames, stride)),
            )
        )
        looks = np.stack([tracklet.mean(axis=0) for tracklet in self.features])
        known = self.skeletons.known()
        ids = np.array([t.pid for t in self.tracklets])
        cameras = np.array([t.camera for t in self.tracklets])
        unit = [x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (bodies, looks)]
        scores = rank(unit[0][known], ids[known], cameras[known], unit[1], ids, cameras)
        expected = chance(ids[known], cameras[known], ids, cameras)
        return {
            "rank1": scores.rank1,
            "map": scores.map,
            "queries": scores.valid_queries,
            "chance_rank1": expected.rank1,
            "chance_map": expected.map,
        }
