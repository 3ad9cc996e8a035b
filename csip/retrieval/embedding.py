"""Descriptors of tracklets: the test branch, images alone."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from csip.config import ClipSettings, Settings
from csip.data.clips import normalize, read_frames, sample_centres, sample_dense
from csip.data.dataset import Tracklet, fingerprint
from csip.models.reid import ReIDModel
from csip.monitor import Monitor


class PixelEmbedder(Protocol):
    """What turns frames as they are decoded into descriptors: a `PixelModel`, or an ONNX file that was made of one."""

    @property
    def cameras(self) -> int:
        """Rows of the camera embedding; 0 without one."""

    def embed_pixels(self, images: Tensor, camera: Tensor) -> Tensor:
        """Return (B, 2 D + C) float32 of clips (B, T, 3, H, W), uint8 RGB, and rows of the camera embedding (B,), -1 for none."""


class PixelModel(nn.Module):
    """The test branch of a model with the normalisation of pixels before it.

    Parameters
    ----------
    model : ReIDModel
    settings : ClipSettings
        With the mean and standard deviation that the model was trained with.
    """

    def __init__(self, model: ReIDModel, settings: ClipSettings) -> None:
        super().__init__()
        self.model, self.settings = model, settings

    @property
    def cameras(self) -> int:
        """Rows of the camera embedding; 0 without one."""
        embedding = self.model.vision.camera_embedding
        return 0 if embedding is None else len(embedding)

    def embed_pixels(self, images: Tensor, camera: Tensor) -> Tensor:
        return self.model.embed(normalize(images, self.settings), camera)

    forward = embed_pixels


def own_cameras(camera_rows: dict[int, int], trained_on: str, dataset: str) -> dict[int, int]:
    """Return a model's rows of the camera embedding for a data set: none for one that it was not trained on.

    Cameras are numbered by each data set for itself: camera 1 of another one is another camera.
    """
    return camera_rows if trained_on == dataset else {}


SHARD = 64  # tracklets: what a stopped run can lose at most


def clips_of(length: int, frames: int, sampling: Literal["dense", "rrs"]) -> np.ndarray:
    """Return the frames of each clip that a tracklet of `length` frames is tested as, (clips, frames)."""
    return sample_dense(length, frames) if sampling == "dense" else sample_centres(length, frames)


class TestClips(TorchDataset):
    """The clips of tracklets as the test sees them, one tracklet an item: (tracklet, (clips, T, 3, H, W) uint8)."""

    __test__ = False  # not a test case, whatever its name says to pytest

    def __init__(
        self, root: Path, tracklets: Sequence[Tracklet], settings: Settings, sampling: Literal["dense", "rrs"]
    ) -> None:
        self.root, self.tracklets, self.settings = root, tracklets, settings.clips
        self.sampling = sampling

    def __len__(self) -> int:
        return len(self.tracklets)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        frames = self.tracklets[index].frames
        clips = clips_of(len(frames), self.settings.frames, self.sampling)
        used, position = np.unique(clips, return_inverse=True)
        images = read_frames(self.root, [frames[i] for i in used], self.settings)
        return index, torch.from_numpy(images[position.reshape(clips.shape)])


def embed_tracklets(
    model: ReIDModel | PixelEmbedder,
    root: Path,
    tracklets: Sequence[Tracklet],
    camera_rows: dict[int, int],
    settings: Settings,
    device: torch.device,
    monitor: Monitor,
    sampling: Literal["dense", "rrs"] | None = None,
) -> np.ndarray:
    """Embed tracklets; the clips of a tracklet are averaged, then normalised.

    Parameters
    ----------
    camera_rows
        The training cameras and their rows in the camera embedding; other cameras get none, and the monitor hears of it once.
    sampling
        ``dense`` or ``rrs``; by default ``evaluation.sampling``.

    Returns
    -------
    ndarray, shape (tracklets, 2 D + C), float32
        Unit length.
    """
    clips = _embed(model, root, tracklets, camera_rows, settings, device, monitor, sampling)
    return np.stack([_mean(one) for one in clips])


def embed_in_shards(
    model: ReIDModel | PixelEmbedder,
    model_digest: str,
    root: Path,
    tracklets: Sequence[Tracklet],
    camera_rows: dict[int, int],
    settings: Settings,
    device: torch.device,
    monitor: Monitor,
    folder: Path,
) -> np.ndarray:
    """Embed tracklets as `embed_tracklets` does, to the same numbers, and go on where an earlier call was stopped.

    Parameters
    ----------
    model_digest
        Of the model's file: shards that another model has left are not used.
    folder
        Where finished shards are kept until the caller calls `remove_shards`, having saved the whole.

    Returns
    -------
    ndarray, shape (tracklets, 2 D + C), float32
        Unit length.
    """
    clips, sampling = settings.clips, settings.evaluation.sampling
    parts = [fingerprint(tracklets), str(root.absolute()), model_digest, sorted(camera_rows.items()), sampling,
             settings.evaluation.part_norm, clips.frames, clips.height, clips.width, clips.mean, clips.std]  # fmt: skip
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    shards = [folder / f"{key}-{start // SHARD:05d}.npy" for start in range(0, len(tracklets), SHARD)]
    missing = [number for number, shard in enumerate(shards) if not shard.exists()]
    todo = [t for number in missing for t in tracklets[number * SHARD : (number + 1) * SHARD]]
    if missing and len(missing) < len(shards):
        monitor.say(f"{len(tracklets) - len(todo):,} of {len(tracklets):,} tracklets are kept from before")
    folder.mkdir(parents=True, exist_ok=True)
    described = _embed(model, root, todo, camera_rows, settings, device, monitor, None)
    for number in missing:
        rows = [_mean(next(described)) for _ in tracklets[number * SHARD : (number + 1) * SHARD]]
        temporary = shards[number].with_name(f".{shards[number].name}.tmp")
        data = io.BytesIO()  # written to a file, np.save hides that the disk is full
        np.save(data, np.stack(rows))
        temporary.write_bytes(data.getbuffer())
        temporary.replace(shards[number])
    return np.concatenate([np.load(shard) for shard in shards])


def remove_shards(folder: Path) -> None:
    """Remove what `embed_in_shards` has kept."""
    shutil.rmtree(folder, ignore_errors=True)


def embed_clips(
    model: ReIDModel | PixelEmbedder,
    root: Path,
    tracklets: Sequence[Tracklet],
    camera_rows: dict[int, int],
    settings: Settings,
    device: torch.device,
    monitor: Monitor,
    sampling: Literal["dense", "rrs"] | None = None,
) -> list[np.ndarray]:
    """Embed every clip of the tracklets on its own; parameters as in :func:`embed_tracklets`.

    Returns
    -------
    list of ndarray, each (clips, 2 D + C), float32
        One array a tracklet, rows of unit length.
    """
    clips = _embed(model, root, tracklets, camera_rows, settings, device, monitor, sampling)
    return [torch.nn.functional.normalize(one, dim=1).cpu().numpy() for one in clips]


def _mean(clips: Tensor) -> np.ndarray:
    """Return the descriptor of a tracklet, (D,), from those of its clips, (clips, D)."""
    return np.asarray(torch.nn.functional.normalize(clips.mean(dim=0), dim=0).cpu().numpy())


def _embed(
    model: ReIDModel | PixelEmbedder,
    root: Path,
    tracklets: Sequence[Tracklet],
    camera_rows: dict[int, int],
    settings: Settings,
    device: torch.device,
    monitor: Monitor,
    sampling: Literal["dense", "rrs"] | None,
) -> Iterator[Tensor]:
    """Yield the descriptors of each tracklet's clips, (clips, 2 D + C) float32, on the device."""
    unknown = sorted({t.camera for t in tracklets} - camera_rows.keys())
    embedder = PixelModel(model, settings.clips).to(device).eval() if isinstance(model, ReIDModel) else model
    if unknown and embedder.cameras:
        monitor.say(f"cameras {', '.join(map(str, unknown))} were not there in training: they get no camera embedding")
    clips = TestClips(root, tracklets, settings, sampling or settings.evaluation.sampling)
    loader = DataLoader(clips, batch_size=None, num_workers=settings.runtime.workers)
    at_once = max(settings.runtime.embed_batch // settings.clips.frames, 1)
    for index, images in loader:
        row = camera_rows.get(tracklets[index].camera, -1)
        parts = []
        with torch.inference_mode():
            for chunk in images.split(at_once):
                camera = torch.full((len(chunk),), row, device=device)
                parts.append(embedder.embed_pixels(chunk.to(device), camera).float())
        yield torch.cat(parts)
        monitor.progress("embedding tracklets", index + 1, len(tracklets))
