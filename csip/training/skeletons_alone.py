"""Skeletons alone: train an encoder of short windows for re-identification.

sequences -> random windows of f frames -> augment -> encoder -> descriptor (and, of the graph transformer, frames and joints)
loss = contrast * (lambda GPC + (1 - lambda) STPR) + classifier * cosine cross-entropy

The epoch is chosen on training sequences that were held out; probe and gallery are never looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from csip.config import Settings, SkeletonEncoderSettings
from csip.data.sequences import SkeletonDataset, SkeletonSequence, fingerprint_sequences, hold_out_sequences, windows
from csip.errors import CsipError
from csip.files import digest
from csip.models.checkpoints import load_model
from csip.models.factory import empty_encoder
from csip.models.skeleton_encoder import SkeletonGraphTransformer
from csip.models.skeleton_reid import (
    CosineClassifier,
    Embedded,
    GraphWindows,
    WindowNetwork,
    augment,
    masked_reconstruction,
    prototype_contrast,
)
from csip.monitor import Monitor
from csip.retrieval.skeletons_alone import centred, describe_windows, embed_windows, rank_windows
from csip.runtime import make_fabric, seed_torch, to_device
from csip.training.keeper import Keeper, averaged
from csip.training.results import SkeletonResult, Validation
from csip.training.run_folder import RunFolder
from csip.training.schedules import cosine
from pose_cache.joints import JointSet, joint_set

VALIDATION_GALLERY = 12_000  # windows; ranking against more takes longer than an epoch and chooses the same


def train_skeleton(
    dataset: SkeletonDataset,
    settings: Settings,
    folder: Path,
    monitor: Monitor,
    overwrite: bool = False,
    init: Path | None = None,
) -> SkeletonResult:
    """Train on the data set's training sequences; write ``model.safetensors`` and ``metrics.json`` into ``folder``.

    Parameters
    ----------
    init
        A stage-1 checkpoint to start the graph transformer from; it may be of another joint set.

    Raises
    ------
    CsipError
        Data or checkpoint do not fit, the folder holds another run, a loss is non-finite.
    """
    training = prepare(dataset, settings, folder, monitor, overwrite, init)
    for epoch in training.keeper.epochs_left():
        train_epoch(training, epoch)
    return finish(training)


@dataclass
class Training:
    """A run on skeletons alone: what `prepare` has made and `train_epoch` changes."""

    settings: Settings
    fabric: Fabric
    keeper: Keeper
    learner: Learner
    optimizer: torch.optim.Optimizer
    source: TrainingWindows
    validation: HeldOut | None
    held_out: int
    description: dict[str, Any]


def prepare(
    dataset: SkeletonDataset, settings: Settings, folder: Path, monitor: Monitor, overwrite: bool, init: Path | None
) -> Training:
    """Hold out, make the encoder and its optimizer, resume where there is something to resume."""
    chosen = settings.skeleton_training
    fabric = make_fabric(settings.runtime)
    if fabric.world_size > 1:
        raise CsipError(f"skeletons alone: expected one process, found {fabric.world_size}; start without torchrun")
    train, held = hold_out_sequences(dataset.train, chosen.val_share)
    if short := [s for s in held if len(s.joints) < chosen.frames]:
        held = tuple(s for s in held if len(s.joints) >= chosen.frames)
        monitor.say(
            f"{len(short):,} held-out sequences are shorter than a window of {chosen.frames} frames"
            + ("" if held else ": nothing is held out, and the last epoch is kept")
        )
    joints = joint_set(dataset.joint_set)
    init = init / "model.safetensors" if init is not None and init.is_dir() else init
    torch.manual_seed(settings.runtime.seed)
    encoder = _encoder(joints, settings, init)
    data = {"sequences": fingerprint_sequences(dataset.train), "init": digest(init) if init is not None else "none"}
    run = RunFolder(folder, settings, data, unread=("stage1", "stage2"))
    state = run.open(overwrite, fabric)

    people = {pid: label for label, pid in enumerate(sorted({s.pid for s in train}))}
    source = TrainingWindows(train, people, chosen.frames, joints, fabric.device)
    if encoder is not None:
        centred_train = (s.joints - s.joints[:, joints.root : joints.root + 1] for s in train)
        encoder.calibrate(centred_train, slice(chosen.frames))
        model: GraphWindows | WindowNetwork = GraphWindows(encoder, chosen.embedding)
    else:
        model = WindowNetwork(joints, chosen.frames, chosen.embedding, chosen.window)
    learner = Learner(model, CosineClassifier(len(people), chosen)).to(fabric.device)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=chosen.lr, weight_decay=chosen.weight_decay)
    _, optimizer = fabric.setup(learner, optimizer)
    average = averaged(learner, chosen.ema, use_buffers=True)
    keeper = Keeper(run, fabric, monitor, "skeleton", learner, optimizer, average, _model_of)
    keeper.start(chosen.epochs, state)
    description = {
        "kind": "skeleton",
        "dataset": dataset.name,
        "joint_set": dataset.joint_set,
        "people": len(people),
        **data,
    }
    if isinstance(model, GraphWindows):
        description["width"] = model.encoder.width
        description["encoder"] = _encoder_settings(settings, init).model_dump(mode="json")
    validation = HeldOut(train, held, chosen.frames, joints) if held else None
    return Training(settings, fabric, keeper, learner, optimizer, source, validation, len(held), description)


def train_epoch(training: Training, epoch: int) -> None:
    """Train for one epoch and validate."""
    settings, chosen = training.settings, training.settings.skeleton_training
    keeper, source, learner, device = training.keeper, training.source, training.learner, training.fabric.device
    seed_torch(settings.runtime.seed, epoch)
    prototypes = _prototypes(learner.model, source, device) if chosen.contrast and chosen.lambda_gpc else None
    learner.train()
    rate, steps = chosen.lr, len(source) // chosen.batch + (len(source) % chosen.batch > 1)
    for step, (x, labels) in enumerate(source.draw(chosen.batch, chosen.augment.stride)):
        rate = chosen.lr * cosine(
            epoch * steps + step,
            epochs=chosen.epochs * steps,
            warmup=chosen.warmup_epochs * steps,
            floor=chosen.min_lr / chosen.lr,
        )
        for group in training.optimizer.param_groups:
            group["lr"] = rate
        reconstruct = step % chosen.reconstruct_every == 0
        with training.fabric.autocast():
            x = augment(x, source.joint_set, chosen.augment)
            terms = learner.losses(x, labels, prototypes, reconstruct, settings)
        loss = torch.stack([weight_of(name, settings) * term for name, term in terms.items()]).sum()
        training.optimizer.zero_grad()
        training.fabric.backward(loss)
        training.optimizer.step()
        keeper.end_step({**terms, "total": loss})
    means = keeper.end_steps()
    scalars, note = {**means, "lr": rate}, f"loss {means['total']:.3f}"
    if training.validation is not None:
        scores = training.validation.score(keeper.kept, device)
        keeper.validated(scores, keep_best=True)
        scalars |= {f"validation_{name}": value for name, value in scores.items()}
        note += f", held-out walks mAP {scores['map']:.1%}"
    keeper.end_epoch(scalars, note)


def finish(training: Training) -> SkeletonResult:
    """Write the model, the best one on held-out sequences where there are some, and the metrics."""
    keeper, progress = training.keeper, training.keeper.progress
    result = SkeletonResult(
        loss=progress.means["total"],
        chosen_epoch=progress.best["epoch"] if progress.validation else progress.epoch,
        validation=tuple(Validation.of(scores) for scores in progress.validation),
        held_out_sequences=training.held_out,
        seconds=keeper.seconds(),
    )
    keeper.finish(training.description, result.as_dict())
    return result


class Learner(nn.Module):
    """The model and what only training needs."""

    def __init__(self, model: GraphWindows | WindowNetwork, classifier: CosineClassifier) -> None:
        super().__init__()
        self.model = model
        self.classifier = classifier

    def losses(
        self, joints: Tensor, labels: Tensor, prototypes: Tensor | None, reconstruct: bool, settings: Settings
    ) -> dict[str, Tensor]:
        """Return the terms of the loss that have a weight: ``classifier``, ``gpc``, and to `reconstruct` ``stpr``."""
        chosen = settings.skeleton_training
        embedded: Embedded = self.model(joints)
        terms = {}
        if chosen.classifier:
            terms["classifier"] = self.classifier(embedded.window, labels)
        if prototypes is not None:
            terms["gpc"] = prototype_contrast(embedded, prototypes, labels, chosen)
        if reconstruct and chosen.contrast and chosen.lambda_gpc < 1:
            assert isinstance(self.model, GraphWindows)
            terms["stpr"] = masked_reconstruction(self.model, joints, chosen)
        return terms


def weight_of(term: str, settings: Settings) -> float:
    """Return the weight of a term of the loss."""
    chosen = settings.skeleton_training
    share = {"gpc": chosen.lambda_gpc, "stpr": 1 - chosen.lambda_gpc}
    return chosen.classifier if term == "classifier" else chosen.contrast * share[term]


class TrainingWindows:
    """All training frames on the device, and random windows of them."""

    def __init__(
        self,
        sequences: Sequence[SkeletonSequence],
        people: dict[int, int],
        frames: int,
        joints: JointSet,
        device: torch.device,
    ) -> None:
        self.sequences, self.frames, self.joint_set, self.root = sequences, frames, joints, joints.root
        _, owners = windows(sequences, frames)  # refuses sequences that are too short
        self.owners = torch.from_numpy(owners)
        self.joints = torch.from_numpy(centred(np.concatenate([s.joints for s in sequences]), joints.root)).to(device)
        self.lengths = torch.tensor([len(s.joints) for s in sequences])
        self.starts = self.lengths.cumsum(0) - self.lengths
        self.cut = torch.tensor([s.cut is not None for s in sequences])
        self.labels = torch.tensor([people[s.pid] for s in sequences])

    def __len__(self) -> int:
        return len(self.owners)

    def draw(self, batch: int, stride: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield an epoch: as many windows of each sequence as fit into it, at random places, (B, T, J, 3) and labels (B,).

        Where a data set has cut its windows they are taken as they are. A last batch of one window is left out.
        """
        for rows in self.owners[torch.randperm(len(self))].split(batch):
            if len(rows) < 2:
                continue
            lengths = self.lengths[rows]
            most = ((lengths - 1) // max(self.frames - 1, 1)).clamp(min=1, max=stride)
            step = 1 + (torch.rand(len(rows)) * most).long().clamp(max=most - 1)
            step[self.cut[rows]] = 1
            places = lengths - step * (self.frames - 1)
            first = (torch.rand(len(rows)) * places).long().clamp(max=places - 1)
            first[self.cut[rows]] = first[self.cut[rows]] // self.frames * self.frames
            index = (self.starts[rows] + first)[:, None] + step[:, None] * torch.arange(self.frames)
            device = self.joints.device
            yield self.joints[to_device(index, device)], to_device(self.labels[rows], device)


class HeldOut:
    """Held-out training sequences, asked among the windows that train."""

    def __init__(
        self, train: Sequence[SkeletonSequence], held: Sequence[SkeletonSequence], frames: int, joints: JointSet
    ) -> None:
        self.probe, owners = windows(held, frames)
        self.probe_ids = np.array([s.pid for s in held])[owners]
        self.gallery, owners = windows(train, frames)
        self.gallery_ids = np.array([s.pid for s in train])[owners]
        if len(self.gallery) > VALIDATION_GALLERY:
            some = np.linspace(0, len(self.gallery) - 1, VALIDATION_GALLERY).astype(np.int64)
            self.gallery, self.gallery_ids = self.gallery[some], self.gallery_ids[some]
        self.root = joints.root

    def score(self, model: nn.Module, device: torch.device) -> dict[str, float]:
        """Return ``rank1`` and ``map``, fractions."""
        scores = rank_windows(
            embed_windows(model, self.probe, self.root, device),
            self.probe_ids,
            embed_windows(model, self.gallery, self.root, device),
            self.gallery_ids,
            device,
        )
        return {"rank1": scores.cmc[1], "map": scores.map}


@torch.no_grad()
def _prototypes(model: nn.Module, source: TrainingWindows, device: torch.device) -> Tensor:
    """Return the centroid of each person's training windows, (N, E), seen in eval mode."""
    joints, owners = windows(source.sequences, source.frames)
    labels = source.labels[torch.from_numpy(owners)].to(device)
    embedded = torch.cat(describe_windows(model, joints, source.root, device))
    sums = embedded.new_zeros(int(source.labels.max()) + 1, embedded.shape[1]).index_add_(0, labels, embedded)
    return sums / torch.bincount(labels)[:, None]


def _encoder_settings(settings: Settings, init: Path | None) -> SkeletonEncoderSettings:
    if init is None:
        return settings.skeleton_encoder
    _, description = load_model(init, "stage1")
    return Settings.model_validate(description["settings"]).skeleton_encoder


def _encoder(joints: JointSet, settings: Settings, init: Path | None) -> SkeletonGraphTransformer | None:
    """Make the graph transformer where the settings want one: as stage 1 left it, or untrained."""
    chosen = settings.skeleton_training
    if chosen.encoder == "window":
        if init is not None:
            raise CsipError(
                f"{init}: a stage-1 checkpoint starts the graph transformer, but skeleton_training.encoder is window; set "
                "skeleton_training.encoder=graph and skeleton_training.contrast=1",
                parameter="settings",
            )
        return None
    if init is None:
        return empty_encoder(joints.name, chosen.width, settings)
    tensors, description = load_model(init, "stage1")
    trained = Settings.model_validate(description["settings"])
    encoder = empty_encoder(joints.name, description["width"], trained)
    part = {name.removeprefix("encoder."): t for name, t in tensors.items() if name.startswith("encoder.")}
    of_joints = {"encoding", "mean_length", "length_spread", "mean_spectrum", "spectrum_spread"}
    if description["joint_set"] != joints.name:
        of_joints |= {"embed_motion.0.weight", "embed_motion.0.bias"}
    # Nothing else depends on the joint set; what does is measured, or learnt, anew.
    part = {name: tensor for name, tensor in part.items() if name not in of_joints}
    missing, unexpected = encoder.load_state_dict(part, strict=False)
    if not of_joints.issuperset(missing) or unexpected:
        raise CsipError(f"{init}: its tensors are not those of its settings: {missing} missing, {unexpected} unknown")
    return encoder


def _model_of(learner: nn.Module) -> nn.Module:
    assert isinstance(learner, Learner)
    return learner.model
