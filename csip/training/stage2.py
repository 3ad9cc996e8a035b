"""Stage 2: fine-tune the image encoder with fused prototypes, and predict skeletons from its tokens.

Off by default, on in ``configs/paper``: the update of the prototypes (PFU) and skeleton-guided temporal modelling (SGTM).

loss = .25 CE(f1, f2, f3) + triplet(f1, f2, f3) + lambda_1 L_CSIP + lambda_2 L_Frame + lambda_distill L_distill
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from csip.config import Settings
from csip.data.clips import TrainingClips, batch_pixels
from csip.data.dataset import Dataset, Tracklet, hold_out, number_cameras, relabel
from csip.data.fingerprints import TrainingData, check_skeletons
from csip.data.samplers import IdentityBatches
from csip.data.skeletons import Skeletons, load_skeletons
from csip.files import digest
from csip.models.factory import build_model, load_encoder
from csip.models.losses import batch_hard_triplet, distillation, smoothed_cross_entropy
from csip.models.reid import ReIDModel, ReIDOutput
from csip.monitor import Monitor
from csip.retrieval.embedding import Embedder, Sampling
from csip.retrieval.metrics import rank
from csip.runtime import gather, loader_options, make_fabric, only_first, precision_of, seed_torch, share
from csip.training.frame_features import frame_features
from csip.training.keeper import Keeper, averaged
from csip.training.prediction import fit_prediction
from csip.training.prototypes import nearest, prototypes, refresh_prototypes, skeleton_prototypes
from csip.training.results import Stage2Result, Validation
from csip.training.run_folder import RunFolder
from csip.training.schedules import steps
from csip.training.stage1 import embed_skeletons

F4_WEIGHTS = (0.0, 0.5, 1.0)


def train_stage2(
    dataset: Dataset,
    skeleton_path: Path,
    stage1: Path,
    settings: Settings,
    folder: Path,
    monitor: Monitor,
    overwrite: bool = False,
) -> Stage2Result:
    """Train the re-identification model; write ``model.safetensors`` and ``metrics.json`` into ``folder``.

    Parameters
    ----------
    stage1
        Folder of the stage-1 run, with its model and its cached frame features.

    Raises
    ------
    CsipError
        Data or checkpoints that do not fit together, a folder that holds another run, a non-finite loss.
    """
    training = prepare(dataset, skeleton_path, stage1, settings, folder, monitor, overwrite)
    for epoch in training.keeper.epochs_left():
        train_epoch(training, epoch)
    return finish(training)


@dataclass
class Training:
    """A run of stage 2: what `prepare` has made and `train_epoch` changes."""

    settings: Settings
    fabric: Fabric
    keeper: Keeper
    monitor: Monitor
    model: ReIDModel
    wrapped: nn.Module
    optimizer: torch.optim.Optimizer
    rates: list[float]
    root: Path
    train: Sequence[Tracklet]
    held: Sequence[Tracklet]
    skeletons: Skeletons
    labels: np.ndarray
    cameras: dict[int, int]
    loader: DataLoader
    sampler: IdentityBatches
    description: dict[str, Any]


def prepare(
    dataset: Dataset,
    skeleton_path: Path,
    stage1: Path,
    settings: Settings,
    folder: Path,
    monitor: Monitor,
    overwrite: bool,
) -> Training:
    """Read the data, make the model and its prototypes, resume where there is something to resume."""
    chosen = settings.stage2
    fabric = make_fabric(settings.runtime)
    monitor = only_first(monitor, fabric)
    train, held = hold_out(dataset.train, settings.dataset.val_ids)
    labels, cameras = relabel(train), number_cameras(train)
    label_of = np.array([labels[t.pid] for t in train])
    now = TrainingData.of(dataset, skeleton_path)
    encoder, temperature = load_encoder(stage1 / "model.safetensors", train, settings, now)
    check_skeletons(skeleton_path, dataset.train, dataset.root)
    data = {**now.as_dict(), "stage1": digest(stage1 / "model.safetensors")}
    run = RunFolder(folder, settings, data, skeleton_path)
    state = run.open(overwrite, fabric)

    skeletons = load_skeletons(skeleton_path, train, settings.clips.max_gap)
    if chosen.skeletons == "others":
        skeletons = skeletons.of_others(label_of, settings.runtime.seed)
    model = build_model(encoder, 1 / temperature.scale().item(), len(labels), len(cameras), settings).to(fabric.device)
    features = frame_features(
        stage1 / "features.h5", model.vision, dataset.root, train + held, settings, fabric, monitor
    )[: len(train)]
    visual = prototypes(np.stack([f.mean(axis=0) for f in features]), label_of, settings)
    bodies = embed_skeletons(encoder, skeletons, settings.clips.frames, settings.clips.stride or 1)
    model.pfu.set_prototypes(visual, skeleton_prototypes(bodies, skeletons.known(), visual, label_of, settings))

    # The fused optimiser unscales gradients itself, which forbids clipping them where a loss is scaled.
    optimizer = torch.optim.Adam(parameter_groups(model, settings), fused=settings.runtime.precision != "16-mixed")
    rates = [group["lr"] for group in optimizer.param_groups]
    wrapped, optimizer = fabric.setup(model, optimizer)
    keeper = Keeper(run, fabric, monitor, "stage 2", model, optimizer, averaged(model, chosen.ema))
    keeper.start(chosen.epochs, state)
    sampler = IdentityBatches(
        label_of.tolist(),
        chosen.ids_per_batch,
        chosen.tracklets_per_id,
        settings.runtime.seed,
        neighbours=nearest(visual) if chosen.batches == "alike" else None,
        share=(fabric.global_rank, fabric.world_size),
    )
    # A GPU changes whole batches by the way; where the processor trains, its workers do.
    later = fabric.device.type == "cuda"
    clips = TrainingClips(dataset.root, train, skeletons, labels, cameras, settings.clips, later)
    loader = DataLoader(clips, batch_sampler=sampler, **loader_options(settings.runtime, fabric.device))
    description = {
        "kind": "stage2",
        "dataset": dataset.name,
        "identities": len(labels),
        "cameras": {str(camera): row for camera, row in cameras.items()},
        "joint_set": skeletons.joint_set.name,
        "width": model.vision.embed_dim,
        **data,
    }
    training = Training(
        settings, fabric, keeper, monitor, model, wrapped, optimizer, rates, dataset.root, train, held, skeletons, label_of,
        cameras, loader, sampler, description,
    )  # fmt: skip
    return training


def train_epoch(training: Training, epoch: int) -> None:
    """Train for one epoch, or for what is left of it; validate where it is due."""
    settings, chosen, keeper, fabric = training.settings, training.settings.stage2, training.keeper, training.fabric
    if chosen.prototype_momentum is not None and epoch > 0 and keeper.progress.step == 0:
        refresh_prototypes(
            training.model, training.root, training.train, training.labels, settings, fabric, training.monitor
        )
    factor = steps(epoch, warmup=chosen.warmup_epochs, start=chosen.warmup_start, milestones=chosen.decay_epochs)
    for group, rate in zip(training.optimizer.param_groups, training.rates, strict=True):
        group["lr"] = rate * factor
    training.sampler.set_epoch(epoch, first_batch=keeper.progress.step)
    training.wrapped.train()
    for batch in training.loader:
        seed_torch(settings.runtime.seed, epoch, keeper.progress.step, fabric.global_rank)
        terms = train_step(training, fabric.to_device(batch))
        keeper.end_step(terms)
        keeper.save_if_due()
    means = keeper.end_steps()
    scalars = dict(means)
    if training.held and ((epoch + 1) % chosen.val_every == 0 or epoch + 1 == chosen.epochs):
        kept = cast(ReIDModel, keeper.kept)
        score = validate(training, kept)
        keeper.validated({"map": score}, keep_best=True)
        scalars["validation_map"] = score
    keeper.end_epoch(scalars, "  ".join(f"{name} {value:.2f}" for name, value in means.items()))


def train_step(training: Training, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Update the weights from a batch on the device, of which each process has its share; return the loss terms."""
    settings, fabric = training.settings, training.fabric
    join = partial(gather, fabric) if fabric.world_size > 1 else nn.Identity()
    output = training.wrapped(
        batch_pixels(batch, settings.clips), batch["joints"], batch["valid"], batch["camera"], gather=join
    )
    terms = loss_terms(output, join(batch["label"]), settings)
    training.optimizer.zero_grad()
    fabric.backward(total_loss(terms, settings))
    if settings.stage2.clip_gradient is not None:
        # A norm that is not finite shows in the loss of the next step; in float16 the scaler then skips the step.
        fabric.clip_gradients(
            training.wrapped, training.optimizer, max_norm=settings.stage2.clip_gradient, error_if_nonfinite=False
        )
    training.optimizer.step()
    return terms


def finish(training: Training) -> Stage2Result:
    """Write the model, the best one on held-out identities where there are some, and the metrics.

    The prediction of skeletons is fitted to it first, where there is one, and weighed.
    """
    keeper, progress, model = training.keeper, training.keeper.progress, training.model
    model.load_state_dict(keeper.chosen())
    f4_map: dict[float, float] = {}
    if model.prediction is not None:
        fit_prediction(
            model, training.root, training.train, training.skeletons, training.labels, training.settings, training.fabric,
            training.monitor,
        )  # fmt: skip
        if training.held:
            f4_map = weigh_prediction(training)
        else:
            training.monitor.say(
                "predicted skeletons weigh as much as another part of a descriptor: dataset.val_ids is 0, so nobody is held out "
                "to choose it by"
            )
    result = Stage2Result(
        terms=progress.means,
        validation=tuple(Validation.of(scores) for scores in progress.validation),
        chosen_epoch=progress.best["epoch"] if training.held else progress.epoch,
        seconds=keeper.seconds(),
        f4_map=f4_map,
    )
    keeper.finish(training.description, result.as_dict(), model.state_dict())
    return result


# ---- losses ----------------------------------------------------------------------------------------------------------


def loss_terms(output: ReIDOutput, label: Tensor, settings: Settings) -> dict[str, Tensor]:
    """Return every term of the loss of one batch, unweighted, in fp32; scalars.

    f3 and the frames' vectors come from two branches, with skeletons and (``lambda_distill`` > 0) as the test sees them;
    their terms are the mean over the branches.
    """
    chosen = settings.stage2

    def cross_entropy(*logits: Tensor | None) -> Tensor:
        return mean([smoothed_cross_entropy(x, label, chosen.smoothing) for x in logits if x is not None])

    def triplet(*features: Tensor | None) -> Tensor:
        return mean([batch_hard_triplet(x, label, chosen.margin) for x in features if x is not None])

    def mean(values: list[Tensor]) -> Tensor:
        return torch.stack(values).mean()

    (f1, f2, *f3), (logits1, logits2, *logits3) = output.features, output.logits
    terms = {
        "ce": cross_entropy(logits1) + cross_entropy(logits2),
        "triplet": triplet(f1) + triplet(f2),
        "csip": cross_entropy(output.csip_logits),
    }
    if output.frame_logits is not None:
        terms["ce"] = terms["ce"] + cross_entropy(*logits3, output.student_logits)
        terms["triplet"] = terms["triplet"] + triplet(*f3, output.student)
        terms["frame"] = cross_entropy(output.frame_logits, output.student_frame_logits)
    if output.student_frames is not None and output.teacher_frames is not None:
        terms["distill"] = distillation(output.student_frames, output.teacher_frames)
    return terms


def total_loss(terms: dict[str, Tensor], settings: Settings) -> Tensor:
    """Weigh the terms."""
    weights = {name: getattr(settings.stage2, f"lambda_{name}") for name in terms}
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum()


# ---- learning rates and validation -------------------------------------------------------------------------------------


def parameter_groups(model: ReIDModel, settings: Settings) -> list[dict[str, Any]]:
    """Split the parameters by learning rate: what is pretrained, new modules (x ``new_lr_factor``), biases (x2).

    ``new_lr_modules`` says which new modules are meant; the others learn at the encoders' rate.
    """
    chosen = settings.stage2
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if chosen.new_lr_modules == "authors":
            new = name.startswith(("pfu.", "sgtm.", "heads.1.classifier."))
        else:
            new = "camera_embedding" in name or not name.startswith(("vision.", "skeleton."))
        rate = chosen.lr * (chosen.new_lr_factor if new else 1)
        rate *= chosen.bias_lr_factor if name.endswith("bias") else 1
        groups.setdefault(rate, []).append(parameter)
    return [{"params": group, "lr": rate, "weight_decay": chosen.weight_decay} for rate, group in groups.items()]


def validate(training: Training, model: ReIDModel) -> float:
    """Return the mAP on held-out training identities: one centre clip a tracklet, each ranked against the other cameras.

    Each process embeds its share of the tracklets; every process returns the same.
    """
    return _map_of(_embed_held(training, model, "rrs"), training.held)


def weigh_prediction(training: Training) -> dict[float, float]:
    """Choose how much f4 weighs beside another part of a descriptor, by mAP on the held-out identities; return it by weight.

    Whole tracklets are embedded, as the test does it. Of equal ones the largest weight is kept.
    """
    model = training.model
    assert model.prediction is not None
    descriptors = _embed_held(training, model, training.settings.evaluation.sampling)
    scores = {}
    for weight in F4_WEIGHTS:  # clips were averaged before: a part of the average is the average of that part
        weighed = descriptors.copy()
        weighed[:, -model.vision.embed_dim :] *= weight
        weighed /= np.linalg.norm(weighed, axis=1, keepdims=True)
        scores[weight] = _map_of(weighed, training.held)
    model.prediction.weight.fill_(max(F4_WEIGHTS, key=lambda weight: (scores[weight], weight)))
    return scores


def _embed_held(training: Training, model: ReIDModel, sampling: Sampling) -> np.ndarray:
    """Embed the held-out tracklets, each process its share of them; every process returns all."""
    settings, fabric = training.settings, training.fabric
    precision = precision_of(settings.runtime, fabric.device)

    def embed(mine: Sequence[Tracklet]) -> list[np.ndarray]:
        embedder = Embedder(model, settings, training.cameras, fabric.device, precision)
        return list(embedder.tracklets(training.root, mine, training.monitor, sampling=sampling))

    return np.stack(share(fabric, training.held, embed))


def _map_of(descriptors: np.ndarray, held: Sequence[Tracklet]) -> float:
    ids = np.array([t.pid for t in held])
    seen_by = np.array([t.camera for t in held])
    return float(rank(descriptors, ids, seen_by, descriptors, ids, seen_by).map)
