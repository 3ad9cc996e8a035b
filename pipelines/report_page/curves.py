"""Training curves from TensorBoard's event files."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from pipelines.report_page.charts import Line, legend, line_chart

Scalars = dict[str, tuple[np.ndarray, np.ndarray]]
SHARES = ("retrieval_", "validation_")


def read_scalars(folder: Path) -> Scalars:
    """Read every scalar of a stage: steps and values (N,) by tag; nothing where there are no event files."""
    if not any(folder.glob("events.out.tfevents.*")):
        return {}
    # It warns of files that a killed run has left unfinished; what is in them is read all the same.
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    result = {}
    for tag in events.Tags()["scalars"]:
        # A run that went on after a stop has written some steps twice; the later ones count.
        values = {event.step: event.value for event in sorted(events.Scalars(tag), key=lambda e: e.wall_time)}
        steps = sorted(values)
        result[tag.partition("/")[2] or tag] = (np.array(steps), np.array([values[s] for s in steps]))
    return result


def charts(folder: Path, stage: str) -> list[tuple[str, Markup, Markup]]:
    """Draw a stage's curves: (title, chart, legend) for each of its losses, metrics on held-out data, learning rate."""
    scalars = {tag: series for tag, series in read_scalars(folder).items() if np.isfinite(series[1]).all()}
    held_out = {tag: series for tag, series in scalars.items() if tag.startswith(SHARES)}
    rest = {tag: series for tag, series in scalars.items() if tag not in held_out}
    losses = {tag: series for tag, series in rest.items() if tag not in ("lr", "temperature")}
    drawn = []
    if losses:
        # Terms of a loss differ by orders of magnitude.
        log = len(losses) > 1 and all((values > 0).all() for _, values in losses.values())
        drawn.append(_chart(f"{stage}: losses, logarithmic" if log else f"{stage}: loss", losses, log=log))
    if held_out:
        drawn.append(_chart(f"{stage}: held-out identities", held_out, percent=True))
    if "lr" in rest:
        positive = bool((rest["lr"][1] > 0).all())
        drawn.append(_chart(f"{stage}: learning rate", {"lr": rest["lr"]}, log=positive))
    return drawn


def review_charts(record: Mapping[str, Any] | None) -> list[tuple[str, Markup, Markup]]:
    """Draw how a simulated review went: the adjusted Rand index after each answer; `record` is the run's ``review.json``."""
    if record is None:
        return []
    reached = np.array(record["curve"], dtype=float)
    wrong = f"{record['rate']:.0%} of the answers wrong"
    title = f"Simulated review of {record['tracklets']:,} tracklets, {wrong}: adjusted Rand index"
    lines = [
        Line(f"after {len(reached) - 1:,} answers: {reached[-1]:.3f}", np.arange(len(reached)), reached, "tone-1"),
        Line(f"proposal: {reached[0]:.3f}", np.array([0, len(reached) - 1]), reached[[0, 0]], "tone-0", dashed=True),
    ]
    return [(title, line_chart(lines, title, "answers"), legend(lines))]


def _chart(title: str, series: Scalars, percent: bool = False, log: bool = False) -> tuple[str, Markup, Markup]:
    lines = [
        Line(_name(tag), steps + 1, values, f"tone-{1 + number % 8}", dots=len(steps) < 12, dashed=number >= 4)
        for number, (tag, (steps, values)) in enumerate(series.items())
    ]
    return title, line_chart(lines, title, "epoch", percent, log), legend(lines if len(lines) > 1 or percent else [])


def _name(tag: str) -> str:
    for start in SHARES:
        tag = tag.removeprefix(start)
    return {"map": "mAP", "rank1": "Rank-1", "ce": "cross-entropy"}.get(tag, tag.replace("_", " "))
