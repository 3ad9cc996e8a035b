"""Stage 2: fine-tune the image encoder with fused prototypes (PFU) and skeleton-guided temporal modelling (SGTM).

loss = .25 CE(f1, f2, f3) + triplet(f1, f2, f3) + lambda_1 L_CSIP + lambda_2 L_Frame + lambda_distill L_distill
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter

from csip.config import Settings
from csip.data.clips import TrainingClips, normalize
from csip.data.dataset import Dataset, Tracklet, fingerprint, hold_out, number_cameras, relabel
from csip.data.samplers import IdentityBatches
from csip.data.skeletons import load_skeletons
from csip.files import digest
from csip.models.factory import build_model, load_encoder
from csip.models.losses import batch_hard_triplet, distillation, smoothed_cross_entropy
from csip.models.reid import ReIDModel, ReIDOutput
from csip.monitor import Monitor
from csip.retrieval.embedding import embed_tracklets
from csip.retrieval.metrics import rank
from csip.runtime import gather, get_rng_state, make_fabric, only_first, seed_epoch, set_rng_state
from csip.training.frame_features import frame_features
from csip.training.prototypes import nearest, prototypes, refresh_prototypes, skeleton_prototypes
from csip.training.run_folder import RunFolder, check_finite
from csip.training.schedules import steps
from csip.training.stage1 import embed_skeletons


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
        The mean of every loss term in the last epoch, ``validation`` by epoch, ``chosen_epoch``, ``seconds``; empty in
        all but the first of several processes.

    Raises
    ------
    CsipError
        Data or checkpoints that do not fit together, a folder that holds another run, a loss that is no number.
    """
    started = time.monotonic()
    chosen = settings.stage2
    fabric = make_fabric(settings.runtime)
    monitor = only_first(monitor, fabric)
    train, held = hold_out(dataset.train, settings.dataset.val_ids)
    labels, cameras = relabel(train), number_cameras(train)
    encoder, temperature = load_encoder(stage1 / "model.safetensors", train, dataset.name)
    data = {"tracklets": fingerprint(dataset.train), "stage1": digest(stage1 / "model.safetensors")}
    run = RunFolder(folder, settings, data)
    state = run.open(overwrite, fabric)

    skeletons = load_skeletons(skeleton_path, train, settings.clips.max_gap)
    model = build_model(encoder, 1 / temperature.scale().item(), len(labels), len(cameras), settings)
    features = frame_features(
        stage1 / "features.h5", model.vision, dataset.root, train + held, settings, fabric, monitor
    )[: len(train)]
    label_of = np.array([labels[t.pid] for t in train])
    visual = prototypes(np.stack([f.mean(axis=0) for f in features]), label_of, settings)
    bodies = embed_skeletons(encoder, skeletons, settings.clips.frames, fabric.device)
    model.pfu.set_prototypes(visual, skeleton_prototypes(bodies, skeletons.known(), visual, label_of, settings))

    # The fused optimiser unscales gradients itself, which forbids clipping them where a loss is scaled.
    optimizer = torch.optim.Adam(parameter_groups(model, settings), fused=settings.runtime.precision != "16-mixed")
    rates = [group["lr"] for group in optimizer.param_groups]
    average = None if chosen.ema is None else AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(chosen.ema))
    progress: dict[str, Any] = {
        "epoch": 0, "step": 0, "terms": [], "best_map": -1.0, "best_epoch": 0, "validation": []
    }  # fmt: skip
    if state is not None:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        progress = state["progress"]
        if average is not None:
            average.load_state_dict(state["average"])
        monitor.say(f"going on after epoch {progress['epoch']} of {chosen.epochs}, step {progress['step']} of the next")
    wrapped, optimizer = fabric.setup(model, optimizer)
    if average is not None:
        average.to(fabric.device)
    join = partial(gather, fabric)
    writer = SummaryWriter(str(folder), purge_step=progress["epoch"]) if fabric.is_global_zero else None

    def save() -> None:
        parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "progress": progress}
        averaged = {} if average is None else {"average": average.state_dict()}
        run.save_state({**parts, **averaged, "random": get_rng_state(fabric.device)})

    clips = TrainingClips(dataset.root, train, skeletons, labels, cameras, settings.clips)
    sampler = IdentityBatches(
        label_of.tolist(),
        chosen.ids_per_batch,
        chosen.tracklets_per_id,
        settings.runtime.seed,
        neighbours=nearest(visual) if chosen.batches == "alike" else None,
        share=(fabric.global_rank, fabric.world_size),
    )
    means: dict[str, float] = {}
    for epoch in range(progress["epoch"], chosen.epochs):
        seed_epoch(settings.runtime.seed, epoch)
        if chosen.prototype_momentum is not None and epoch > 0 and progress["step"] == 0:
            refresh_prototypes(model, dataset.root, train, label_of, settings, fabric, monitor)
        factor = steps(epoch, warmup=chosen.warmup_epochs, milestones=chosen.decay_epochs)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor
        sampler.set_epoch(epoch, first_batch=progress["step"])
        batches = iter(DataLoader(clips, batch_sampler=sampler, num_workers=settings.runtime.workers))
        if progress["step"]:
            assert state is not None
            set_rng_state(state["random"], fabric.device)
        wrapped.train()
        for batch in batches:
            batch = {name: tensor.to(fabric.device) for name, tensor in batch.items()}
            images = normalize(batch["images"], settings.clips)
            output = wrapped(images, batch["joints"], batch["valid"], batch["camera"], gather=join)
            terms = loss_terms(output, join(batch["label"]), settings)
            check_finite(terms, epoch, progress["step"])
            optimizer.zero_grad()
            fabric.backward(total_loss(terms, settings))
            if chosen.clip_gradient is not None:
                fabric.clip_gradients(wrapped, optimizer, max_norm=chosen.clip_gradient)
            optimizer.step()
            if average is not None:
                average.update_parameters(model)
            progress["step"] += 1
            progress["terms"].append({name: value.item() for name, value in terms.items()})
            if fabric.is_global_zero and run.save_is_due():
                save()
        means = {name: float(np.mean([terms[name] for terms in progress["terms"]])) for name in progress["terms"][0]}
        progress |= {"epoch": epoch + 1, "step": 0, "terms": []}
        if fabric.is_global_zero:
            assert writer is not None
            for name, value in means.items():
                writer.add_scalar(f"stage2/{name}", value, epoch)
            if held and ((epoch + 1) % chosen.val_every == 0 or epoch + 1 == chosen.epochs):
                kept = model if average is None else cast(ReIDModel, average.module)
                score = validate(kept, dataset.root, held, cameras, settings, fabric.device, monitor)
                writer.add_scalar("stage2/validation_map", score, epoch)
                progress["validation"].append({"epoch": epoch + 1, "map": score})
                if score >= progress["best_map"]:
                    progress |= {"best_map": score, "best_epoch": epoch + 1}
                    torch.save(kept.state_dict(), folder / "best.pt")
            save()
        fabric.barrier()
        note = "  ".join(f"{name} {value:.2f}" for name, value in means.items())
        monitor.progress("stage 2", epoch + 1, chosen.epochs, note)

    if not fabric.is_global_zero:
        fabric.barrier()  # the first process writes what the next stage reads
        return {}
    assert writer is not None
    writer.close()
    kept = model if average is None else cast(ReIDModel, average.module)
    if held:
        kept.load_state_dict(torch.load(folder / "best.pt", map_location=fabric.device, weights_only=True))
    figures = {
        **means,
        "validation": progress["validation"],
        "chosen_epoch": progress["best_epoch"] if held else chosen.epochs,
        "seconds": time.monotonic() - started,
    }
    run.finish(
        kept.state_dict(),
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
    fabric.barrier()
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


# ---- training ------------------------------------------------------------------------------------------------------------


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
