"""The evaluation stage of the chain: embed query and gallery, rank, write ``metrics.json``."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import csip.loading
from csip.config import Settings
from csip.data.dataset import Dataset
from csip.data.fingerprints import TrainingData
from csip.data.labels import LABELS, is_proposal
from csip.data.readers import load_labelled
from csip.data.skeleton_readers import LAYOUTS
from csip.errors import CsipError
from csip.retrieval.descriptors import write_descriptors
from csip.retrieval.evaluation import evaluate
from csip.retrieval.looks import look
from csip.retrieval.model import Model
from csip.runtime import make_fabric, only_first
from csip.training.run_folder import skeletons_of
from pipelines import evaluate_skeletons
from pipelines.console import RichMonitor, console
from pipelines.embed_tracklets import DESCRIPTORS, own_model
from pipelines.tables import rich_table


def run(settings: Settings, run_folder: Path, cross_dataset: bool, second_look: bool = False) -> None:
    """Score a run's model on the data set's query and gallery; write ``RUN/metrics.json`` and ``RUN/descriptors.h5``.

    The model is ``RUN/stage2``. Where the data set has skeletons alone it is ``RUN/skeleton``, and no descriptors are written.

    Several processes share the tracklets. On a test world a second model of the same seed needs `second_look`.

    Raises
    ------
    CsipError
        The model is missing, damaged or of another data set, or the data set cannot be scored.
    """
    if settings.dataset.layout in LAYOUTS:
        evaluate_skeletons.run(settings, run_folder)
        return
    started = time.monotonic()
    dataset = load_labelled(settings.dataset, "evaluation")
    path = own_model(run_folder)
    fabric = make_fabric(settings.runtime)
    model = csip.loading.load(path, str(fabric.device), evaluation=settings.evaluation, runtime=settings.runtime)
    if model.trained_on != dataset.name and not cross_dataset:
        raise CsipError(
            f"{path}: this model was trained on data set {model.trained_on}, but {dataset.name} is to be scored; "
            "give --cross-dataset if that is what you want"
        )
    elif not cross_dataset:
        _check_data(model, dataset, path)
    looks = None
    if fabric.is_global_zero:
        looks = look(dataset, model.digest, model.settings.runtime.seed, second_look)
    with RichMonitor() as shown:
        monitor = only_first(shown, fabric)
        labels = dataset.root / LABELS
        if is_proposal(labels):
            monitor.say(
                f"{labels} is a proposal of `csip cluster`, and nobody has corrected it: the metrics compare descriptors with a "
                "guess made from descriptors, not with the truth"
            )
        cache = None if cross_dataset else skeletons_of(path.parent)
        there = cache if cache is not None and cache.exists() else None
        evaluation = evaluate(model, dataset, monitor, fabric, there)
    if not fabric.is_global_zero:
        return
    if evaluation.descriptors is not None:
        write_descriptors(run_folder / DESCRIPTORS, evaluation.descriptors)
    protocol = replace(evaluation.protocol, test_looks=looks)
    evaluation = replace(evaluation, protocol=protocol, seconds=time.monotonic() - started)
    out = run_folder / "metrics.json"
    evaluation.save(out)
    console.print(rich_table(evaluation.table(), bold="trained"))
    if (strata := evaluation.strata_table()) is not None:
        console.print(rich_table(strata, bold="trained"))
    console.print(rich_table(evaluation.camera_table()))
    console.print(f"evaluate: {evaluation.seconds:.0f} s -> {out}")


def _check_data(model: Model, dataset: Dataset, path: Path) -> None:
    """Refuse a model of what the data set held before its training part changed; where that is gone, nothing is compared."""
    cache = skeletons_of(path.parent)
    if model.description is None or cache is None or not cache.exists():
        return
    now = TrainingData.of(dataset, cache)
    recorded = str(model.description.get("pictures"))
    frames = (dataset.root / frame for tracklet in dataset.train for frame in tracklet.frames)
    if now.pictures != recorded and not all(frame.exists() for frame in frames):
        now = replace(now, pictures=recorded)
    if changes := now.changes(model.description):
        raise CsipError(
            f"{path}: this model was trained on other data than data set {dataset.name} holds now; changed: {changes}; train "
            "both stages again, or give --cross-dataset to score it all the same"
        )
