"""The embedding stage: a trained model and a data set in, ``descriptors.h5`` out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Literal

import csip.loading
from csip.config import Settings
from csip.data.dataset import Dataset, Tracklets
from csip.data.readers import load_dataset
from csip.errors import CsipError
from csip.loading import model_file
from csip.retrieval.in_parts import embed_to_file
from csip.retrieval.model import Model, tested
from csip.runtime import make_fabric, only_first, share_out
from pipelines.advice import share_done
from pipelines.console import RichMonitor, console
from pose_cache.pieces import Spread

DESCRIPTORS = "descriptors.h5"
Part = Literal["test", "all"]


def run(
    settings: Settings,
    run_folder: Path,
    model: Path | None = None,
    onnx: Path | None = None,
    part: Part = "test",
    out: Path | None = None,
    spread: Spread | None = None,
) -> Path:
    """Embed the tracklets of a data set; resumes after an interruption.

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
    spread
        Who does the work, and which share of it; this process by default, or all that ``torchrun`` has started.

    Returns
    -------
    Path
        The file written, or that will be when all shares are done.

    Raises
    ------
    CsipError
        The model is missing or damaged, the data set cannot be read, or `out` is no such file.
    """
    started = time.monotonic()
    out = out if out is not None else run_folder / DESCRIPTORS
    spread, fabric = spread or Spread(), make_fabric(settings.runtime)
    trained = load(settings, run_folder, model, onnx, str(fabric.device))
    dataset = load_dataset(settings.dataset)
    tracklets = tracklets_of(dataset, part)
    with RichMonitor() as shown:
        monitor = only_first(shown, fabric)
        for text in trained.cautions(dataset.root, dataset.name):
            monitor.say(text)
        if part == "test" and dataset.train:
            monitor.say(f"{len(dataset.train):,} training tracklets are left out; --part all embeds them, too")
        descriptors = share_out(
            fabric, spread, lambda chosen: embed_to_file(trained, dataset, tracklets, out, chosen, monitor)
        )
    if not fabric.is_global_zero:
        return out
    taken = f"{time.monotonic() - started:.0f} s"
    if descriptors is None:
        assert spread.share is not None
        console.print(f"embed: {share_done(spread.share, out)}; {taken}", soft_wrap=True)
    else:
        width = descriptors.features.shape[1]
        console.print(f"embed: {len(descriptors):,} tracklets, {width:,} values each, {taken} -> {out}", soft_wrap=True)
    return out


def load(
    settings: Settings, run_folder: Path, model: Path | None = None, onnx: Path | None = None, device: str | None = None
) -> Model:
    """Load the model that embeds, a run's own or another one's, to be used as the settings say.

    Parameters
    ----------
    device
        Of this process, if not ``runtime.device``.

    Raises
    ------
    CsipError
        It is missing or damaged.
    """
    path = onnx if onnx is not None else model_file(model) if model is not None else own_model(run_folder)
    if onnx is None and not path.exists():
        raise CsipError(f"{path}: missing; `csip train-stage2` makes it, or name another model with --model RUN/stage2")
    chosen = device or settings.runtime.device
    return csip.loading.load(path, chosen, evaluation=settings.evaluation, runtime=settings.runtime)


def own_model(run_folder: Path) -> Path:
    """Return the file of the model that a run has trained."""
    return run_folder / "stage2" / "model.safetensors"


def tracklets_of(dataset: Dataset, part: Part) -> Tracklets:
    """List the tracklets of a part, each once: queries, the rest of the gallery, those that train."""
    if part == "test":
        return tested(dataset)
    return Tracklets({t.name: t for t in (*tested(dataset), *dataset.train)}.values(), dataset)
