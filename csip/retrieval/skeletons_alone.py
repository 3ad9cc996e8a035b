"""Re-identification from skeletons alone: a trained model, descriptors of windows of frames, and their evaluation."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from csip.config import Settings, SkeletonEncoderSettings
from csip.data.sequences import SkeletonDataset, SkeletonSequence, fingerprint_sequences, windows
from csip.errors import CsipError
from csip.files import digest, write_json
from csip.models.checkpoints import load_model
from csip.models.factory import empty_encoder
from csip.models.skeleton_reid import GraphWindows, WindowNetwork, bone_lengths
from csip.retrieval.metrics import RANKS, Ranking, RankOptions, chance, rank
from pose_cache.joints import joint_set

BASELINE = "bone lengths, nearest neighbour"
EMBED_BATCH = 1024


# ---- the model -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SkeletonModel:
    """A model that `csip.train_skeleton` has trained.

    Attributes
    ----------
    network
        In evaluation mode.
    settings, description
        Of its training.
    digest
        Of its file.
    path
        Its file, for messages.
    """

    network: nn.Module
    settings: Settings
    description: dict[str, Any]
    digest: str
    path: Path


def load_skeleton_model(path: Path) -> SkeletonModel:
    """Load what `csip.train_skeleton` wrote.

    Raises
    ------
    CsipError
        The file is missing, damaged or of another kind.
    """
    tensors, description = load_model(path, "skeleton")
    settings = Settings.model_validate(description["settings"])
    chosen = settings.skeleton_training
    network: nn.Module
    if chosen.encoder == "graph":
        encoder_settings = SkeletonEncoderSettings.model_validate(description["encoder"])
        encoder = empty_encoder(
            description["joint_set"],
            description["width"],
            settings.model_copy(update={"skeleton_encoder": encoder_settings}),
        )
        network = GraphWindows(encoder, chosen.embedding)
    else:
        network = WindowNetwork(joint_set(description["joint_set"]), chosen.frames, chosen.embedding, chosen.window)
    network.load_state_dict(tensors)
    return SkeletonModel(network.eval(), settings, description, digest(path), path)


# ---- windows ---------------------------------------------------------------------------------------------------------


def centred(joints: np.ndarray, root: int) -> np.ndarray:
    """Subtract the root joint from each frame."""
    return joints - joints[..., root : root + 1, :]


def embed_windows(network: nn.Module, joints: np.ndarray, root: int, device: torch.device) -> np.ndarray:
    """Embed windows (W, T, J, 3), of any root; return (W, E) float32 of length one."""
    parts = describe_windows(network.to(device), joints, root, device)
    return np.concatenate([F.normalize(part, dim=1).cpu().numpy() for part in parts])


@torch.no_grad()
def describe_windows(network: nn.Module, joints: np.ndarray, root: int, device: torch.device) -> list[Tensor]:
    """Describe windows (W, T, J, 3), of any root, in eval mode: some (n, E) that make (W, E)."""
    network.eval()
    starts = range(0, len(joints), EMBED_BATCH)
    batches = (torch.from_numpy(centred(joints[start : start + EMBED_BATCH], root)) for start in starts)
    return [network(batch.to(device)).window for batch in batches]


def rank_windows(
    probe: np.ndarray, probe_ids: np.ndarray, gallery: np.ndarray, gallery_ids: np.ndarray, device: torch.device
) -> Ranking:
    """Rank all gallery entries for each probe entry: no camera is filtered, nothing is left out."""
    cameras = np.zeros(len(probe), np.int64), np.zeros(len(gallery), np.int64)
    return rank(
        probe, probe_ids, cameras[0], gallery, gallery_ids, cameras[1], RankOptions(camera_filter=False), device
    )


def pool(entries: np.ndarray, owners: np.ndarray) -> np.ndarray:
    """Average the rows (W, E) of each sequence: (sequences, E)."""
    count = np.bincount(owners)
    sums = np.zeros((len(count), entries.shape[1]))
    np.add.at(sums, owners, entries)
    return sums / count[:, None]


# ---- evaluation ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SkeletonEvaluation:
    """Metrics of a model of skeletons alone, per window and per whole sequence.

    Attributes
    ----------
    dataset
        Its name.
    protocol
        What was measured.
    model
        Digest of the model's file.
    metrics
        ``window`` and ``tracklet``, each with Rank-k and mAP as fractions, and numbers of probes.
    compared
        The same of a random order and of nearest neighbours by bone lengths, by name.
    seconds
        How long it took.
    """

    dataset: str
    protocol: dict[str, Any]
    model: str
    metrics: dict[str, dict[str, float]]
    compared: dict[str, dict[str, dict[str, float]]]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the content of ``metrics.json``."""
        return {
            "kind": "skeletons",
            "dataset": self.dataset,
            "protocol": self.protocol,
            "model": self.model,
            "figures": self.metrics,
            "compared": self.compared,
            "seconds": self.seconds,
        }

    def save(self, path: Path | str) -> None:
        """Write ``metrics.json``."""
        write_json(Path(path), self.as_dict())


def evaluate_skeletons(model: SkeletonModel, dataset: SkeletonDataset, device: torch.device) -> SkeletonEvaluation:
    """Score a model on the probe and gallery of its own split.

    Raises
    ------
    CsipError
        The data set's training sequences are not those of the model, so that its probe might be among them.
    """
    started = time.monotonic()
    chosen = model.settings.skeleton_training
    if fingerprint_sequences(dataset.train) != model.description["sequences"]:
        raise CsipError(
            f"{model.path}: trained on other sequences (data set {model.description['dataset']}) than the training part of "
            f"{dataset.name} in {dataset.root}: its probe may be among them; train again on this data set"
        )
    joints = joint_set(dataset.joint_set)
    probe, gallery = (windows(part, chosen.frames) for part in (dataset.probe, dataset.gallery))
    described = {
        BASELINE: [bone_lengths(torch.from_numpy(part[0]), joints).numpy() for part in (probe, gallery)],
        "trained": [embed_windows(model.network, part[0], joints.root, device) for part in (probe, gallery)],
    }
    rows: dict[str, Any] = {"chance": _chance(dataset, probe[1], gallery[1])}
    for label, (asked, found) in described.items():
        rows[label] = _score(asked, found, dataset, probe[1], gallery[1], device)
    return SkeletonEvaluation(
        dataset=dataset.name,
        protocol={
            "split": dataset.protocol,
            "frames": chosen.frames,
            "probe_windows": len(probe[0]),
            "gallery_windows": len(gallery[0]),
            "probe_sequences": len(dataset.probe),
            "gallery_sequences": len(dataset.gallery),
            "windows": "consecutive, not overlapping, every one counted",
            "removed": "nothing: no camera filter",
            "tracklet": "the mean of a sequence's windows",
        },
        model=model.digest,
        metrics=rows.pop("trained"),
        compared=rows,
        seconds=time.monotonic() - started,
    )


def _ids(sequences: tuple[SkeletonSequence, ...], owners: np.ndarray) -> np.ndarray:
    return np.array([s.pid for s in sequences])[owners]


def _score(
    asked: np.ndarray,
    found: np.ndarray,
    dataset: SkeletonDataset,
    probe_owners: np.ndarray,
    gallery_owners: np.ndarray,
    device: torch.device,
) -> dict[str, dict[str, float]]:
    every = np.arange(len(dataset.probe)), np.arange(len(dataset.gallery))
    levels = {
        "window": (asked, found, probe_owners, gallery_owners),
        "tracklet": (pool(asked, probe_owners), pool(found, gallery_owners), *every),
    }
    result = {}
    for level, (left, right, left_owners, right_owners) in levels.items():
        left_ids, right_ids = _ids(dataset.probe, left_owners), _ids(dataset.gallery, right_owners)
        scores = rank_windows(left, left_ids, right, right_ids, device)
        result[level] = {f"rank{k}": scores.cmc[k] for k in RANKS} | {
            "map": scores.map,
            "probes": len(left),
            "valid_probes": scores.valid_queries,
        }
    return result


def _chance(
    dataset: SkeletonDataset, probe_owners: np.ndarray, gallery_owners: np.ndarray
) -> dict[str, dict[str, float]]:
    every = np.arange(len(dataset.probe)), np.arange(len(dataset.gallery))
    result = {}
    for level, (left, right) in {"window": (probe_owners, gallery_owners), "tracklet": every}.items():
        ids = _ids(dataset.probe, left), _ids(dataset.gallery, right)
        expected = chance(ids[0], np.zeros_like(ids[0]), ids[1], np.zeros_like(ids[1]), camera_filter=False)
        result[level] = {f"rank{k}": expected.cmc[k] for k in RANKS} | {"map": expected.map}
    return result
