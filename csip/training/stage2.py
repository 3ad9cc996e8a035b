"""Stage 2: fine-tune the image encoder with fused prototypes (PFU) and skeleton-guided temporal modelling (SGTM).

loss = .25 CE(f1, f2, f3) + triplet(f1, f2, f3) + lambda_1 L_CSIP + lambda_2 L_Frame + lambda_distill L_distill
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from csip.checkpoints import digest, load_model
from csip.config import Settings
from csip.data.clips import TrainingClips, normalize
from csip.data.samplers import IdentityBatches
from csip.data.skeletons import load_skeletons
from csip.data.tracklets import Dataset, Tracklet, fingerprint, hold_out, number_cameras, relabel
from csip.embedding import embed_tracklets
from csip.errors import CsipError
from csip.features import embed_frames, frame_features
from csip.losses import batch_hard_triplet, distillation, smoothed_cross_entropy
from csip.metrics import rank
from csip.models.reid import ReIDModel, ReIDOutput
from csip.models.skeleton import SkeletonGraphTransformer
from csip.models.vision import create_vision
from csip.monitor import Monitor
from csip.training.common import RunFolder, check_finite, make_fabric, seed_epoch, steps
from csip.training.stage1 import embed_skeletons, empty_encoder, load_encoder


def train_stage2(
    dataset: Dataset,
    skeleton_path: Path,
    stage1: Path,
    settings: Settings,
    folder: Path,
    monitor: Monitor,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Train the re-identification model; write ``model.safetensors`` and ``metrics.json`` into ``folder``.

    Parameters
    ----------
    stage1
        Folder of the stage-1 run, with its model and its cached frame features.

    Returns
    -------
    dict
        The mean of every loss term in the last epoch, ``validation`` by epoch, ``chosen_epoch``, ``seconds``.

    Raises
    ------
    CsipError
        Data or checkpoints that do not fit together, a folder that holds another run, a loss that is no number.
    """
    started = time.monotonic()
    chosen = settings.stage2
    train, held = hold_out(dataset.train, settings.dataset.val_ids)
    labels, cameras = relabel(train), number_cameras(train)
    encoder, temperature = load_encoder(stage1 / "model.safetensors", train, dataset.name)
    data = {"tracklets": fingerprint(dataset.train), "stage1": digest(stage1 / "model.safetensors")}
    run = RunFolder(folder, settings, data)
    state = run.open(overwrite)
    fabric = make_fabric(settings.runtime)

    skeletons = load_skeletons(skeleton_path, train, settings.clips.max_gap)
    model = build_model(encoder, 1 / temperature.scale().item(), len(labels), len(cameras), settings)
    features = frame_features(
        stage1 / "features.h5", model.vision, dataset.root, train + held, settings, fabric.device, monitor
    )[: len(train)]
    label_of = np.array([labels[t.pid] for t in train])
    visual = prototypes(np.stack([f.mean(axis=0) for f in features]), label_of, settings)
    bodies = embed_skeletons(encoder, skeletons, settings.clips.frames, fabric.device)
    model.pfu.set_prototypes(visual, skeleton_prototypes(bodies, skeletons.known(), visual, label_of, settings))

    optimizer = torch.optim.Adam(parameter_groups(model, settings))
    rates = [group["lr"] for group in optimizer.param_groups]
    progress: dict[str, Any] = {"epoch": 0, "best_map": -1.0, "best_epoch": 0, "validation": []}
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        progress = state["progress"]
        monitor.say(f"going on after epoch {progress['epoch']} of {chosen.epochs}")
    wrapped, optimizer = fabric.setup(model, optimizer)
    writer = SummaryWriter(str(folder), purge_step=progress["epoch"])

    clips = TrainingClips(dataset.root, train, skeletons, labels, cameras, settings.clips)
    sampler = IdentityBatches(
        label_of.tolist(),
        chosen.ids_per_batch,
        chosen.tracklets_per_id,
        settings.runtime.seed,
        neighbours=nearest(visual) if chosen.batches == "alike" else None,
    )
    means: dict[str, float] = {}
    for epoch in range(progress["epoch"], chosen.epochs):
        seed_epoch(settings.runtime.seed, epoch)
        if chosen.prototype_momentum is not None and epoch > 0:
            refresh_prototypes(model, dataset.root, train, label_of, settings, fabric.device, monitor)
        factor = steps(epoch, warmup=chosen.warmup_epochs, milestones=chosen.decay_epochs)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        sampler.set_epoch(epoch)
        loader = DataLoader(clips, batch_sampler=sampler, num_workers=settings.runtime.workers)
        wrapped.train()
        history: list[dict[str, float]] = []
        for step, batch in enumerate(loader):
            batch = {name: tensor.to(fabric.device) for name, tensor in batch.items()}
            images = normalize(batch["images"], settings.clips)
            output = wrapped(images, batch["joints"], batch["valid"], batch["camera"])
            terms = loss_terms(output, batch["label"], settings)
            check_finite(terms, epoch, step)
            optimizer.zero_grad()
            fabric.backward(total_loss(terms, settings))
            optimizer.step()
            history.append({name: value.item() for name, value in terms.items()})
        means = {name: float(np.mean([terms[name] for terms in history])) for name in history[0]}
        for name, value in means.items():
            writer.add_scalar(f"stage2/{name}", value, epoch)
        progress["epoch"] = epoch + 1
        if held and ((epoch + 1) % chosen.val_every == 0 or epoch + 1 == chosen.epochs):
            score = validate(model, dataset.root, held, cameras, settings, fabric.device, monitor)
            writer.add_scalar("stage2/validation_map", score, epoch)
            progress["validation"].append({"epoch": epoch + 1, "map": score})
            if score >= progress["best_map"]:
                progress |= {"best_map": score, "best_epoch": epoch + 1}
                torch.save(model.state_dict(), folder / "best.pt")
        run.save_state({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "progress": progress})
        note = "  ".join(f"{name} {value:.2f}" for name, value in means.items())
        monitor.progress("stage 2", epoch + 1, chosen.epochs, note)
    writer.close()

    if held:
        model.load_state_dict(torch.load(folder / "best.pt", map_location=fabric.device, weights_only=True))
    figures = {
        **means,
        "validation": progress["validation"],
        "chosen_epoch": progress["best_epoch"] if held else chosen.epochs,
        "seconds": time.monotonic() - started,
    }
    run.finish(
        model.state_dict(),
        {
            "kind": "stage2",
            "dataset": dataset.name,
            "identities": len(labels),
            "cameras": {str(camera): row for camera, row in cameras.items()},
            "joint_set": skeletons.joint_set.name,
            "width": model.vision.embed_dim,
            **data,
        },
        figures,
    )
    return figures


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

    f1, f2, f3 = output.features
    logits1, logits2, logits3 = output.logits
    terms = {
        "ce": cross_entropy(logits1) + cross_entropy(logits2) + cross_entropy(logits3, output.student_logits),
        "triplet": triplet(f1) + triplet(f2) + triplet(f3, output.student),
        "csip": cross_entropy(output.csip_logits),
        "frame": cross_entropy(output.frame_logits, output.student_frame_logits),
    }
    if output.student_frames is not None and output.teacher_frames is not None:
        terms["distill"] = distillation(output.student_frames, output.teacher_frames)
    return terms


def total_loss(terms: dict[str, Tensor], settings: Settings) -> Tensor:
    """Weigh the terms."""
    weights = {name: getattr(settings.stage2, f"lambda_{name}") for name in terms}
    return torch.stack([weights[name] * value for name, value in terms.items()]).sum()


# ---- prototypes ------------------------------------------------------------------------------------------------------


def prototypes(features: np.ndarray, labels: np.ndarray, settings: Settings) -> Tensor:
    """Average tracklet features (M, C) by identity.

    Where stage 1 compares directions (``stage1.normalize``), tracklets are averaged as directions and so are the
    prototypes: images and skeletons then weigh the same in the fusion.

    Returns
    -------
    Tensor, shape (N, C)
        Row = label.

    Raises
    ------
    CsipError
        A label between 0 and the largest has no tracklet.
    """
    count = np.bincount(labels)
    if (count == 0).any():
        raise CsipError(f"no tracklet for label {int(np.argmin(count))}: every identity needs a prototype")
    tracklets = torch.from_numpy(features).float()
    if settings.stage1.normalize:
        tracklets = nn.functional.normalize(tracklets, dim=1)
    sums = torch.zeros(len(count), features.shape[1]).index_add_(0, torch.from_numpy(labels), tracklets)
    means = sums / torch.from_numpy(count).float()[:, None]
    return nn.functional.normalize(means, dim=1) if settings.stage1.normalize else means


def skeleton_prototypes(
    features: np.ndarray, known: np.ndarray, visual: Tensor, labels: np.ndarray, settings: Settings
) -> Tensor:
    """Average the skeleton features (M, C) of the tracklets that have a skeleton, (M,) `known`, by identity.

    An identity without any skeleton gets its image prototype, a row of `visual` (N, C): the fusion then changes nothing.

    Returns
    -------
    Tensor, shape (N, C)
        Row = label.
    """
    result = visual.clone()
    labels_seen, rows = np.unique(labels[known], return_inverse=True)
    result[labels_seen] = prototypes(features[known], rows, settings)
    return result


def nearest(prototypes: Tensor, count: int = 16) -> np.ndarray:
    """Return for each identity the labels of the others whose prototypes (N, C) have the largest cosine, (N, count)."""
    unit = nn.functional.normalize(prototypes, dim=1)
    similarity = (unit @ unit.T).fill_diagonal_(-torch.inf)
    return similarity.topk(min(count, len(unit) - 1), dim=1).indices.numpy()


def refresh_prototypes(
    model: ReIDModel,
    root: Path,
    train: Sequence[Tracklet],
    labels: np.ndarray,
    settings: Settings,
    device: torch.device,
    monitor: Monitor,
) -> None:
    """Move the image prototypes towards what the image encoder says now, by ``prototype_momentum``."""
    momentum = settings.stage2.prototype_momentum
    assert momentum is not None
    frames = embed_frames(model.vision, root, train, settings, device, monitor)
    ends = np.cumsum([len(t.frames) for t in train])
    means = np.stack([f.mean(axis=0) for f in np.split(frames, ends[:-1])])
    now = prototypes(means, labels, settings).to(device)
    # Where directions are compared, the updater keeps prototypes at a norm of its own: mix directions.
    before = nn.functional.normalize(model.pfu.visual, dim=1) if settings.stage1.normalize else model.pfu.visual
    model.pfu.set_prototypes(momentum * before + (1 - momentum) * now, model.pfu.skeleton)


# ---- model -----------------------------------------------------------------------------------------------------------


def build_model(
    encoder: SkeletonGraphTransformer,
    tau: float,
    identities: int,
    cameras: int,
    settings: Settings,
    load_vision: bool = True,
) -> ReIDModel:
    """Make the model before its training: pretrained encoders, new modules with weights from ``runtime.seed``.

    Without ``load_vision`` the image encoder has the form that ``vision.pretrained`` asks for, and random weights.
    """
    clips, chosen = settings.clips, settings.stage2
    torch.manual_seed(settings.runtime.seed)
    vision = create_vision(
        settings.vision.model,
        settings.vision.pretrained,
        (clips.height, clips.width),
        cameras=cameras if chosen.camera_embedding else 0,
        load=load_vision,
    )
    return ReIDModel(
        vision,
        encoder,
        identities,
        freeze_skeleton=not chosen.train_skeleton_encoder,
        fusion=chosen.fusion,
        update_tokens=chosen.update_tokens,
        detach_visual=chosen.detach_visual,
        distill=chosen.lambda_distill > 0,
        normalize=settings.stage1.normalize,
        tau=tau,
        part_norm=settings.evaluation.part_norm,
        heads=chosen.temporal_heads,
        mte=chosen.mte,
        atd=chosen.atd,
        ta=chosen.ta,
        frame_position=chosen.frame_position,
    )


def load_trained(
    path: Path, settings: Settings, dataset: str | None
) -> tuple[ReIDModel, dict[int, int], dict[str, Any]]:
    """Load what `train_stage2` wrote.

    Parameters
    ----------
    settings
        How to evaluate; everything else is the trained model's own.
    dataset
        The data set that it must have been trained on; None takes any.

    Returns
    -------
    model, camera_rows, description

    Raises
    ------
    CsipError
        The file is missing, damaged, or was trained on another data set.
    """
    tensors, description = load_model(path, "stage2")
    if dataset is not None and description["dataset"] != dataset:
        raise CsipError(
            f"{path}: this model was trained on data set {description['dataset']}, but {dataset} is to be scored; "
            "give --cross-dataset if that is what you want"
        )
    description["settings"]["evaluation"] = settings.evaluation.model_dump(mode="json")
    model = untrained_like(description, pretrained=False)
    model.load_state_dict(tensors)
    return model, {int(camera): row for camera, row in description["cameras"].items()}, description


def untrained_like(description: dict[str, Any], pretrained: bool) -> ReIDModel:
    """Make the model of a description as it was before both stages; ``vision.pretrained`` is used or left out."""
    settings = Settings.model_validate(description["settings"])
    encoder = empty_encoder(description["joint_set"], description["width"], settings)
    cameras = len(description["cameras"])
    return build_model(encoder, 1.0, description["identities"], cameras, settings, load_vision=pretrained)


def parameter_groups(model: ReIDModel, settings: Settings) -> list[dict[str, Any]]:
    """Split the parameters by learning rate: pretrained encoders, new modules (x ``new_lr_factor``), biases (x2)."""
    chosen = settings.stage2
    groups: dict[float, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        pretrained = name.startswith(("vision.", "skeleton.")) and "camera_embedding" not in name
        rate = chosen.lr * (1 if pretrained else chosen.new_lr_factor)
        rate *= chosen.bias_lr_factor if name.endswith("bias") else 1
        groups.setdefault(rate, []).append(parameter)
    return [{"params": group, "lr": rate, "weight_decay": chosen.weight_decay} for rate, group in groups.items()]


def validate(
    model: ReIDModel,
    root: Path,
    held: Sequence[Tracklet],
    cameras: dict[int, int],
    settings: Settings,
    device: torch.device,
    monitor: Monitor,
) -> float:
    """Return the mAP on held-out training identities: one centre clip a tracklet, each ranked against the other cameras."""
    descriptors = embed_tracklets(model, root, held, cameras, settings, device, monitor, sampling="rrs")
    ids = np.array([t.pid for t in held])
    seen_by = np.array([t.camera for t in held])
    return float(rank(descriptors, ids, seen_by, descriptors, ids, seen_by).map)
