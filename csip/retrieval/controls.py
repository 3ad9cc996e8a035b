"""Controls of a test: the same clips with more than the test gives, or with less.

With skeletons a model is its own teacher, which is the most that its visual branch could learn. With the frames of each clip
in another order, what is lost is what the model had from their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from csip.data.clips import normalize, read_frames
from csip.data.dataset import Dataset, Tracklet
from csip.data.skeletons import Skeletons
from csip.errors import CsipError
from csip.models.reid import ReIDModel
from csip.monitor import Monitor
from csip.retrieval.embedding import clips_of, tracklet_descriptor
from csip.retrieval.model import Model
from csip.runtime import to_device
from pose_cache.store import SkeletonStore


def has_skeletons(cache: Path, dataset: Dataset) -> bool:
    """Whether a cache has the skeletons of the test tracklets, as `csip skeletons --test-too` extracts them."""
    with SkeletonStore(cache) as store:
        return all(t.name in store for t in (*dataset.query, *dataset.gallery))


def embed_with_skeletons(
    model: Model, dataset: Dataset, tracklets: Sequence[Tracklet], skeletons: Skeletons, monitor: Monitor
) -> np.ndarray:
    """Embed tracklets by the branch that sees skeletons.

    Parameters
    ----------
    skeletons
        Of these tracklets, in their order.

    Returns
    -------
    ndarray, shape (tracklets, W), float32
        Unit length.
    """
    return _embed(model, dataset, tracklets, monitor, skeletons=skeletons)


def embed_shuffled(model: Model, dataset: Dataset, tracklets: Sequence[Tracklet], monitor: Monitor) -> np.ndarray:
    """Embed tracklets with the frames of each clip in random order; shape (tracklets, W), unit length.

    The order is the same for every model.
    """
    return _embed(model, dataset, tracklets, monitor, order=np.random.default_rng(0))


def _embed(
    model: Model,
    dataset: Dataset,
    tracklets: Sequence[Tracklet],
    monitor: Monitor,
    *,
    skeletons: Skeletons | None = None,
    order: np.random.Generator | None = None,
) -> np.ndarray:
    network, settings, device = model.network, model.settings, model.device
    if not isinstance(network, ReIDModel):
        raise CsipError("controls need a model that torch runs; an exported one has its visual branch alone")
    network.to(device).eval()
    camera_rows = model.camera_rows if model.trained_on == dataset.name else {}
    found = []
    for number, tracklet in enumerate(tracklets):
        clips = clips_of(
            len(tracklet.frames), settings.clips.frames, settings.evaluation.sampling, settings.clips.stride
        )
        if order is not None:
            clips = order.permuted(clips, axis=1)
        images = read_frames(dataset.root, [tracklet.frames[i] for i in clips.flat], settings.clips)
        images = images.reshape(*clips.shape, *images.shape[1:])
        joints = valid = None
        if skeletons is not None:
            joints = to_device(torch.from_numpy(skeletons.joints[number][clips]), device)
            valid = to_device(torch.from_numpy(skeletons.valid[number][clips]), device)
        camera, described = torch.full((len(clips),), camera_rows.get(tracklet.camera, -1), device=device), []
        at_once = max(settings.runtime.embed_batch // settings.clips.frames, 1)
        with torch.inference_mode():
            for first in range(0, len(clips), at_once):
                part = slice(first, first + at_once)
                pixels = normalize(to_device(torch.from_numpy(images[part]), device), settings.clips)
                skeleton = () if joints is None or valid is None else (joints[part], valid[part])
                described.append(network.embed(pixels, camera[part], *skeleton))
        found.append(tracklet_descriptor(torch.cat(described)))
        monitor.progress("embedding tracklets", number + 1, len(tracklets))
    return np.stack(found)
