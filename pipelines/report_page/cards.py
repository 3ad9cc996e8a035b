"""The data card, the model card, and the page's tables of metrics: plain rows of text, made from what the stages left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import yaml
from markupsafe import Markup

from csip.data.dataset import DISTRACTOR, Dataset, Tracklet
from csip.retrieval.model import knows_rendered_people
from pipelines.report_page.charts import histogram

Rows = list[tuple[str, str]]
FIGURES = {"rank1": "Rank-1", "rank5": "Rank-5", "map": "mAP", "minp": "mINP"}


@dataclass(frozen=True)
class Stat:
    """A headline metric, in per cent: its 95 % interval, and what chance scores, where they are known."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    chance: float | None = None


@dataclass(frozen=True)
class Table:
    """A table of text; the first column names the row."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    strong: int = -1  # the row that matters


@dataclass
class Card:
    """Facts about the data or the model."""

    rows: Rows = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    charts: list[tuple[str, Markup, Markup]] = field(default_factory=list)
    text: str = ""  # shown as it is, folded away


def stats(figures: Mapping[str, Any], chance: Mapping[str, Any]) -> list[Stat]:
    """Pick the headline metrics of ``metrics.json``."""
    intervals = figures.get("intervals") or {}
    result = []
    for key, label in FIGURES.items():
        if key in figures:
            low, high = (100 * v for v in intervals[key]) if key in intervals else (None, None)
            by_chance = 100 * chance[key] if key in chance else None
            result.append(Stat(label, 100 * figures[key], low, high, by_chance))
    return result


def some_look_alike(figures: Mapping[str, Any]) -> bool:
    """Whether some queries have look-alikes, and others not: where all have, their metrics are those of all."""
    return "lookalikes" in figures and figures["lookalikes"]["valid_queries"] != figures["valid_queries"]


def models_table(scored: Mapping[str, Any]) -> Table:
    """Compare the trained model with chance and with what it was before."""
    figures = scored["figures"]
    alike = some_look_alike(figures)
    head = [
        "",
        *FIGURES.values(),
        *(["look-alikes: Rank-1", "look-alikes: mAP", "own pair only: Rank-1"] if alike else []),
    ]
    rows = [*scored["compared"].items(), ("trained", figures)]
    strong = len(rows) - 1
    rows += [("trained, re-ranked", figures["reranked"])] if "reranked" in figures else []
    body = []
    for label, row in rows:
        cells = [share(row.get(key)) for key in FIGURES]
        if alike:
            cells += [share(row.get("lookalikes", {}).get(key)) for key in ("rank1", "map", "pair_rank1")]
        body.append([label, *cells])
    return Table(head, body, "Per cent, every model under the same protocol", strong)


def strata_table(scored: Mapping[str, Any]) -> Table | None:
    """Say how many twins each model tells apart, by the trait they differ in; None where the data set has no such twins."""
    strata = scored["figures"].get("strata", {})
    if not strata:
        return None
    rows = {label: row for label, row in scored["compared"].items() if "strata" in row} | {"trained": scored["figures"]}
    body = [[label, *(_with_interval(one) for one in row["strata"].values())] for label, row in rows.items()]
    queries = sum(one["valid_queries"] for one in strata.values())
    text = f"Own twin told apart at other cameras, per cent with 95 % intervals; {queries} queries, chance 50"
    return Table(["twins differ in", *strata], body, text, len(body) - 1)


def looks_note(protocol: Mapping[str, Any]) -> str:
    """Say how often a test world was scored with other models, where it was; metrics are then no longer of unseen people."""
    looks = protocol.get("test_looks") or 1
    return (
        f"{looks} models of this seed were scored on this test world: a choice among them is a choice on the test."
        if looks > 1
        else ""
    )


def _with_interval(one: Mapping[str, Any]) -> str:
    low, high = one["interval"]
    return f"{100 * one['own_twin']:.1f} ({100 * low:.0f}-{100 * high:.0f})"


def camera_title(number: int, names: Mapping[int, str]) -> str:
    """Say which camera is meant: by the name that people gave it, where the data set has one."""
    name = names.get(number, str(number))
    return f"camera {name}" if name.isdecimal() else name


def cameras_table(figures: Mapping[str, Any], names: Mapping[int, str] = MappingProxyType({})) -> Table:
    """Lay out the metrics by the query's camera."""
    rows = [
        [
            camera_title(int(camera), names),
            f"{row['queries']:,}",
            f"{row['valid_queries']:,}",
            *(share(row.get(key)) for key in FIGURES),
        ]
        for camera, row in figures["cameras"].items()
    ]
    return Table(["query's camera", "queries", "valid", *FIGURES.values()], rows, "Per cent, by the query's camera")


def skeletons_table(scored: Mapping[str, Any]) -> Table:
    """Compare models of skeletons alone, by windows and by whole sequences."""
    levels = {"window": ("rank1", "rank5", "rank10", "map"), "tracklet": ("rank1", "map")}
    names = {**FIGURES, "rank10": "Rank-10"}
    head = ["", *(names[k] for k in levels["window"]), *(f"whole sequences: {names[k]}" for k in levels["tracklet"])]
    rows = [*scored["compared"].items(), ("trained", scored["figures"])]
    body = [[label, *(share(row[level][k]) for level, keys in levels.items() for k in keys)] for label, row in rows]
    return Table(head, body, "Per cent, for windows and for whole sequences (the mean of their windows)", len(body) - 1)


def data_card(
    dataset: Dataset,
    protocol: Mapping[str, Any] | None,
    skeletons: Mapping[str, Any] | None,
    cameras: Mapping[int, str] = MappingProxyType({}),
) -> Card:
    """Describe the data: counts, cameras, lengths, and the protocol; `cameras` are the names of some."""
    card = Card()
    parts = {"train": dataset.train, "query": dataset.query, "gallery": dataset.gallery}
    everyone = list({t.name: t for part in parts.values() for t in part}.values())
    card.rows += [
        ("Data set", dataset.name),
        ("Tracklets", f"{len(everyone):,}"),
        ("Frames", f"{sum(len(t.frames) for t in everyone):,}"),
        ("Identities", _people(everyone)),
        ("Cameras", ", ".join(cameras.get(c, str(c)) for c in sorted({t.camera for t in everyone}))),
    ]
    card.tables.append(Table(["split", "tracklets", "identities", "frames"], [
        [name, f"{len(part):,}", f"{len({t.pid for t in part} - {DISTRACTOR}):,}", f"{sum(len(t.frames) for t in part):,}"]
        for name, part in parts.items()
    ], "Splits; a query tracklet may be in the gallery too"))  # fmt: skip
    card.tables.append(_by_camera(everyone, cameras))
    lengths = np.array([len(t.frames) for t in everyone])
    if lengths.min() == lengths.max():
        card.rows.append(("Length", f"{lengths[0]} frames each"))
    else:
        card.rows.append(("Length", f"{lengths.min()} to {lengths.max()} frames, median {np.median(lengths):.0f}"))
        card.charts.append(("Lengths of tracklets", histogram(lengths, "Lengths of tracklets", "frames"), Markup("")))
    if skeletons is not None:
        line = f"estimator {skeletons['estimator']}, {skeletons['frames']:,} frames, {skeletons['invalid']:,} without a pose"
        card.rows.append(("Skeletons", line))
        if skeletons.get("pa_mpjpe_mm") is not None:
            card.rows.append(("Against the true joints", f"PA-MPJPE {skeletons['pa_mpjpe_mm']:.1f} mm"))
    card.rows += protocol_rows(protocol)
    return card


def protocol_rows(protocol: Mapping[str, Any] | None) -> Rows:
    """Say in words what was measured."""
    return [
        (key.replace("_", " ").capitalize(), _plain(value))
        for key, value in (protocol or {}).items()
        if value is not None and not key.endswith("_tracklets")
    ]


def _people(tracklets: Sequence[Tracklet]) -> str:
    known = {t.pid for t in tracklets if t.pid > 0}
    nobody = sum(t.pid == DISTRACTOR for t in tracklets)
    beside = f", and {nobody:,} distractor tracklets" if known else " (unlabelled)"
    return f"{len(known):,}" + (beside if nobody else "")


def _by_camera(tracklets: Sequence[Tracklet], cameras: Mapping[int, str]) -> Table:
    rows = []
    for camera in sorted({t.camera for t in tracklets}):
        own = [t for t in tracklets if t.camera == camera]
        frames = np.array([len(t.frames) for t in own])
        people = len({t.pid for t in own} - {DISTRACTOR})
        rows.append(
            [
                camera_title(camera, cameras),
                f"{len(own):,}",
                f"{people:,}",
                f"{frames.sum():,}",
                f"{np.median(frames):.0f}",
            ]
        )
    return Table(["camera", "tracklets", "identities", "frames", "median length"], rows, "Cameras")


def model_card(
    model: Path,
    digest: str,
    description: Mapping[str, Any],
    parameters: int,
    stages: Mapping[str, Mapping[str, Any] | None],
) -> Card:
    """Say what the model is, of what it was made, and how long that took.

    Parameters
    ----------
    parameters
        Number of the numbers in the file.
    stages
        What each stage of training has left in ``metrics.json``.
    """
    settings = description["settings"]
    card = Card(text=yaml.safe_dump(settings, sort_keys=False))
    card.rows += [
        ("File", str(model)),
        ("Digest (SHA-256, first 16 digits)", digest),
        ("Made by revision", description.get("revision", "unknown")),
        ("Trained on", str(description.get("dataset", "unknown"))),
        ("Seed", str(settings["runtime"]["seed"])),
        ("Parameters", f"{parameters:,}"),
        ("Identities in training", f"{description['identities']:,}" if "identities" in description else ""),
    ]
    if description.get("kind") == "stage2":
        vision, clips = settings["vision"], settings["clips"]
        card.rows += [
            ("Image encoder", f"{vision['model']}, pretrained: {vision['pretrained'] or 'no'}"),
            ("Clip", f"{clips['frames']} frames of {clips['height']} x {clips['width']} pixels"),
            ("Skeletons by", settings["estimator"]),
        ]
    for name, record in stages.items():
        if record is None:
            continue
        took = duration(record["seconds"])
        if record.get("chosen_epoch") is not None:
            took += f", epoch {record['chosen_epoch']} kept"
        card.rows.append((f"{name}: time", took))
        if record.get("retrieval"):
            found = record["retrieval"]
            card.rows.append((
                f"{name}: skeleton to image, held-out identities",
                f"Rank-1 {100 * found['rank1']:.1f} % (chance {100 * found['chance_rank1']:.1f} %), "
                f"mAP {100 * found['map']:.1f} % (chance {100 * found['chance_map']:.1f} %), {found['queries']} queries",
            ))  # fmt: skip
    card.rows = [(key, value) for key, value in card.rows if value]
    return card


def demo_note(settings: Mapping[str, Any] | None, skeletons: Mapping[str, Any] | None, rendered: bool) -> str | None:
    """Warn where weights that know only rendered people were used on real ones.

    Parameters
    ----------
    settings
        Of the model, as they are in its file.
    skeletons
        ``skeletons.json`` of the data set.
    rendered
        Whether the data set was rendered.
    """
    if rendered:
        return None
    what = []
    if settings is not None and knows_rendered_people(settings["vision"]["pretrained"]):
        what.append("image encoder")
    if skeletons is not None and skeletons.get("estimator") == "demo":
        what.append("pose estimator")
    if not what:
        return None
    return (
        f"The demo's small {' and '.join(what)} made this page, trained on rendered people alone. Metrics, neighbours and "
        "skeletons of real people do not show what the method can do. Real data need CLIP's weights (vision.pretrained) and the "
        "estimator human3d."
    )


def duration(seconds: float) -> str:
    """Say how long something took."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def share(value: float | None) -> str:
    """Write a share in per cent, without the sign."""
    return "" if value is None else f"{100 * value:.1f}"


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {one}" for key, one in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value).replace("_", " ")
