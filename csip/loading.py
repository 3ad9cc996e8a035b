"""From names, folders and files to models and data sets."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import get_args

from csip.config import (
    DatasetSettings,
    EvaluationSettings,
    Override,
    RuntimeSettings,
    Settings,
    did_you_mean,
    known_names,
    moved_to,
    named_settings,
)
from csip.config import load_settings as read_settings
from csip.data import readers
from csip.data.dataset import Dataset
from csip.data.folder import TABLE
from csip.errors import CsipError
from csip.export.onnx_model import OnnxModel
from csip.files import digest
from csip.models.checkpoints import MODEL, load_model, model_digest
from csip.models.factory import restore
from csip.retrieval.model import Model, pick_device
from csip.runtime import Precision, precision_of
from pose_cache.shipped import CONFIGS

# ---- models ----------------------------------------------------------------------------------------------------------


def load(
    path: Path | str,
    device: str = "auto",
    precision: Precision | None = None,
    *,
    evaluation: EvaluationSettings | None = None,
    runtime: RuntimeSettings | None = None,
) -> Model:
    """Load a trained model.

    Parameters
    ----------
    path
        A run, its folder ``stage2``, the folder of an export, a ``.safetensors`` file, whole or slim, or an ``.onnx`` file.
        What `csip import-checkpoint` makes of other weights is a run, too.
    device
        ``auto``, ``cpu``, ``cuda``, ``cuda:1``; see `Model.to`. An ONNX file runs on the CPU.
    precision
        ``bf16-mixed`` and ``16-mixed`` are faster on a GPU, and change descriptors by rounding. By default as
        ``runtime.precision`` says, which is ``bf16-mixed`` on a GPU and ``32-true`` on a CPU; an ONNX file has ``32-true``.
    evaluation, runtime
        How the model is used; by default as the run's settings say.

    Raises
    ------
    CsipError
        The file is missing or damaged, or is no model of images; there is no such device or precision.

    Notes
    -----
    On a machine that is busy with other work, set ``OMP_WAIT_POLICY=PASSIVE`` in the environment before torch is imported, as
    the command line does: OpenMP's threads then sleep where they would spin for each other.
    """
    path = Path(path)
    if precision is not None and precision not in get_args(Precision):
        raise CsipError(f"precision: expected {', '.join(get_args(Precision))}, found {precision!r}")
    if path.suffix == ".onnx":
        return _load_onnx(path, precision, evaluation, runtime)
    file = model_file(path)
    if not file.exists() and (path / "skeleton" / MODEL).exists():
        raise CsipError(f"{path}: a model of skeletons alone; expected one of images, which stage 2 trains")
    tensors, description = load_model(file, "stage2")
    settings = _used(Settings.model_validate(description["settings"]), evaluation, runtime)
    description["settings"] = settings.model_dump(mode="json")
    chosen = pick_device(device)
    kind = precision or precision_of(settings.runtime, chosen)
    return Model(
        network=restore(tensors, description),
        settings=settings,
        trained_on=str(description["dataset"]),
        camera_rows={int(camera): row for camera, row in description["cameras"].items()},
        digest=model_digest(file, description),
        file_digest=digest(file),
        device=chosen,
        precision=kind,
        description=description,
        reopen=partial(load, path.absolute(), device, kind, evaluation=evaluation, runtime=runtime),
    )


def model_file(path: Path) -> Path:
    """Return the model's file in a run, in a folder of a model, or the file itself."""
    if path.suffix and not path.is_dir():
        return path
    own = path / MODEL
    return own if own.exists() or path.name == "stage2" else path / "stage2" / MODEL


def _load_onnx(
    path: Path, precision: Precision | None, evaluation: EvaluationSettings | None, runtime: RuntimeSettings | None
) -> Model:
    if precision not in (None, "32-true"):
        raise CsipError(f"{path}: an ONNX file computes in 32-true alone, found precision {precision}")
    network = OnnxModel(path)
    about = network.description
    plain = Settings(dataset=DatasetSettings(name=about.dataset))
    if evaluation is None:
        evaluation = plain.evaluation.model_copy(update={"part_norm": about.part_norm})
    settings = about.apply_to(_used(plain, evaluation, runtime))
    return Model(
        network=network,
        settings=settings,
        trained_on=about.dataset,
        camera_rows=about.cameras,
        digest=about.model,
        file_digest=digest(path),
        device=pick_device("cpu"),
        reopen=partial(load, path.absolute(), evaluation=evaluation, runtime=runtime),
    )


def _used(settings: Settings, evaluation: EvaluationSettings | None, runtime: RuntimeSettings | None) -> Settings:
    """Return a model's own settings with how it is used now."""
    update = {"evaluation": evaluation or settings.evaluation, "runtime": runtime or settings.runtime}
    return settings.model_copy(update=update)


# ---- data sets and settings ------------------------------------------------------------------------------------------


def load_dataset(
    source: Path | str | Dataset, root: Path | str | None = None, overrides: Iterable[Override] = ()
) -> Dataset:
    """Read the index of a data set; no image is opened.

    Parameters
    ----------
    source
        A name: the data set of ``configs/NAME.yaml``, here or of this package, or of the folder ``data/NAME``; otherwise a folder
        ``PERSON/CAMERA/[TRACKLET/]FRAME.jpg``, or one with ``tracklets.csv``, or that table. A `Dataset` is returned as it is.
    root
        The folder of a data set that is known by its name, if not ``data/NAME``.
    overrides
        Settings, e.g. ``dataset.split=3`` or ``dataset.layout=mars``.

    Raises
    ------
    CsipError
        There is no such data set, or its content is not what its layout says.
    """
    if isinstance(source, Dataset):
        return source
    return readers.load_dataset(load_settings(source, root, overrides).dataset)


def load_settings(source: Path | str, root: Path | str | None = None, overrides: Iterable[Override] = ()) -> Settings:
    """Read the settings of a data set, as the commands find them; parameters as those of `load_dataset`, or a YAML file.

    Raises
    ------
    CsipError
        There is no such data set or file, or a setting cannot be used.
    """
    place, overrides = Path(source), list(overrides)
    if place.suffix in (".yaml", ".yml"):
        return read_settings(place, [*overrides, *moved_to(root)])
    named = named_settings(str(source), root, overrides)
    if named is not None:
        return named
    root = place.absolute().parent if place.name == TABLE and place.is_file() else place
    if not root.is_dir():
        raise CsipError(
            f"unknown data set {str(source)!r}: expected one of {', '.join(known_names())}, a folder data/{source}, a folder "
            f"with PERSON/CAMERA/[TRACKLET/]FRAME.jpg, or a table {TABLE}{did_you_mean(str(source))}"
        )
    name: Override = ("dataset.name", root.absolute().name)
    return read_settings(CONFIGS / "folder.yaml", [name, *overrides, *moved_to(root)])
