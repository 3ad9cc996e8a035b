"""Mean and spread of several runs of one protocol: the divisions of a data set, or seeds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from csip.errors import CsipError
from csip.retrieval.metrics import RANKS
from pipelines.console import console

FIGURES = (*(f"rank{k}" for k in RANKS), "map", "minp")
# What may differ between divisions of the same protocol: who is tested, and so how many.
_OF_DIVISION = {
    "split", "query_tracklets", "gallery_tracklets", "query_entries", "gallery_entries", "queries_in_gallery",
    "gallery_identities", "distractor_tracklets",
}  # fmt: skip


def run(runs: Sequence[Path], out: Path | None) -> dict[str, Any]:
    """Average the trained models' figures in the ``metrics.json`` of these run folders; write them where told.

    Returns
    -------
    dict
        ``runs``, their number; ``splits``; for each figure ``mean``, ``std`` (over runs, n - 1), ``min`` and ``max``; where the
        runs have them, the same of the re-ranked figures under ``reranked``.

    Raises
    ------
    CsipError
        A run has no figures, or the runs were not scored alike.
    """
    scored = [_read(folder / "metrics.json") for folder in runs]
    if not scored:
        raise CsipError("name at least one run folder")
    first = _protocol(scored[0])
    for folder, one in zip(runs, scored, strict=True):
        if one["dataset"] != scored[0]["dataset"]:
            raise CsipError(f"{folder} is of data set {one['dataset']}, {runs[0]} of {scored[0]['dataset']}")
        differing = sorted(key for key, value in _protocol(one).items() if value != first.get(key))
        if differing:
            raise CsipError(
                f"{folder} and {runs[0]} were scored differently ({', '.join(differing)}): evaluate them again alike"
            )
    splits = [one["protocol"]["split"] for one in scored]
    if splits.count(None) < len(splits) and len(set(splits)) < len(splits):
        raise CsipError(f"the runs are of the divisions {splits}: one counts twice")
    result: dict[str, Any] = {"dataset": scored[0]["dataset"], "runs": len(scored), "splits": splits}
    result |= _average([one["figures"] for one in scored])
    reranked = [one["figures"]["reranked"] for one in scored if "reranked" in one["figures"]]
    if reranked:
        result["reranked"] = _average(reranked)
    if out is not None:
        out.write_text(json.dumps(result, indent=1))
    console.print(_table(result))
    return result


def _average(figures: Sequence[dict[str, float]]) -> dict[str, dict[str, float]]:
    result = {}
    for name in FIGURES:
        values = np.array([one[name] for one in figures])
        spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        result[name] = {
            "mean": float(values.mean()), "std": spread, "min": float(values.min()), "max": float(values.max()),
        }  # fmt: skip
    return result


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except OSError as error:
        raise CsipError(f"{path}: missing; `csip evaluate --run {path.parent}` makes it") from error


def _protocol(scored: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in scored["protocol"].items() if key not in _OF_DIVISION}


def _table(result: dict[str, Any]) -> Table:
    divisions = [str(split) for split in result["splits"] if split is not None]
    title = f"{result['dataset']}: mean of {result['runs']} runs" + (
        f", divisions {', '.join(divisions)}" if divisions else ""
    )
    table = Table("", title=title, title_justify="left")
    columns = {"trained": result} | ({"re-ranked": result["reranked"]} if "reranked" in result else {})
    for label in columns:
        table.add_column(label, justify="right")
    for name, words in zip(FIGURES, (*(f"Rank-{k}" for k in RANKS), "mAP", "mINP"), strict=True):
        table.add_row(
            words, *(f"{100 * row[name]['mean']:.1f} ± {100 * row[name]['std']:.1f}" for row in columns.values())
        )
    return table
