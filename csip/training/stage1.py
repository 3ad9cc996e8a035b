"""Stage 1: align the skeleton encoder with the frozen image encoder by contrast.

frames    -> frozen V -> projected CLS, one a frame, cached      v = mean over the clip's frames
skeletons -> S        -> CLS, one a frame                        s = mean over the clip's frames
loss = SupCon(v -> s) + SupCon(s -> v)
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from csip.checkpoints import load_model
from csip.config import Settings
from csip.data.clips import sample_dense, sample_restricted
from csip.data.skeletons import Skeletons, load_skeletons
from csip.data.tracklets import Dataset, Tracklet, fingerprint, hold_out, relabel
from csip.errors import CsipError
from csip.features import frame_features
from csip.losses import LearnableTemperature, supervised_contrastive
from csip.metrics import chance, rank
from csip.models.skeleton import SkeletonGraphTransformer
from csip.models.vision import create_vision
from csip.monitor import Monitor
from csip.training.common import RunFolder, check_finite, cosine, make_fabric, seed_epoch
from pose_cache.joints import joint_set
from pose_cache.store import SkeletonStore


def train_stage1(
    dataset: Dataset, skeleton_path: Path, settings: Settings, folder: Path, monitor: Monitor, overwrite: bool = False
) -> dict[str, Any]:
    """Train the skeleton encoder; write ``model.safetensors`` and ``metrics.json`` into ``folder``.

    Returns
    -------
    dict
        ``loss`` of the last epoch, ``retrieval`` (skeleton to image, on held-out training identities; None where
        ``dataset.val_ids`` is 0), ``seconds``.

    Raises
    ------
    CsipError
        Data that do not fit together, a folder that holds another run, a loss that is no number.
    """
    started = time.monotonic()
    chosen = settings.stage1
    train, held = hold_out(dataset.train, settings.dataset.val_ids)
    with SkeletonStore(skeleton_path) as store:
        data = {"tracklets": fingerprint(dataset.train), "skeletons": store.digest}
    run = RunFolder(folder, settings, data)
    state = run.open(overwrite)
    fabric = make_fabric(settings.runtime)

    skeletons = load_skeletons(skeleton_path, train, settings.clips.max_gap)
    torch.manual_seed(settings.runtime.seed)
    vision = create_vision(
        settings.vision.model, settings.vision.pretrained, (settings.clips.height, settings.clips.width)
    )
    features = frame_features(
        folder / "features.h5", vision, dataset.root, train + held, settings, fabric.device, monitor
    )

    encoder = empty_encoder(skeletons.joint_set.name, vision.embed_dim, settings)
    encoder.scale.fill_(skeletons.scale())
    temperature = LearnableTemperature(chosen.tau, learnable=chosen.normalize)
    optimizer = torch.optim.Adam(
        [*encoder.parameters(), *(p for p in temperature.parameters() if p.requires_grad)],
        lr=chosen.lr,
        weight_decay=chosen.weight_decay,
    )
    first_epoch = 0
    if state is not None:
        encoder.load_state_dict(state["encoder"])
        temperature.load_state_dict(state["temperature"])
        optimizer.load_state_dict(state["optimizer"])
        first_epoch = state["epoch"]
        monitor.say(f"going on after epoch {first_epoch} of {chosen.epochs}")
    temperature.to(fabric.device)
    model, optimizer = fabric.setup(encoder, optimizer)
    writer = SummaryWriter(str(folder), purge_step=first_epoch)

    labels = relabel(train)
    loss_mean = float("nan")
    for epoch in range(first_epoch, chosen.epochs):
        seed_epoch(settings.runtime.seed, epoch)
        factor = cosine(epoch, epochs=chosen.epochs, warmup=chosen.warmup_epochs, floor=chosen.min_lr / chosen.lr)
        for group in optimizer.param_groups:
            group["lr"] = chosen.lr * factor
        model.train()
        losses = []
        for step, batch in enumerate(_batches(train, features, skeletons, labels, settings, epoch)):
            image, joints, valid, label = (tensor.to(fabric.device) for tensor in batch)
            tokens = model(joints, valid)
            skeleton = SkeletonGraphTransformer.pool(tokens, valid)
            if chosen.normalize:
                image, skeleton = F.normalize(image, dim=1), F.normalize(skeleton, dim=1)
            loss = supervised_contrastive(image, skeleton, label, temperature.scale())
            check_finite({"contrastive": loss}, epoch, step)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            losses.append(loss.item())
        loss_mean = float(np.mean(losses))
        writer.add_scalar("stage1/loss", loss_mean, epoch)
        writer.add_scalar("stage1/lr", chosen.lr * factor, epoch)
        writer.add_scalar("stage1/temperature", 1 / temperature.scale().item(), epoch)
        run.save_state(
            {
                "encoder": encoder.state_dict(),
                "temperature": temperature.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epoch": epoch + 1,
            }
        )
        monitor.progress("stage 1", epoch + 1, chosen.epochs, f"loss {loss_mean:.3f}")

    retrieval = None
    if held:
        unseen = load_skeletons(skeleton_path, held, settings.clips.max_gap)
        bodies = embed_skeletons(encoder, unseen, settings.clips.frames, fabric.device)
        looks = np.stack([tracklet.mean(axis=0) for tracklet in features[len(train) :]])
        retrieval = _retrieval(bodies, unseen.known(), looks, held)
        writer.add_scalar("stage1/retrieval_map", retrieval["map"], chosen.epochs)
    writer.close()
    tensors = {f"encoder.{k}": v for k, v in encoder.state_dict().items()}
    tensors |= {f"temperature.{k}": v for k, v in temperature.state_dict().items()}
    figures = {"loss": loss_mean, "retrieval": retrieval, "seconds": time.monotonic() - started}
    run.finish(
        tensors,
        {
            "kind": "stage1",
            "dataset": dataset.name,
            "identities": fingerprint(train),
            "joint_set": skeletons.joint_set.name,
            "width": vision.embed_dim,
            **data,
        },
        figures,
    )
    return figures


def empty_encoder(joints: str, width: int, settings: Settings) -> SkeletonGraphTransformer:
    """Make an untrained skeleton encoder for a joint set, with features of ``width`` numbers."""
    chosen = settings.skeleton_encoder
    return SkeletonGraphTransformer(
        joint_set(joints),
        width=width,
        depth=chosen.depth,
        heads=chosen.heads,
        mlp_ratio=chosen.mlp_ratio,
        dropout=chosen.dropout,
        positions=chosen.positions,
        temporal=chosen.temporal,
        temporal_every=chosen.temporal_every,
        sign_flips=chosen.sign_flips,
    )


def load_encoder(
    path: Path, train: Sequence[Tracklet], dataset: str
) -> tuple[SkeletonGraphTransformer, LearnableTemperature]:
    """Load what `train_stage1` wrote, for the identities that it was trained on.

    Raises
    ------
    CsipError
        The file is missing, damaged, or was trained on other data.
    """
    tensors, description = load_model(path, "stage1")
    if description["identities"] != fingerprint(train):
        raise CsipError(
            f"{path}: this stage-1 model was trained on other tracklets (data set {description['dataset']}, "
            f"fingerprint {description['identities']}) than asked for now (data set {dataset}, {fingerprint(train)}); "
            "train stage 1 on this data set, with the same dataset.val_ids"
        )
    settings = Settings.model_validate(description["settings"])
    encoder = empty_encoder(description["joint_set"], description["width"], settings)
    encoder.load_state_dict(_part(tensors, "encoder."))
    temperature = LearnableTemperature(settings.stage1.tau)
    temperature.load_state_dict(_part(tensors, "temperature."))
    return encoder, temperature


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _batches(
    train: Sequence[Tracklet],
    features: list[np.ndarray],
    skeletons: Skeletons,
    labels: dict[int, int],
    settings: Settings,
    epoch: int,
) -> list[list[Tensor]]:
    """Draw an epoch: ``clips_per_tracklet`` random clips of each tracklet that has a skeleton, in batches.

    Each batch is [image features (B, C), joints (B, T, J, 3), valid (B, T), labels (B,)].
    """
    rng = np.random.default_rng((settings.runtime.seed, epoch))
    usable = [i for i, valid in enumerate(skeletons.valid) if valid.any()]
    order = rng.permutation(np.repeat(usable, settings.stage1.clips_per_tracklet))
    batches = []
    for start in range(0, len(order), settings.stage1.batch):
        clips = []
        for i in order[start : start + settings.stage1.batch]:
            chosen = sample_restricted(len(train[i].frames), settings.clips.frames, rng)
            joints, valid = skeletons.clip(i, chosen)
            if valid.any():
                clips.append((features[i][chosen].mean(axis=0), joints, valid, np.int64(labels[train[i].pid])))
        if len(clips) > 1:
            batches.append([torch.from_numpy(np.stack(column)) for column in zip(*clips, strict=True)])
    return batches


@torch.inference_mode()
def embed_skeletons(
    encoder: SkeletonGraphTransformer, skeletons: Skeletons, frames: int, device: torch.device
) -> np.ndarray:
    """Embed whole tracklets: every frame, in clips of ``frames``, averaged over the valid ones.

    Returns
    -------
    ndarray, shape (tracklets, C), float32
        Zero for a tracklet without a valid skeleton.
    """
    encoder = encoder.to(device).eval()
    result = []
    for joints, valid in zip(skeletons.joints, skeletons.valid, strict=True):
        clips = sample_dense(len(joints), frames)
        tokens = encoder(torch.from_numpy(joints[clips]).to(device), torch.from_numpy(valid[clips]).to(device))
        cls = tokens[:, :, 0].float().cpu().numpy().reshape(clips.size, -1)
        # The last clip repeats frames; each frame counts once.
        once = np.unique(clips.reshape(-1), return_index=True)[1]
        weight = valid[clips].reshape(-1)[once][:, None]
        result.append((cls[once] * weight).sum(axis=0) / max(weight.sum(), 1))
    return np.stack(result)


def _retrieval(bodies: np.ndarray, known: np.ndarray, looks: np.ndarray, held: Sequence[Tracklet]) -> dict[str, float]:
    """Rank the image features (M, C) of held-out tracklets for each one's skeleton feature (M, C), other cameras only.

    Tracklets without a skeleton, (M,) `known`, are no queries.
    """
    ids = np.array([t.pid for t in held])
    cameras = np.array([t.camera for t in held])
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
