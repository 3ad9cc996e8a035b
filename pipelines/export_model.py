"""The stage that makes a trained model ready for other programs: ONNX, and weights without what only training needs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table

from csip.config import RuntimeSettings, Settings
from csip.errors import CsipError
from csip.export.onnx_export import Comparison, export_onnx
from csip.export.onnx_model import OnnxDescription
from csip.files import digest
from csip.models.checkpoints import MODEL, load_model, save_model
from csip.models.factory import restore
from csip.retrieval.embedding import PixelModel
from pipelines.console import RichMonitor, console
from pipelines.embed_tracklets import model_digest, model_file

ONNX, DESCRIPTION = "model.onnx", "model.json"


def run(run_folder: Path, out: Path, part_norm: bool | None = None) -> None:
    """Write the test branch of a model as ``OUT/model.onnx`` and ``OUT/model.safetensors``, described in ``OUT/model.json``.

    Parameters
    ----------
    run_folder
        A run, the folder of its model, or the model's file.
    out
        The folder to make; files that an earlier export left are replaced.
    part_norm
        Whether the parts of a descriptor are normalised; as the model was trained to be tested by default.

    Raises
    ------
    CsipError
        The model is missing or damaged, cannot be exported, or the exported one computes something else; or a model that is
        no export is in the folder.
    """
    started = time.monotonic()
    path, slim = model_file(run_folder, run_folder), out / MODEL
    tensors, description = load_model(path, "stage2")
    _check_free(slim)
    settings = _as_exported(description, part_norm)
    description["settings"] = settings.model_dump(mode="json")
    model = PixelModel(restore(tensors, description), settings.clips)
    described = describe(description, settings, model.cameras, model_digest(path, description))
    with RichMonitor() as monitor:
        monitor.say(f"{path}: as ONNX, then compared with torch ...")
        comparisons = export_onnx(model, out / ONNX, described)
    tested, _ = model.model.split_state()
    save_model(slim, tested, {**description, "slim": True, "exported_from": described.model})
    sizes = {path: _count(tensors.values()), slim: _count(tested.values()), out / ONNX: None}
    _write(out / DESCRIPTION, _report(described, comparisons, [slim, out / ONNX]))
    console.print(_comparison_table(comparisons))
    console.print(_size_table(sizes))
    console.print(f"export: {time.monotonic() - started:.0f} s -> {out}", soft_wrap=True)


def run_of(dataset: str | None, run_folder: Path | None) -> Path:
    """Return the run: as given, or ``runs/NAME``.

    Raises
    ------
    CsipError
        Neither is given.
    """
    if run_folder is not None:
        return run_folder
    if dataset is None:
        raise CsipError("name what to export: a run (--run RUN) or a data set (--dataset NAME, for runs/NAME)")
    return Path("runs") / dataset


def default_out(run_folder: Path) -> Path:
    """Return ``RUN/export``."""
    return (run_folder.parent if run_folder.is_file() else run_folder) / "export"


def describe(description: dict[str, Any], settings: Settings, cameras: int, model: str) -> OnnxDescription:
    """Say what an ONNX file needs to say, from what the model's own file says.

    Parameters
    ----------
    cameras
        Rows of the camera embedding; 0 without one.
    model
        Digest of the model's file.
    """
    clips = settings.clips
    return OnnxDescription(
        version=version("csip"),
        model=model,
        dataset=description["dataset"],
        vision=settings.vision.model,
        pretrained=settings.vision.pretrained,
        cameras={int(camera): row for camera, row in description["cameras"].items()} if cameras else {},
        frames=clips.frames,
        height=clips.height,
        width=clips.width,
        mean=clips.mean,
        std=clips.std,
        part_norm=settings.evaluation.part_norm,
    )


def _as_exported(description: dict[str, Any], part_norm: bool | None) -> Settings:
    """Return the model's settings without what is only about the machine that it was trained on."""
    settings = Settings.model_validate(description["settings"])
    dataset = settings.dataset.model_copy(update={"root": None})
    evaluation = settings.evaluation
    if part_norm is not None:
        evaluation = evaluation.model_copy(update={"part_norm": part_norm})
    return settings.model_copy(update={"dataset": dataset, "evaluation": evaluation, "runtime": RuntimeSettings()})


def _check_free(path: Path) -> None:
    """Refuse to write slim weights over a model that can still be trained from or was never exported."""
    if path.exists() and not load_model(path, "stage2")[1].get("slim"):
        raise CsipError(
            f"{path}: a whole model, which the export would replace with a slim one; give another --out folder"
        )


def _report(described: OnnxDescription, comparisons: Sequence[Comparison], files: Sequence[Path]) -> dict[str, Any]:
    height, width = described.height, described.width
    return {
        **described.model_dump(mode="json"),
        "onnx": {
            "inputs": {
                "images": {"type": "uint8", "shape": ["batch", "frames", 3, height, width]},
                "camera": {"type": "int64", "shape": ["batch"]},
            },
            "outputs": {"descriptors": {"type": "float32", "shape": ["batch", "D"]}},
        },
        "compared": [asdict(comparison) for comparison in comparisons],
        "files": {file.name: {"bytes": file.stat().st_size, "digest": digest(file)} for file in files},
    }


def _write(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(content, indent=1))
    temporary.replace(path)


def _count(tensors: Any) -> int:
    return sum(tensor.numel() for tensor in tensors)


def _comparison_table(comparisons: Sequence[Comparison]) -> Table:
    table = Table(title="descriptors by onnxruntime against torch's", title_justify="left")
    for column in ("clips", "frames", "largest difference", "smallest cosine"):
        table.add_column(column, justify="right")
    for c in comparisons:
        table.add_row(str(c.batch), str(c.frames), f"{c.difference:.1e}", f"{c.cosine:.6f}")
    return table


def _size_table(sizes: dict[Path, int | None]) -> Table:
    table = Table("file")
    for column in ("numbers", "MB"):
        table.add_column(column, justify="right")
    for path, count in sizes.items():
        table.add_row(str(path), "" if count is None else f"{count:,}", f"{path.stat().st_size / 1e6:,.1f}")
    return table
