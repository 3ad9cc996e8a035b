"""The stage that describes tracklets: images and a trained model in, ``descriptors.h5`` out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from csip.config import Settings
from csip.data.dataset import Dataset, Tracklet
from csip.data.readers import load_dataset
from csip.errors import CsipError
from csip.files import digest
from csip.models.factory import load_trained
from csip.models.reid import ReIDModel
from csip.monitor import Monitor
from csip.retrieval.descriptors import Descriptors, write_arrays, write_descriptors
from csip.retrieval.embedding import PixelEmbedder, embed_in_shards, own_cameras, remove_shards
from csip.runtime import make_fabric
from pipelines.console import RichMonitor, console

DESCRIPTORS = "descriptors.h5"
DEMO_TOWER = "demo.safetensors"
Part = Literal["test", "all"]


@dataclass(frozen=True)
class Trained:
    """A trained model and what must be known to use it.

    Attributes
    ----------
    model
        The model, or the same network in another runtime.
    cameras
        Rows of the camera embedding by the data set's cameras; empty where the model has not seen this data set.
    settings
        The model's own, with the data set, the evaluation and the machine of now.
    digest
        Of the model's own file, in whatever runtime it runs.
    file_digest
        Of the file that it runs from.
    trained_on
        Name of the data set that it was trained on.
    """

    model: ReIDModel | PixelEmbedder
    cameras: dict[int, int]
    settings: Settings
    digest: str
    file_digest: str
    trained_on: str

    @property
    def knows_only_rendered_people(self) -> bool:
        """Whether its image encoder is the demo's."""
        pretrained = self.settings.vision.pretrained
        return pretrained is not None and Path(pretrained).name == DEMO_TOWER


def run(
    settings: Settings,
    run_folder: Path,
    model: Path | None = None,
    onnx: Path | None = None,
    part: Part = "test",
    out: Path | None = None,
) -> Path:
    """Describe the tracklets of a data set; goes on where it was stopped.

    Parameters
    ----------
    model
        The model's file or folder, if not ``RUN/stage2``.
    onnx
        The same network as an ONNX file, to run it by onnxruntime.
    part
        ``test``: query and gallery; ``all``: also the training tracklets.
    out
        The file to write, ``.h5`` or ``.npz``, if not ``RUN/descriptors.h5``.

    Returns
    -------
    Path
        The file written.

    Raises
    ------
    CsipError
        The model is missing or damaged, the data set cannot be read, or `out` is no such file.
    """
    started = time.monotonic()
    out = out if out is not None else run_folder / DESCRIPTORS
    if out.suffix not in (".h5", ".npz"):
        raise CsipError(f"{out}: descriptors are written as .h5 or .npz; give --out a name that ends so")
    trained = load(settings, run_folder, model, onnx)
    dataset = load_dataset(settings.dataset)
    tracklets = tracklets_of(dataset, part)
    shards = out.with_name(f".{out.name}.shards")
    with RichMonitor() as monitor:
        warn(trained, dataset.root, dataset.name, monitor)
        if part == "test" and dataset.train:
            monitor.say(f"{len(dataset.train):,} training tracklets are left out; --part all describes them, too")
        device = make_fabric(settings.runtime).device
        where = (dataset.root, tracklets, trained.cameras, trained.settings, device, monitor, shards)
        features = embed_in_shards(trained.model, trained.file_digest, *where)
    descriptors = gather(dataset, tracklets, features, trained.digest)
    (write_descriptors if out.suffix == ".h5" else write_arrays)(out, descriptors)
    remove_shards(shards)
    console.print(
        f"embed: {len(descriptors):,} tracklets, {features.shape[1]:,} numbers each, {time.monotonic() - started:.0f} s "
        f"-> {out}",
        soft_wrap=True,
    )
    return out


def load(settings: Settings, run_folder: Path, model: Path | None = None, onnx: Path | None = None) -> Trained:
    """Load the model that describes: a run's own, or another one's.

    Raises
    ------
    CsipError
        It is missing or damaged.
    """
    if onnx is not None:
        return _load_onnx(settings, onnx)
    path = model_file(run_folder, model)
    if not path.exists():
        raise CsipError(f"{path}: missing; `csip train-stage2` makes it, or name another model with --model RUN/stage2")
    network, cameras, description = load_trained(path, settings, None)
    own = Settings.model_validate(description["settings"])
    # The clips are the model's; what to describe, how, and on which machine is decided now.
    update = {"dataset": settings.dataset, "evaluation": settings.evaluation, "runtime": settings.runtime}
    trained_on = str(description["dataset"])
    cameras = own_cameras(cameras, trained_on, settings.dataset.name)
    settings = own.model_copy(update=update)
    return Trained(network, cameras, settings, model_digest(path, description), digest(path), trained_on)


def model_digest(path: Path, description: Mapping[str, Any]) -> str:
    """Return the digest of a model's file; of a slim one, that of the file it was made of, since both describe alike."""
    return str(description.get("exported_from") or digest(path))


def _load_onnx(settings: Settings, path: Path) -> Trained:
    from csip.export.onnx_model import OnnxModel

    network = OnnxModel(path)
    described = network.description
    cameras = own_cameras(described.cameras, described.dataset, settings.dataset.name)
    return Trained(network, cameras, described.apply_to(settings), described.model, digest(path), described.dataset)


def model_file(run_folder: Path, model: Path | None) -> Path:
    """Return the model's file: in ``RUN/stage2``, or in the run, the folder or the file that `model` names."""
    if model is None:
        return run_folder / "stage2" / "model.safetensors"
    if not model.is_dir():
        return model
    inner = model / "stage2" / "model.safetensors"
    return inner if inner.exists() else model / "model.safetensors"


def warn(trained: Trained, root: Path, name: str, monitor: Monitor) -> None:
    """Say what makes descriptors worse than they could be."""
    if trained.knows_only_rendered_people and not (root / "truth.npz").exists():
        monitor.say(
            "this model's image encoder is the demo's, which was trained on rendered people: of real people its descriptors "
            "say little more than the colour of their clothing"
        )
    if trained.trained_on != name:
        monitor.say(f"this model was trained on data set {trained.trained_on}, and {name} is described with it")


def tracklets_of(dataset: Dataset, part: Part) -> list[Tracklet]:
    """List the tracklets of a part, each once: queries, the rest of the gallery, those that train."""
    parts = (dataset.query, dataset.gallery, *((dataset.train,) if part == "all" else ()))
    return list({t.name: t for tracklets in parts for t in tracklets}.values())


def gather(dataset: Dataset, tracklets: Sequence[Tracklet], features: np.ndarray, model: str) -> Descriptors:
    """Put descriptors together with what the data set says of their tracklets."""
    query, gallery = ({t.name for t in part} for part in (dataset.query, dataset.gallery))
    return Descriptors(
        features,
        tuple(t.name for t in tracklets),
        np.array([t.pid for t in tracklets], dtype=np.int64),
        np.array([t.camera for t in tracklets], dtype=np.int64),
        np.array([t.name in query for t in tracklets]),
        np.array([t.name in gallery for t in tracklets]),
        dataset.name,
        model,
    )
