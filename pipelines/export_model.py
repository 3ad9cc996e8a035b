"""The export stage: a trained model in; ONNX, and weights without what only training needs, out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from csip.errors import CsipError
from csip.export.model_export import ExportedFile, export_model
from csip.export.onnx_export import Comparison
from csip.loading import model_file
from csip.retrieval.tables import TextTable
from pipelines.console import RichMonitor, console
from pipelines.tables import rich_table


def run(run_folder: Path, out: Path, part_norm: bool | None = None) -> None:
    """Export a model into a folder; see `csip.export.model_export.export_model`.

    Parameters
    ----------
    run_folder
        A run, the folder of its model, or the model's file.
    """
    started = time.monotonic()
    path = model_file(run_folder)
    with RichMonitor() as monitor:
        monitor.say(f"{path}: exporting to ONNX, then comparing with torch ...")
        exported = export_model(path, out, part_norm)
    console.print(rich_table(_comparison_table(exported.comparisons)))
    console.print(rich_table(_size_table(exported.files)))
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
        raise CsipError("expected a run (--run RUN) or a data set (--dataset NAME, for runs/NAME), found neither")
    return Path("runs") / dataset


def default_out(run_folder: Path) -> Path:
    """Return ``RUN/export``."""
    return (run_folder.parent if run_folder.is_file() else run_folder) / "export"


def _comparison_table(comparisons: Sequence[Comparison]) -> TextTable:
    columns = ("clips", "frames", "largest difference", "smallest cosine")
    rows = tuple((str(c.batch), str(c.frames), f"{c.difference:.1e}", f"{c.cosine:.6f}") for c in comparisons)
    return TextTable("descriptors by onnxruntime against torch's", columns, rows)


def _size_table(files: Sequence[ExportedFile]) -> TextTable:
    rows = tuple(
        (str(file.path), "" if file.numbers is None else f"{file.numbers:,}", f"{file.bytes / 1e6:,.1f}")
        for file in files
    )
    return TextTable("", ("file", "parameters", "MB"), rows)
