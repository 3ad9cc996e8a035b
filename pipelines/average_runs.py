"""The stage that averages runs: several ``metrics.json`` in, mean and spread out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from csip.retrieval.averaging import Average, average
from pipelines.console import console
from pipelines.tables import rich_table


def run(runs: Sequence[Path], out: Path | None) -> Average:
    """Average the metrics of evaluated runs, show them, and write them where told; see `csip.retrieval.averaging`."""
    result = average(runs)
    if out is not None:
        result.save(out)
    console.print(rich_table(result.table()))
    return result
