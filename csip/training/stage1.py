"""Stage 1: align the skeleton encoder with the frozen image encoder by contrast.

frames    -> frozen V -> projected CLS, one a frame, cached      v = mean over the clip's frames
skeletons -> S        -> CLS, one a frame                        s = mean over the clip's frames
loss = SupCon(v -> s) + SupCon(s -> v)
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn import functional as F
from torch.utils.tensorboard import SummaryWriter

from csip.config import Settings
from csip.data.clips import sample_dense, sample_restricted
from csip.data.dataset import Dataset, Tracklet, fingerprint, hold_out, relabel
from csip.data.skeletons import Skeletons, load_skeletons
from csip.models.factory import empty_encoder
from csip.models.losses import LearnableTemperature, supervised_contrastive
from csip.models.skeleton_encoder import SkeletonGraphTransformer
from csip.models.vision import create_vision
from csip.monitor import Monitor
from csip.retrieval.metrics import chance, rank
from csip.runtime import gather, make_fabric, only_first, seed_epoch
from csip.training.frame_features import frame_features
from csip.training.run_folder import RunFolder, check_finite
from csip.training.schedules import cosine
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
    fabric = make_fabric(settings.runtime)
    monitor = only_first(monitor, fabric)
    train, held = hold_out(dataset.train, settings.dataset.val_ids)
    with SkeletonStore(skeleton_path) as store:
        data = {"tracklets": fingerprint(dataset.train), "skeletons": store.digest}
    run = RunFolder(folder, settings, data)
    state = run.open(overwrite, fabric)

    skeletons = load_skeletons(skeleton_path, train, settings.clips.max_gap)
    features = embed_training_frames(dataset, settings, folder, fabric, monitor)
    clips = TrainingArrays.of(train, features[: len(train)], skeletons, fabric.device)

    encoder = empty_encoder(skeletons.joint_set.name, features[0].shape[1], settings)
    encoder.calibrate(j[v] for j, v in zip(skeletons.joints, skeletons.valid, strict=True))
    temperature = LearnableTemperature(chosen.tau, learnable=chosen.normalize)
    optimizer = torch.optim.Adam(
        [*encoder.parameters(), *(p for p in temperature.parameters() if p.requires_grad)],
        lr=chosen.lr,
        weight_decay=chosen.weight_decay,
        fused=settings.runtime.precision != "16-mixed",
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
    writer = SummaryWriter(str(folder), purge_step=first_epoch) if fabric.is_global_zero else None
    unseen = load_skeletons(skeleton_path, held, settings.clips.max_gap) if held else None

    def retrieve() -> dict[str, float] | None:
        if unseen is None:
            return None
        bodies = embed_skeletons(encoder, unseen, settings.clips.frames, fabric.device)
        looks = np.stack([tracklet.mean(axis=0) for tracklet in features[len(train) :]])
        return _retrieval(bodies, unseen.known(), looks, held)

    loss_mean, retrieval = float("nan"), None
    for epoch in range(first_epoch, chosen.epochs):
        seed_epoch(settings.runtime.seed, epoch)
        factor = cosine(epoch, epochs=chosen.epochs, warmup=chosen.warmup_epochs, floor=chosen.min_lr / chosen.lr)
        for group in optimizer.param_groups:
            group["lr"] = chosen.lr * factor
        model.train()
        losses = []
        for step, (rows, labels) in enumerate(clips.draw(settings, epoch)):
            size = len(rows) // fabric.world_size  # what does not fill every process's part is left out
            rows, labels = rows[: size * fabric.world_size], labels[: size * fabric.world_size]
            mine = slice(fabric.global_rank * size, (fabric.global_rank + 1) * size)
            image, joints, valid = clips.read(rows[mine], fabric.device)
            skeleton = SkeletonGraphTransformer.pool(model(joints, valid), valid)
            if chosen.normalize:
                image, skeleton = F.normalize(image, dim=1), F.normalize(skeleton, dim=1)
            image, skeleton = gather(fabric, image), gather(fabric, skeleton)
            loss = supervised_contrastive(image, skeleton, labels.to(fabric.device), temperature.scale())
            check_finite({"contrastive": loss}, epoch, step)
            optimizer.zero_grad()
            fabric.backward(loss)
            optimizer.step()
            losses.append(loss.item())
        loss_mean = float(np.mean(losses))
        if writer is not None:
            writer.add_scalar("stage1/loss", loss_mean, epoch)
            writer.add_scalar("stage1/lr", chosen.lr * factor, epoch)
            writer.add_scalar("stage1/temperature", 1 / temperature.scale().item(), epoch)
            if ((epoch + 1) % chosen.val_every == 0 or epoch + 1 == chosen.epochs) and (retrieval := retrieve()):
                for name in ("rank1", "map"):
                    writer.add_scalar(f"stage1/retrieval_{name}", retrieval[name], epoch)
            run.save_state(
                {
                    "encoder": encoder.state_dict(),
                    "temperature": temperature.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "epoch": epoch + 1,
                }
            )
        monitor.progress("stage 1", epoch + 1, chosen.epochs, f"loss {loss_mean:.3f}")

    if writer is None:
        fabric.barrier()  # the first process writes what the next stage reads
        return {}
    writer.close()
    if first_epoch == chosen.epochs:  # stopped after its last epoch, before the end was written
        retrieval = retrieve()
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
            "width": features[0].shape[1],
            **data,
        },
        figures,
    )
    fabric.barrier()
    return figures


@dataclass(frozen=True)
class TrainingArrays:
    """All frames of M training tracklets, one after another, in memory: on the device where they fit.

    Attributes
    ----------
    features, joints, valid
        (N, C) image features, (N, J, 3) root-centred joints and (N,) whether a frame has them.
    usable
        (N,) the same as `valid`, in the processor's memory.
    starts, lengths, labels
        (M,) each tracklet's first frame, its frames and its identity.
    cameras
        (M,) each tracklet's camera.
    """

    features: Tensor
    joints: Tensor
    valid: Tensor
    usable: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    labels: np.ndarray
    cameras: np.ndarray

    @staticmethod
    def of(
        train: Sequence[Tracklet], features: Sequence[np.ndarray], skeletons: Skeletons, device: torch.device
    ) -> TrainingArrays:
        """Join the arrays of the tracklets."""
        lengths = np.array([len(t.frames) for t in train])
        labels = relabel(train)
        usable = np.concatenate(skeletons.valid)
        whole = [torch.from_numpy(np.concatenate(parts)) for parts in (features, skeletons.joints)]
        if device.type == "cuda":
            free, _ = torch.cuda.mem_get_info(device)
            home = device if sum(array.nbytes for array in whole) < free / 2 else torch.device("cpu")
        else:
            home = device
        images, joints = (array.to(home) for array in whole)
        return TrainingArrays(
            images,
            joints,
            torch.from_numpy(usable).to(home),
            usable,
            np.cumsum(lengths) - lengths,
            lengths,
            np.array([labels[t.pid] for t in train]),
            np.array([t.camera for t in train]),
        )

    def draw(self, settings: Settings, epoch: int) -> Iterator[tuple[np.ndarray, Tensor]]:
        """Draw an epoch: ``clips_per_tracklet`` random clips of each tracklet that has a skeleton, in batches.

        Yields
        ------
        rows : ndarray
            (B, T) frames of each clip, each clip with at least one skeleton.
        labels : Tensor
            (B,) int64.
        """
        rng = np.random.default_rng((settings.runtime.seed, epoch))
        known = np.flatnonzero(np.add.reduceat(self.usable, self.starts, dtype=np.int64) > 0)
        order = rng.permutation(np.repeat(known, settings.stage1.clips_per_tracklet))
        rows = self.starts[order][:, None] + sample_restricted(self.lengths[order], settings.clips.frames, rng)
        seen = self.usable[rows].any(axis=1)
        rows, order = rows[seen], order[seen]
        groups = [np.arange(len(order))]
        if settings.stage1.batches == "camera":
            groups = [np.flatnonzero(self.cameras[order] == camera) for camera in np.unique(self.cameras[order])]
        size = settings.stage1.batch
        parts = [group[start : start + size] for group in groups for start in range(0, len(group), size)]
        for index in rng.permutation(len(parts)):
            part = parts[index]
            if len(part) > 1:
                yield rows[part], torch.from_numpy(self.labels[order[part]])

    def read(self, rows: np.ndarray, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Return image features (B, C), averaged over the clip, joints (B, T, J, 3) and valid (B, T) of rows (B, T)."""
        index = torch.from_numpy(rows).to(self.features.device)
        return self.features[index].mean(dim=1).to(device), self.joints[index].to(device), self.valid[index].to(device)


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
    torch.manual_seed(settings.runtime.seed)
    vision = create_vision(
        settings.vision.model, settings.vision.pretrained, (settings.clips.height, settings.clips.width)
    )
    return frame_features(folder / "features.h5", vision, dataset.root, train + held, settings, fabric, monitor)


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
