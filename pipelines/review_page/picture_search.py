"""Descriptors of single pictures: crops of tracklets and uploaded ones, by the model that has described the data set."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from csip.data.dataset import Tracklet
from csip.errors import CsipError
from csip.monitor import Silent
from csip.retrieval.model import Model
from pose_cache.images import load_frame


class PictureSearch:
    """Describes pictures; the model is loaded when the first one is asked for.

    Parameters
    ----------
    load
        Loads the model, or raises a `CsipError`.
    digest
        Of the model that has described the tracklets.
    root, dataset
        Folder that the tracklets' frames are relative to, and the name of their data set.
    """

    def __init__(self, load: Callable[[], Model], digest: str, root: Path, dataset: str) -> None:
        self._load, self._digest, self._root, self._dataset = load, digest, root, dataset
        self._model: Model | None = None
        self._lock = threading.Lock()  # one picture at a time: memory stays that of one

    def of_crop(self, tracklet: Tracklet, number: int) -> np.ndarray:
        """Return the descriptor, (D,), of one frame of a tracklet, counted from 0.

        Raises
        ------
        CsipError
            The model is not at hand, or the frame cannot be read.
        """
        crop = Tracklet(tracklet.name, tracklet.pid, tracklet.camera, (tracklet.frames[number],))
        with self._lock:
            return self._ready().embedder(self._dataset).tracklets(self._root, [crop], Silent())[0]

    def of_upload(self, data: bytes) -> np.ndarray:
        """Return the descriptor, (D,), of a picture of one person, at a camera that nobody knows.

        Raises
        ------
        CsipError
            The model is not at hand, or the picture cannot be used.
        """
        with TemporaryDirectory() as folder:
            path = Path(folder) / "picture"
            path.write_bytes(data)
            image, source = load_frame(path)
        if image is None or not source.kind.usable:
            raise CsipError(f"the picture cannot be used: {source.kind.label}")
        with self._lock:
            return self._ready().embed_frames([np.ascontiguousarray(image[..., ::-1])]).features[0]

    def _ready(self) -> Model:
        if self._model is None:
            model = self._load()
            if model.digest != self._digest:
                raise CsipError(
                    f"the tracklets were described by another model ({self._digest}) than the one that would describe the "
                    f"picture ({model.digest}); start csip review with --model RUN"
                )
            self._model = model
        return self._model
