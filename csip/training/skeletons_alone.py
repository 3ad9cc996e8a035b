"""Skeletons alone: train an encoder of short windows to know people again on other walks.

sequences -> random windows of f frames -> augment -> encoder -> descriptor (and, of the graph transformer, frames and joints)
loss = contrast * (lambda GPC + (1 - lambda) STPR) + classifier * cosine cross-entropy

The epoch is chosen on training sequences that were held out; probe and gallery are never looked at.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter

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
from csip.retrieval.metrics import rank
from csip.runtime import make_fabric, seed_epoch
from csip.training.run_folder import RunFolder, check_finite
from csip.training.schedules import cosine
from pose_cache.joints import JointSet, joint_set

VALIDATION_GALLERY = 12_000  # windows; ranking against more takes longer than an epoch and chooses the same
EMBED_BATCH = 1024


def train_skeleton(
    dataset: SkeletonDataset,
    settings: Settings,
    folder: Path,
    monitor: Monitor,
    overwrite: bool = False,
    init: Path | None = None,
) -> dict[str, Any]:
    """Train on the data set's training sequences; write ``model.safetensors`` and ``metrics.json`` into ``folder``.

    Parameters
    ----------
    init
        A stage-1 checkpoint to start the graph transformer from; it may be of another joint set.

    Returns
    -------
    dict
        ``loss`` of the last epoch, ``chosen_epoch``, ``validation`` (epoch, rank1 and map of each), ``seconds``.

    Raises
    ------
    CsipError
        Data or checkpoint do not fit, the folder holds another run, a loss is no number.
    """
    started = time.monotonic()
    chosen = settings.skeleton_training
    fabric = make_fabric(settings.runtime)
    if fabric.world_size > 1:
        raise CsipError("skeletons alone are trained by one process: start `csip train-skeleton` without torchrun")
    train, held = hold_out_sequences(dataset.train, chosen.val_share)
    joints = joint_set(dataset.joint_set)
    init = init / "model.safetensors" if init is not None and init.is_dir() else init
    torch.manual_seed(settings.runtime.seed)
    encoder = _encoder(joints, settings, init)
    data = {"sequences": fingerprint_sequences(dataset.train), "init": digest(init) if init is not None else "none"}
    run = RunFolder(folder, settings, data)
    state = run.open(overwrite, fabric)

    people = {pid: label for label, pid in enumerate(sorted({s.pid for s in train}))}
    source = TrainingWindows(train, people, chosen.frames, joints, fabric.device)
    if encoder is not None:
        encoder.calibrate(s.joints - s.joints[:, joints.root : joints.root + 1] for s in train)
        model: GraphWindows | WindowNetwork = GraphWindows(encoder, chosen.embedding)
    else:
        model = WindowNetwork(joints, chosen.frames, chosen.embedding, chosen.window)
    learner = Learner(model, CosineClassifier(len(people), chosen))
    optimizer = torch.optim.AdamW(learner.parameters(), lr=chosen.lr, weight_decay=chosen.weight_decay)
    average = _average(learner, chosen.ema)
    first_epoch, history = 0, []
    if state is not None:
        learner.load_state_dict(state["learner"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.load_state_dict(state["average"])
        first_epoch, history = state["epoch"], state["history"]
        monitor.say(f"going on after epoch {first_epoch} of {chosen.epochs}")
    if average is not None:
        average.to(fabric.device)
    kept = _model_of(average.module if average is not None else learner)
    _, optimizer = fabric.setup(learner, optimizer)
    writer = SummaryWriter(str(folder), purge_step=first_epoch)
    validation = Validation(train, held, chosen.frames, joints) if held else None

    steps = len(source) // chosen.batch + (len(source) % chosen.batch > 1)
    loss_mean = float("nan")
    for epoch in range(first_epoch, chosen.epochs):
        seed_epoch(settings.runtime.seed, epoch)
        prototypes = _prototypes(model, source, fabric.device) if chosen.contrast and chosen.lambda_gpc else None
        learner.train()
        sums: dict[str, float] = {}
        for step, (x, labels) in enumerate(source.draw(chosen.batch, chosen.augment.stride)):
            rate = chosen.lr * cosine(
                epoch * steps + step,
                epochs=chosen.epochs * steps,
                warmup=chosen.warmup_epochs * steps,
                floor=chosen.min_lr / chosen.lr,
            )
            for group in optimizer.param_groups:
                group["lr"] = rate
            with fabric.autocast():
                terms = learner.losses(augment(x, joints, chosen.augment), labels, prototypes, settings)
            check_finite(terms, epoch, step)
            loss = torch.stack([weight_of(name, settings) * term for name, term in terms.items()]).sum()
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            if average is not None:
                average.update_parameters(learner)
            for name, value in (*terms.items(), ("total", loss)):
                sums[name] = sums.get(name, 0.0) + value.item() / steps
        loss_mean = sums["total"]
        for name, mean in sums.items():
            writer.add_scalar(f"skeleton/{name}", mean, epoch)
        writer.add_scalar("skeleton/lr", rate, epoch)
        note = f"loss {loss_mean:.3f}"
        if validation is not None:
            score = {"epoch": epoch + 1, **validation.score(kept, fabric.device)}
            history = [*history, score]
            for name in ("rank1", "map"):
                writer.add_scalar(f"skeleton/validation_{name}", score[name], epoch)
            note += f", held-out walks mAP {score['map']:.1%}"
            if score is max(history, key=lambda entry: (entry["map"], entry["epoch"])):
                _save_best(run.path / "best.pt", kept)
        run.save_state({
            "learner": learner.state_dict(),
            "optimizer": optimizer.state_dict(),
            "average": average.state_dict() if average is not None else {},
            "epoch": epoch + 1,
            "history": history,
        })  # fmt: skip
        monitor.progress("skeletons", epoch + 1, chosen.epochs, note)
    writer.close()

    best = kept.state_dict()
    if history:
        best = torch.load(run.path / "best.pt", map_location="cpu", weights_only=True)
    winner = max(history, key=lambda entry: (entry["map"], entry["epoch"]), default={"epoch": chosen.epochs})
    figures = {
        "loss": loss_mean,
        "chosen_epoch": winner["epoch"],
        "validation": history,
        "held_out_sequences": len(held),
        "seconds": time.monotonic() - started,
    }
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
    run.finish(best, description, figures)
    return figures


class Learner(nn.Module):
    """The model and what only training needs."""

    def __init__(self, model: GraphWindows | WindowNetwork, classifier: CosineClassifier) -> None:
        super().__init__()
        self.model = model
        self.classifier = classifier

    def losses(
        self, joints: Tensor, labels: Tensor, prototypes: Tensor | None, settings: Settings
    ) -> dict[str, Tensor]:
        """Return the terms of the loss that have a weight: ``classifier``, ``gpc``, ``stpr``."""
        chosen = settings.skeleton_training
        embedded: Embedded = self.model(joints)
        terms = {}
        if chosen.classifier:
            terms["classifier"] = self.classifier(embedded.window, labels)
        if prototypes is not None:
            terms["gpc"] = prototype_contrast(embedded, prototypes, labels, chosen)
        if chosen.contrast and chosen.lambda_gpc < 1:
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
        self.sequences, self.frames, self.root = sequences, frames, joints.root
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
            yield self.joints[index.to(self.joints.device)], self.labels[rows].to(self.joints.device)


class Validation:
    """Held-out training sequences, asked among the windows that train."""

    def __init__(
        self, train: Sequence[SkeletonSequence], held: Sequence[SkeletonSequence], frames: int, joints: JointSet
    ) -> None:
        held = [s for s in held if len(s.joints) >= frames]
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


def rank_windows(
    probe: np.ndarray, probe_ids: np.ndarray, gallery: np.ndarray, gallery_ids: np.ndarray, device: torch.device
) -> Any:
    """Rank all gallery entries for each probe entry: no camera is filtered, nothing is left out."""
    cameras = np.zeros(len(probe), np.int64), np.zeros(len(gallery), np.int64)
    return rank(probe, probe_ids, cameras[0], gallery, gallery_ids, cameras[1], camera_filter=False, device=device)


def centred(joints: np.ndarray, root: int) -> np.ndarray:
    """Subtract the root joint from each frame."""
    return joints - joints[..., root : root + 1, :]


def embed_windows(model: nn.Module, joints: np.ndarray, root: int, device: torch.device) -> np.ndarray:
    """Embed windows (W, T, J, 3), of any root; return (W, E) float32 of length one."""
    parts = _descriptors(model.to(device), joints, root, device)
    return np.concatenate([F.normalize(part, dim=1).cpu().numpy() for part in parts])


@torch.no_grad()
def _descriptors(model: nn.Module, joints: np.ndarray, root: int, device: torch.device) -> list[Tensor]:
    """Describe windows (W, T, J, 3), of any root, in eval mode: some (n, E) that make (W, E)."""
    model.eval()
    starts = range(0, len(joints), EMBED_BATCH)
    batches = (torch.from_numpy(centred(joints[start : start + EMBED_BATCH], root)) for start in starts)
    return [model(batch.to(device)).window for batch in batches]


@torch.no_grad()
def _prototypes(model: nn.Module, source: TrainingWindows, device: torch.device) -> Tensor:
    """Return the centroid of each person's training windows, (N, E), seen in eval mode."""
    joints, owners = windows(source.sequences, source.frames)
    labels = source.labels[torch.from_numpy(owners)].to(device)
    embedded = torch.cat(_descriptors(model, joints, source.root, device))
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
                f"{init}: a stage-1 checkpoint starts the graph transformer, but skeleton_training.encoder is window; add "
                "--set skeleton_training.encoder=graph --set skeleton_training.contrast=1"
            )
        return None
    if init is None:
        return empty_encoder(joints.name, chosen.width, settings)
    tensors, description = load_model(init, "stage1")
    trained = Settings.model_validate(description["settings"])
    encoder = empty_encoder(joints.name, description["width"], trained)
    part = {name.removeprefix("encoder."): t for name, t in tensors.items() if name.startswith("encoder.")}
    of_joints = {"encoding", "mean_length", "length_spread"}  # nothing else depends on the joint set
    part = {name: tensor for name, tensor in part.items() if name not in of_joints}
    missing, unexpected = encoder.load_state_dict(part, strict=False)
    if not of_joints.issuperset(missing) or unexpected:
        raise CsipError(f"{init}: its tensors are not those of its settings: {missing} missing, {unexpected} unknown")
    return encoder


def _average(learner: Learner, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None
    return AveragedModel(learner, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def _model_of(learner: nn.Module) -> nn.Module:
    assert isinstance(learner, Learner)
    return learner.model


def _save_best(path: Path, model: nn.Module) -> None:
    temporary = path.with_name(".best.tmp")
    torch.save(model.state_dict(), temporary)
    temporary.replace(path)


@dataclass(frozen=True)
class Trained:
    """A finished run of `train_skeleton`."""

    model: nn.Module
    settings: Settings
    description: dict[str, Any]


def load_skeleton_model(path: Path) -> Trained:
    """Load what `train_skeleton` wrote.

    Raises
    ------
    CsipError
        The file is missing, damaged or of another kind.
    """
    tensors, description = load_model(path, "skeleton")
    settings = Settings.model_validate(description["settings"])
    chosen = settings.skeleton_training
    model: nn.Module
    if chosen.encoder == "graph":
        encoder_settings = SkeletonEncoderSettings.model_validate(description["encoder"])
        encoder = empty_encoder(
            description["joint_set"],
            description["width"],
            settings.model_copy(update={"skeleton_encoder": encoder_settings}),
        )
        model = GraphWindows(encoder, chosen.embedding)
    else:
        model = WindowNetwork(joint_set(description["joint_set"]), chosen.frames, chosen.embedding, chosen.window)
    model.load_state_dict(tensors)
    return Trained(model.eval(), settings, description)
