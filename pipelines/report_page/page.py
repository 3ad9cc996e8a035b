"""Gathers what a run has left and writes it as one HTML page."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

import csip.loading
from csip.config import Settings
from csip.data.dataset import Dataset
from csip.data.fingerprints import evaluation_data
from csip.data.folder import camera_names
from csip.data.readers import load_dataset
from csip.errors import CsipError
from csip.files import digest, parse_json, write_bytes
from csip.loading import model_file
from csip.models.checkpoints import load_model
from csip.monitor import Monitor
from csip.retrieval.descriptors import Descriptors, check_pictures, read_descriptors
from csip.retrieval.ranked_lists import CmcCurve
from pipelines.embed_tracklets import own_model
from pipelines.report_page import cards, curves, lists, strips
from pipelines.report_page.charts import Line, legend, line_chart
from pipelines.report_page.content import Content
from pose_cache.outcome import read_record

PAGE = "report.html"
STAGES = {"stage1": "Stage 1", "stage2": "Stage 2"}
RANKS = np.array([1, 5, 10, 20])


def write(settings: Settings, run_folder: Path, model: Path | None, cache: Path, monitor: Monitor) -> Path:
    """Write ``RUN/report.html`` for a model of images.

    Parameters
    ----------
    model
        Another run's model, where the run has none: the run, its folder ``stage2``, or the file.
    cache
        The skeletons' file.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    CsipError
        The run has neither metrics nor descriptors, or a file of it is damaged.
    """
    return save(gather(settings, run_folder, model, cache, monitor), run_folder / PAGE)


def write_skeletons(scored: Mapping[str, Any], run_folder: Path) -> Path:
    """Write ``RUN/report.html`` for a model of skeletons alone, which has no pictures; `scored` is its ``metrics.json``."""
    window, protocol, compared = scored["figures"]["window"], scored["protocol"], scored["compared"]
    model = run_folder / "skeleton" / "model.safetensors"
    content = Content(
        scored["dataset"],
        f"Re-identification from skeletons alone, {protocol['split']}: {window['valid_probes']:,} valid probe windows of "
        f"{protocol['frames']} frames against {protocol['gallery_windows']:,}.",
        stats=cards.stats(window, compared["chance"]["window"]),
        tables=[cards.skeletons_table(scored)],
        charts=[_cmc_chart({label: row["window"] for label, row in _rows(scored).items()}, None)],
        curves=curves.charts(run_folder / "skeleton", "Training"),
        data=cards.Card([("Data set", scored["dataset"]), *cards.protocol_rows(protocol)]),
    )
    if model.exists():
        tensors, description = load_model(model, "skeleton")
        parameters = sum(tensor.numel() for tensor in tensors.values())
        stages = {"Training": read_json(model.parent / "metrics.json")}
        content.model = cards.model_card(model, digest(model), description, parameters, stages)
    return save(content, run_folder / PAGE)


def save(content: Content, out: Path) -> Path:
    """Render the page and write it; a reader sees the old one or the new one, never a part."""
    loader = PackageLoader("pipelines.report_page", "")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["code"] = mark_code
    style, script = (Markup(loader.get_source(environment, name)[0]) for name in ("page.css", "page.js"))
    page = environment.get_template("page.html").render(
        content=content, style=style, script=script, bones=strips.BONES, sides=strips.sides()
    )
    write_bytes(out, page.encode(errors="replace"))  # a tracklet's name is a file's and need not be UTF-8
    return out


def mark_code(text: str) -> Markup:
    """Set what stands between backticks as code; everything else is escaped."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(p) if n % 2 else escape(p) for n, p in enumerate(parts))


def gather(settings: Settings, run_folder: Path, named: Path | None, cache: Path, monitor: Monitor) -> Content:
    """Collect the page's content; what cannot be had is left out, and the page says what would make it."""
    name, data = settings.dataset.name, settings.dataset.path
    scored = read_json(run_folder / "metrics.json")
    described = run_folder / "descriptors.h5"
    descriptors = read_descriptors(described) if described.exists() else None
    if scored is None and descriptors is None:
        raise CsipError(
            f"{run_folder / 'metrics.json'}: missing, and descriptors.h5 too; `csip evaluate` makes both; `csip embed` makes "
            "descriptors.h5 of unlabelled tracklets"
        )
    of_others = {
        run_folder / "metrics.json": None if scored is None else scored["dataset"],
        described: None if descriptors is None else descriptors.dataset,
    }
    for file, about in of_others.items():
        if about not in (None, name):
            raise CsipError(f"{file}: of data set {about}, not {name}; give that --dataset, or another --run")
    if descriptors is not None:
        check_pictures(described, descriptors, settings.dataset)
    model = own_model(run_folder) if named is None else model_file(named)
    description, parameters = _description(model, must_exist=named is not None)
    skeletons = read_record(cache)

    content = Content(name, _lead(scored, descriptors))
    if scored is not None and model.exists() and scored["model"] != digest(model):
        content.notes.append(
            f"The metrics are of another model than {model}, which was trained since; `csip evaluate` makes them anew."
        )
    rendered = (data / "truth.npz").exists() or (data / "synth.json").exists()
    warning = cards.demo_note(None if description is None else description["settings"], skeletons, rendered)
    content.notes += [warning] if warning else []
    dataset = load_dataset(settings.dataset) if data.is_dir() else None
    if scored is not None and dataset is not None:
        _check_scored(run_folder / "metrics.json", scored, dataset)
    if dataset is None:
        content.missing.append(f"Pictures and the data card need the data set; {data}: no such folder.")
    cameras = camera_names(dataset) if dataset is not None and settings.dataset.layout == "folder" else {}
    curve = None
    if descriptors is None:
        content.missing.append(
            f"Ranked lists, the map of descriptors and attention need {described}, which "
            f"`csip evaluate --dataset {shlex.quote(name)} --run {shlex.quote(str(run_folder))}` writes if it ranks tracklets, "
            "not clips."
        )
    else:
        if scored is not None and scored["model"] != descriptors.model:
            content.notes.append(
                "The ranked lists and the map come from descriptors of another model than the metrics; rerun `csip evaluate`."
            )
        shown = lists.add_lists(content, descriptors, dataset, cameras, cache, monitor)
        curve = shown.curve
        if dataset is not None and description is not None:
            network = csip.loading.load(model, "cpu", evaluation=settings.evaluation)
            lists.add_attention(content, network, dataset, cameras, descriptors, shown.lists, monitor)
    if scored is not None:
        content.stats = cards.stats(scored["figures"], scored["compared"].get("chance", {}))
        tables = (
            cards.cameras_table(scored["figures"], cameras), cards.strata_table(scored), cards.models_table(scored),
        )  # fmt: skip
        content.tables = [table for table in tables if table is not None]
        content.charts = [_cmc_chart(_rows(scored), curve)]
        notes = (_intervals_note(scored), cards.looks_note(scored["protocol"]))
        content.figures_note = " ".join(note for note in notes if note)
    for stage, title in STAGES.items():
        content.curves += curves.charts(run_folder / stage, title)
    content.reviews = curves.review_charts(read_json(run_folder / "review.json"))
    if dataset is not None:
        content.data = cards.data_card(dataset, None if scored is None else scored["protocol"], skeletons, cameras)
    if description is not None:
        stages = {title: read_json(run_folder / stage / "metrics.json") for stage, title in STAGES.items()}
        content.model = cards.model_card(model, digest(model), description, parameters, stages)
    else:
        content.missing.append(
            f"The model card and attention need the model: {model} does not exist; name it with `--model`."
        )
    for text in content.missing:
        monitor.say(text)
    return content


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what a stage has left, or None where it did not run.

    Raises
    ------
    CsipError
        The file is damaged.
    """
    try:
        return parse_json(path.read_bytes()) if path.exists() else None
    except ValueError as error:
        raise CsipError(
            f"{path}: damaged ({error}); delete it, or make it anew with the command that wrote it"
        ) from error


def _description(model: Path, must_exist: bool) -> tuple[dict[str, Any] | None, int]:
    """Return a model's description and its number of parameters."""
    if not must_exist and not model.exists():
        return None, 0
    tensors, description = load_model(model, "stage2")
    return description, sum(tensor.numel() for tensor in tensors.values())


def _check_scored(path: Path, scored: Mapping[str, Any], dataset: Dataset) -> None:
    """Refuse metrics of what the data set held before it changed; older files do not say what they are of."""
    protocol, policy = scored["protocol"], "with_queries" if dataset.queries_in_gallery else "without_queries"
    if (protocol["split"], protocol["gallery"]) != (dataset.split, policy):
        return  # ranked by other settings than the report was given
    recorded = scored.get("data") or {}
    changed = [what for what, digest in evaluation_data(dataset).items() if recorded.get(what, digest) != digest]
    if changed:
        raise CsipError(
            f"{path}: query and gallery have changed since they were ranked ({' and '.join(changed)}); rerun `csip evaluate`, "
            "or give the report the settings of dataset that it was given"
        )


def _lead(scored: Mapping[str, Any] | None, descriptors: Descriptors | None) -> str:
    if scored is not None:
        protocol = scored["protocol"]
        what = "tracklets" if protocol["level"] == "tracklet" else "clips"
        split = "" if protocol["split"] is None else f" Split {protocol['split']}."
        return (
            f"{scored['figures']['valid_queries']:,} valid queries of {protocol['query_entries']:,} against "
            f"{protocol['gallery_entries']:,} gallery {what}. Test identities are not in the training set; "
            f"matches count at other cameras only.{split}"
        )
    assert descriptors is not None
    known = len(set(descriptors.identities.tolist()) - {0})
    if known:
        return f"{len(descriptors):,} tracklets of {known:,} identities, not evaluated yet: run `csip evaluate`."
    return f"{len(descriptors):,} unlabelled tracklets: the lists show which are similar, not which are right."


def _rows(scored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the trained model's metrics and those that it is compared with, by name."""
    return {"trained": scored["figures"], **scored["compared"]}


def _intervals_note(scored: Mapping[str, Any]) -> str:
    intervals = scored["protocol"].get("intervals")
    bars = f"Bars: intervals, {intervals}." if intervals else ""
    return f"{bars} The grey mark is chance.".strip() if "chance" in scored["compared"] else bars


def _cmc_chart(rows: Mapping[str, Any], curve: CmcCurve | None) -> tuple[str, Markup, Markup]:
    """Draw the CMC: of the trained model at every rank where its rankings are at hand, otherwise at four."""
    lines = []
    for number, (label, row) in enumerate(rows.items()):
        tone, dashed = ("tone-0", True) if label == "chance" else (f"tone-{1 + number % 8}", False)
        at = np.array([k for k in RANKS if f"rank{k}" in row])
        line = Line(label, at, np.array([row[f"rank{k}"] for k in at]), tone, dots=True, dashed=dashed)
        if curve is not None and label in ("trained", "chance"):
            kept = slice(0, int(RANKS[-1]))
            every = np.arange(1, len(curve.found[kept]) + 1)
            if label == "trained":
                line = Line(
                    "trained, with 95 % band", every, curve.found[kept], tone, curve.low[kept], curve.high[kept]
                )
            else:
                line = Line(label, every, curve.chance[kept], tone, dashed=True)
        lines.append(line)
    title = "CMC: share of queries with a match in the first k ranks"
    return title, line_chart(lines[::-1], title, "rank k", percent=True), legend(lines)
