"""A trained model ready for use: the network, and the settings that embedding needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from csip.config import Settings
from csip.data.content import contents_of
from csip.data.dataset import Dataset, Tracklet, Tracklets
from csip.errors import CsipError
from csip.models.factory import untrained_like
from csip.models.reid import ReIDModel
from csip.monitor import Monitor, Silent
from csip.retrieval.descriptors import Descriptors
from csip.retrieval.embedding import Embedder, PixelEmbedder, own_cameras
from csip.retrieval.frames import Frame, frames_in, read_pixels
from csip.runtime import Precision

RENDERED_ENCODERS = ("demo.safetensors", "poses.safetensors")  # weights that ship and know rendered people alone


def knows_rendered_people(pretrained: str | None) -> bool:
    """Whether the weights that an image encoder starts from (``vision.pretrained``) know rendered people alone."""
    return pretrained is not None and Path(pretrained).name in RENDERED_ENCODERS


@dataclass(eq=False)
class Model:
    """A trained model and what must be known to use it; `csip.load` makes one.

    Attributes
    ----------
    network
        The network, or the same network in another runtime.
    settings
        Those of training; ``evaluation`` and ``runtime`` say how it is used now.
    trained_on
        Name of the data set that it was trained on.
    camera_rows
        Rows of the camera embedding by that data set's cameras.
    digest
        Of the model's own file, in whatever runtime it runs: descriptors of equal digests can be compared.
    file_digest
        Of the file that it runs from.
    device, precision
        As `csip.retrieval.embedding.Embedder` has them.
    description
        What the file says of itself; None where it was not written by training.
    reopen
        Loads the same model in another process; it can be pickled. None where the model has no file.
    """

    network: ReIDModel | PixelEmbedder
    settings: Settings
    trained_on: str
    camera_rows: dict[int, int]
    digest: str
    file_digest: str
    device: torch.device
    precision: Precision = "32-true"
    description: Mapping[str, Any] | None = None
    reopen: Callable[[], Model] | None = None

    def to(self, device: str | torch.device) -> Model:
        """Compute on another device from now on; returns the model itself."""
        self.device = pick_device(device)
        return self

    def embed(
        self, what: Dataset | Sequence[Tracklet] | Iterable[Frame] | Frame, monitor: Monitor | None = None
    ) -> Descriptors:
        """Embed tracklets of a data set, or the frames of one person.

        Parameters
        ----------
        what
            A part of a data set (``dataset.gallery``, or a slice of it); a data set, for its query and gallery tracklets, each
            once; a folder of crops; or the crops themselves, in order of time, which make one tracklet: paths, arrays
            (H, W, 3) uint8 RGB, Pillow images.

        Raises
        ------
        CsipError
            A frame cannot be read, or tracklets do not know their data set.
        """
        if isinstance(what, Dataset):
            return self.embed_tracklets(what, tested(what), monitor)
        if isinstance(what, Tracklets):
            return self.embed_tracklets(what.dataset, what, monitor)
        if isinstance(what, str | Path):
            path = Path(what)
            return self.embed_frames(frames_in(path) if path.is_dir() else [path], path.name)
        if isinstance(what, np.ndarray) and what.ndim == 3:
            return self.embed_frames([what])
        items: list[Any] = list(what) if isinstance(what, Iterable) else [what]
        if items and isinstance(items[0], Tracklet):
            raise CsipError(
                f"tracklet {items[0].name}: its frames are relative to a data set's folder, and a plain list does not know "
                "which; use model.embed_tracklets(dataset, tracklets)"
            )
        return self.embed_frames(items)

    def embed_tracklets(
        self, dataset: Dataset, tracklets: Sequence[Tracklet], monitor: Monitor | None = None
    ) -> Descriptors:
        """Embed some tracklets of a data set."""
        if not tracklets:
            raise CsipError(f"{dataset.root}: there are no tracklets to embed")
        pictures = contents_of(dataset.root, tracklets)  # before they are read: what changes meanwhile then shows
        features = self.embedder(dataset.name).tracklets(dataset.root, tracklets, monitor or Silent())
        return Descriptors.of(dataset, tracklets, features, self.digest, pictures)

    def embed_frames(self, frames: Iterable[Frame], name: str = "frames") -> Descriptors:
        """Embed the frames of one person as one tracklet, of no data set and of an unknown camera."""
        embedder = self.embedder("")
        feature = embedder.pixels(read_pixels(frames, self.settings.clips))
        unknown, no = np.zeros(1, dtype=np.int64), np.zeros(1, dtype=np.bool_)
        return Descriptors(feature[None], (name,), unknown, unknown, no, no, "", self.digest)

    def embedder(self, dataset: str) -> Embedder:
        """Return what embeds tracklets of a data set of this name."""
        rows = own_cameras(self.camera_rows, self.trained_on, dataset)
        return Embedder(self.network, self.settings, rows, self.device, self.precision)

    def untrained(self, pretrained: bool) -> Model:
        """Return the model as it was before its training: with the weights it started from, or with random ones.

        Raises
        ------
        CsipError
            The model's file does not say how it was made.
        """
        if self.description is None:
            raise CsipError("evaluation.compare_untrained needs the model that training wrote, not an exported one")
        network = untrained_like(dict(self.description), pretrained)
        return Model(
            network,
            self.settings,
            self.trained_on,
            self.camera_rows,
            "",
            "",
            self.device,
            self.precision,
            self.description,
        )

    def cautions(self, root: Path, dataset: str) -> list[str]:
        """Say what makes descriptors of frames below `root`, of a data set of that name, worse than they could be."""
        texts = []
        if knows_rendered_people(self.settings.vision.pretrained) and not (root / "truth.npz").exists():
            texts.append(
                "this model's image encoder is the demo's, which was trained on rendered people: of real people its "
                "descriptors say little more than the colour of their clothing"
            )
        if self.trained_on != dataset:
            texts.append(f"this model was trained on data set {self.trained_on}, and {dataset} is embedded with it")
        return texts

    def __repr__(self) -> str:
        return f"<Model {self.digest}: trained on {self.trained_on}, {self.settings.vision.model}, on {self.device}>"


def tested(dataset: Dataset) -> Tracklets:
    """Return the query tracklets and the rest of the gallery, each once."""
    return Tracklets({t.name: t for part in (dataset.query, dataset.gallery) for t in part}.values(), dataset)


def pick_device(device: str | torch.device) -> torch.device:
    """Return the device of this name; ``auto`` is CUDA where there is a GPU.

    Raises
    ------
    CsipError
        torch does not know the device, or sees none such.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        found = torch.device(device)
    except RuntimeError as error:
        raise CsipError(f"device: expected auto, cpu, cuda or cuda:0, found {device!r}") from error
    if found.type == "cuda" and not torch.cuda.is_available():
        raise CsipError(f"device is {device}, but torch sees no CUDA device; use cpu", parameter="device")
    return found
