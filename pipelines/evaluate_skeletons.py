"""The stage that scores and reports on a model of skeletons alone."""

from __future__ import annotations

import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.table import Table

from csip.config import Settings
from csip.data.skeleton_readers import load_skeleton_set
from csip.errors import CsipError
from csip.files import parse_json, write_text
from csip.retrieval.skeletons_alone import evaluate_skeletons, load_skeleton_model
from csip.runtime import make_fabric
from pipelines.console import console
from pipelines.markdown import code, plain
from pipelines.train_skeleton import FOLDER

COLUMNS = ("Rank-1", "Rank-5", "Rank-10", "mAP", "whole sequences: Rank-1", "mAP")


def run(settings: Settings, run_folder: Path) -> None:
    """Score ``RUN/skeleton`` on the probe and gallery of its own split; write ``RUN/metrics.json``."""
    started = time.monotonic()
    model = load_skeleton_model(run_folder / FOLDER / "model.safetensors")
    # The split is the model's; where the data are now and on which machine is decided now.
    where = settings.dataset.model_copy(update={"probe": model.settings.dataset.probe})
    dataset = load_skeleton_set(where, model.settings.runtime.seed)
    fabric = make_fabric(settings.runtime)
    if fabric.world_size > 1:
        raise CsipError(
            "models of skeletons alone are evaluated by one process: start `csip evaluate` without torchrun"
        )
    evaluation = evaluate_skeletons(model, dataset, fabric.device)
    evaluation = replace(evaluation, seconds=time.monotonic() - started)
    out = run_folder / "metrics.json"
    evaluation.save(out)
    console.print(metrics_table(evaluation.as_dict()))
    console.print(f"evaluate: {evaluation.seconds:.0f} s -> {out}")


def _rows(result: dict[str, Any]) -> list[tuple[str, list[str]]]:
    rows = [*result["compared"].items(), ("trained", result["figures"])]
    keys = [("window", key) for key in ("rank1", "rank5", "rank10", "map")] + [
        ("tracklet", "rank1"),
        ("tracklet", "map"),
    ]
    return [(label, [f"{100 * row[level][key]:.1f}" for level, key in keys]) for label, row in rows]


def _title(result: dict[str, Any]) -> str:
    protocol, window = result["protocol"], result["figures"]["window"]
    return (
        f"{result['dataset']}, {protocol['split']}: {window['valid_probes']} valid probe windows of "
        f"{protocol['probe_windows']} ({protocol['frames']} frames) against {protocol['gallery_windows']}, "
        f"{protocol['probe_sequences']} sequences against {protocol['gallery_sequences']}"
    )


def metrics_table(result: dict[str, Any]) -> Table:
    """Lay out ``metrics.json`` for people, in per cent."""
    table = Table(title=_title(result), title_justify="left")
    table.add_column("")
    for column in COLUMNS:
        table.add_column(column, justify="right")
    for label, cells in _rows(result):
        table.add_row(label, *cells, style="bold" if label == "trained" else "")
    return table


def report(result: dict[str, Any], run_folder: Path) -> None:
    """Write ``RUN/report.md`` from ``metrics.json`` and what training left."""
    told = run_folder / FOLDER / "metrics.json"
    try:
        trained = parse_json(told.read_bytes())
        chosen = "on held-out training sequences" if trained["validation"] else "as the last one"
        epoch, seconds = trained["chosen_epoch"], float(trained["seconds"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CsipError(
            f"{told}: missing or damaged ({error}); train the model again", parameter="overwrite"
        ) from error
    lines = [f"# {plain(result['dataset'])}: people by their skeletons alone", "", plain(_title(result)) + ".", ""]
    lines += ["| model | " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * len(COLUMNS)]
    lines += [
        f"| {'**trained**' if label == 'trained' else label} | {' | '.join(cells)} |" for label, cells in _rows(result)
    ]
    lines += [
        "",
        f"Windows: {result['protocol']['windows']}. Epoch {epoch}, chosen {chosen}. "
        f"Training {seconds:.0f} s, evaluation {result['seconds']:.0f} s.",
        "",
        "Training curves: " + code(f".venv/bin/tensorboard --logdir {shlex.quote(str(run_folder))}"),
        "",
    ]
    out = run_folder / "report.md"
    write_text(out, "\n".join(lines))
    console.print(f"report -> {out}")
