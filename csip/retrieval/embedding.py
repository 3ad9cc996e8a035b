"""Descriptors of tracklets: the test branch, images alone.

A descriptor has W numbers; `csip.models.reid.ReIDModel.embed` says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from csip.config import ClipSettings, Settings
from csip.data.clips import normalize, read_frames, sample_centres, sample_dense, sample_firsts
from csip.data.dataset import Tracklet
from csip.errors import CsipError
from csip.models.reid import ReIDModel
from csip.monitor import Monitor
from csip.runtime import Precision, autocast, loader_options, to_device

Sampling = Literal["dense", "interleaved", "rrs", "rrs_first"]


class PixelEmbedder(Protocol):
    """What turns frames as they are decoded into descriptors: a `PixelModel`, or an ONNX file that was made of one."""

    @property
    def cameras(self) -> int:
        """Rows of the camera embedding; 0 without one."""

    def embed_pixels(self, images: Tensor, camera: Tensor) -> Tensor:
        """Return descriptors (B, W), float32, of clips (B, T, 3, height, width), uint8 RGB.

        Parameters
        ----------
        camera
            (B,) rows of the camera embedding, -1 for none.
        """


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


def clips_of(length: int, frames: int, sampling: Sampling, stride: int | None = None) -> np.ndarray:
    """Return the frames of each clip that a tracklet of `length` frames is tested as, (clips, frames).

    Parameters
    ----------
    sampling
        ``rrs``, ``rrs_first``: one clip. ``dense``: every frame once, in clips with the step `stride`, of consecutive frames
        without one. ``interleaved``: the same, but without `stride` each clip spreads over the tracklet, as training clips
        then do.
    stride
        Step of the training clips; None where they spread over the tracklet.
    """
    if sampling == "rrs":
        return sample_centres(length, frames, stride)
    if sampling == "rrs_first":
        return sample_firsts(length, frames, stride)
    spread = -(-length // frames) if sampling == "interleaved" else 1
    return sample_dense(length, frames, spread if stride is None else stride)


class TestClips(TorchDataset):
    """The clips of tracklets as the test sees them, one tracklet an item: (tracklet, (clips, T, 3, H, W) uint8)."""

    __test__ = False  # not a test case, whatever its name says to pytest

    def __init__(self, root: Path, tracklets: Sequence[Tracklet], settings: ClipSettings, sampling: Sampling) -> None:
        self.root, self.tracklets, self.settings, self.sampling = root, tracklets, settings, sampling

    def __len__(self) -> int:
        return len(self.tracklets)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        frames = self.tracklets[index].frames
        clips = clips_of(len(frames), self.settings.frames, self.sampling, self.settings.stride)
        used, position = np.unique(clips, return_inverse=True)
        images = read_frames(self.root, [frames[i] for i in used], self.settings)
        return index, torch.from_numpy(images[position.reshape(clips.shape)])


@dataclass(frozen=True, eq=False)
class Embedder:
    """The test branch of a network on a device.

    Attributes
    ----------
    network
        The model, or the same network in another runtime.
    settings
        ``clips``, ``evaluation.sampling``, ``runtime.workers`` and ``runtime.embed_batch`` are used.
    camera_rows
        The training cameras and their rows in the camera embedding; other cameras get none, and the monitor hears of it once.
    device
        Where the network computes.
    precision
        Other than ``32-true``: of matrix products, the rest stays in float32; for speed on a GPU.
    """

    network: ReIDModel | PixelEmbedder
    settings: Settings
    camera_rows: dict[int, int]
    device: torch.device
    precision: Precision = "32-true"

    def tracklets(
        self, root: Path, tracklets: Sequence[Tracklet], monitor: Monitor, sampling: Sampling | None = None
    ) -> np.ndarray:
        """Embed tracklets; the clips of a tracklet are averaged, then normalised.

        Parameters
        ----------
        root
            The folder that frames are relative to.
        sampling
            As `clips_of` takes it; by default ``evaluation.sampling``.

        Returns
        -------
        ndarray, shape (tracklets, W), float32
            Unit length.
        """
        return np.stack(
            [tracklet_descriptor(one) for (one,) in embed_together([self], root, tracklets, monitor, sampling)]
        )

    def clips(self, root: Path, tracklets: Sequence[Tracklet], monitor: Monitor) -> list[np.ndarray]:
        """Embed every clip of the tracklets on its own; parameters as in `tracklets`.

        Returns
        -------
        list of ndarray, each (clips, W), float32
            One array per tracklet, rows of unit length.
        """
        return [clip_descriptors(one) for (one,) in embed_together([self], root, tracklets, monitor)]

    def pixels(self, images: np.ndarray) -> np.ndarray:
        """Embed one tracklet that is in memory, its camera unknown.

        Parameters
        ----------
        images
            (T, 3, height, width) uint8, RGB, of the size of ``clips``.

        Returns
        -------
        ndarray, shape (W,), float32
            Unit length.
        """
        settings, sampling = self.settings.clips, self.settings.evaluation.sampling
        clips = clips_of(len(images), settings.frames, sampling, settings.stride)
        return tracklet_descriptor(self.describe(self.pixel_embedder(), torch.from_numpy(images[clips]), -1))

    def describe_all(self, root: Path, tracklets: Sequence[Tracklet], monitor: Monitor) -> Iterator[np.ndarray]:
        """Yield the descriptors that `tracklets` returns, one after the other."""
        return (tracklet_descriptor(one) for (one,) in embed_together([self], root, tracklets, monitor))

    def say_unknown(self, tracklets: Sequence[Tracklet], monitor: Monitor) -> None:
        """Say which cameras of tracklets get no camera embedding, where the network has one."""
        unknown = sorted({t.camera for t in tracklets} - self.camera_rows.keys())
        if unknown and self.pixel_embedder().cameras:
            numbers = ", ".join(map(str, unknown))
            monitor.say(f"cameras {numbers} were not there in training: they get no camera embedding")

    def describe(self, embedder: PixelEmbedder, images: Tensor, row: int) -> Tensor:
        """Return the descriptors of one tracklet's clips, (clips, W) float32, on the device.

        Parameters
        ----------
        embedder
            What `pixel_embedder` has returned.
        images
            The clips, (clips, T, 3, H, W) uint8.
        row
            Of the camera embedding; -1 for none.
        """
        at_once = max(self.settings.runtime.embed_batch // self.settings.clips.frames, 1)
        parts = []
        with torch.inference_mode(), autocast(self.precision, self.device):
            for chunk in images.split(at_once):
                camera = torch.full((len(chunk),), row, device=self.device)
                parts.append(embedder.embed_pixels(to_device(chunk, self.device), camera).float())
        return torch.cat(parts)

    def pixel_embedder(self) -> PixelEmbedder:
        """Return the network with the normalisation of pixels before it, on the device and in evaluation mode."""
        if isinstance(self.network, ReIDModel):
            return PixelModel(self.network, self.settings.clips).to(self.device).eval()
        return self.network


def embed_together(
    embedders: Sequence[Embedder],
    root: Path,
    tracklets: Sequence[Tracklet],
    monitor: Monitor,
    sampling: Sampling | None = None,
) -> Iterator[tuple[Tensor, ...]]:
    """Embed tracklets by several networks; each frame is decoded once for all of them.

    Parameters
    ----------
    embedders
        Of the same settings and cameras, e.g. a model before and after its training.

    Yields
    ------
    tuple of Tensor
        Per tracklet, what each embedder says of its clips: (clips, W) float32, on its device.
    """
    first = embedders[0]
    networks = [embedder.pixel_embedder() for embedder in embedders]
    embedders[-1].say_unknown(tracklets, monitor)
    clips = TestClips(root, tracklets, first.settings.clips, sampling or first.settings.evaluation.sampling)
    loader = DataLoader(clips, batch_size=None, **loader_options(first.settings.runtime, first.device))
    for number, (index, images) in enumerate(loader, start=1):
        row = first.camera_rows.get(tracklets[index].camera, -1)
        yield tuple(
            embedder.describe(network, images, row) for embedder, network in zip(embedders, networks, strict=True)
        )
        monitor.progress("embedding tracklets", number, len(tracklets))


def tracklet_descriptor(clips: Tensor) -> np.ndarray:
    """Return the descriptor of a tracklet, (D,) of unit length, from those of its clips, (clips, D)."""
    return _finite(torch.nn.functional.normalize(clips.mean(dim=0), dim=0).cpu().numpy())


def clip_descriptors(clips: Tensor) -> np.ndarray:
    """Return the descriptors of clips, (clips, D), with unit length."""
    return _finite(torch.nn.functional.normalize(clips, dim=1).cpu().numpy())


def _finite(descriptors: np.ndarray) -> np.ndarray:
    """Refuse what would be nearest to anything, or to nothing."""
    if not np.isfinite(descriptors).all():
        raise CsipError(
            "the model's descriptors are not finite: its weights are damaged, or its numbers too large for runtime.precision; "
            "train it again, or set 32-true"
        )
    return descriptors
