"""What each part of the method adds: the same training with parts left out, over several seeds, with controls.

The rows add one part at a time. Controls are trained beside them: prototypes of images alone are a row of their own, and the
skeletons of somebody else follow fused prototypes and predicted skeletons. The last row has predicted skeletons without what was
added between those two. Two more score the whole method again: with skeletons at the test, as its teacher, and with the frames
of each clip in another order.

Each row and seed is a run of its own below the output folder, trained and scored as the stages do it; finished runs are kept,
and an interrupted study resumes. Runs are parallel, one process each.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from joblib import Parallel, delayed

import csip.loading
from csip.config import Settings
from csip.data.dataset import Dataset
from csip.data.fingerprints import TrainingData, evaluation_data
from csip.data.readers import load_dataset
from csip.data.skeletons import load_skeletons
from csip.errors import CsipError
from csip.files import atomic, parse_json, write_json, write_text
from csip.monitor import Silent
from csip.retrieval.controls import embed_shuffled, embed_with_skeletons, has_skeletons
from csip.retrieval.evaluation import Side, lookalike_groups, side
from csip.retrieval.looks import look
from csip.retrieval.model import Model
from csip.retrieval.outcomes import Outcomes
from csip.retrieval.twins import Pairs, twin_strata
from csip.training.run_folder import RunFolder
from csip.training.stage1 import UNREAD, train_stage1
from csip.training.stage2 import train_stage2
from pipelines.ablation_table import Study, forest, tables
from pipelines.console import RichMonitor, console
from pipelines.report_page.cards import looks_note

BASELINE = "image branch alone"
IMAGES, FUSED, SHUFFLED = "+ image prototypes", "+ fused prototypes", "control: skeletons of others"
WRONGLY_TAUGHT = "control: predicted as others"
PLAIN = "control: without PFU and temporal modelling"
TEACHER, REORDERED = "control: skeletons at the test", "control: frames in another order"
# In the order in which they are added; each with the settings that leave it out.
PARTS: tuple[tuple[str, dict[str, Any]], ...] = (
    (IMAGES, {"stage2.lambda_csip": 0.0}),
    (FUSED, {"stage2.prototypes": "images"}),
    ("+ PFU", {"stage2.update_prototypes": False}),
    ("+ MTE", {"stage2.mte": False}),
    ("+ ATD", {"stage2.atd": False}),
    ("+ TA", {"stage2.ta": False}),
    ("+ distillation", {"stage2.lambda_distill": 0.0}),
)
PREDICTED = ("+ predicted skeletons", {"stage2.predict_skeletons": False})
CONTROLS = {FUSED: SHUFFLED, PREDICTED[0]: WRONGLY_TAUGHT}  # the same, with skeletons of others
SEED = "{seed}"
STAGE1 = "stage1"  # folder of the run that all rows of a seed start from


@dataclass(frozen=True)
class Row:
    """A training of the study: the method with some of its parts."""

    label: str
    settings: Settings

    @property
    def folder(self) -> str:
        return self.label.removeprefix("+ ").replace(": ", "-").replace(" ", "-").lower()


@dataclass(frozen=True)
class Place:
    """Where a seed's data are; the same for all seeds unless the root has ``{seed}`` in it."""

    settings: Settings
    skeletons: Path
    out: Path

    def of(self, seed: int) -> Place:
        """Return the place for a seed, with that seed in the settings."""
        dataset, runtime = self.settings.dataset, self.settings.runtime
        root = Path(str(dataset.root).replace(SEED, str(seed))) if dataset.root is not None else None
        update = {
            "dataset": dataset.model_copy(update={"root": root}),
            # Trainings run beside each other, in processes that may not start others to decode frames.
            "runtime": runtime.model_copy(update={"seed": seed, "workers": 0}),
        }
        cache = Path(str(self.skeletons).replace(SEED, str(seed)))
        return Place(self.settings.model_copy(update=update), cache, self.out / f"seed{seed}")


def run(
    settings: Settings, skeletons: Path, out: Path, seeds: Sequence[int], workers: int, second_look: bool = False
) -> None:
    """Train and score every row with every seed; write ``ablation.md``, ``ablation.svg`` and ``ablation.json`` into ``out``.

    Parameters
    ----------
    settings, skeletons
        With ``{seed}`` in both ``dataset.root`` and the cache's path each seed has a world of its own.
    second_look
        Allow a test world that something else was scored on with the same seed; the table then says so.

    Raises
    ------
    CsipError
        A part is off in the settings to begin with, a run of other settings or data is in the folder, or the test world was
        scored before.
    """
    places = {seed: Place(settings, skeletons, out).of(seed) for seed in seeds}
    for place in places.values():
        if not place.skeletons.exists():
            raise CsipError(f"{place.skeletons}: no such skeleton cache; `csip skeletons` makes it")
    rows = {seed: rows_of(place.settings) for seed, place in places.items()}
    data = {seed: _data(load_dataset(place.settings.dataset), place.skeletons) for seed, place in places.items()}
    # One study is one look, whatever its rows: they are all in its table. Before hours of training.
    looks = [
        look(load_dataset(place.settings.dataset), _study(rows[seed], data[seed]), seed, second_look)
        for seed, place in places.items()
    ]
    threads = max(torch.get_num_threads() // workers, 1)
    pool = Parallel(n_jobs=workers, return_as="generator_unordered")
    with RichMonitor() as monitor:
        pretrain = (
            delayed(_pretrain)(
                place.settings, place.skeletons, place.out / STAGE1,
                [places[other].out for other in seeds if data[other] == data[seed]], threads,
            )
            for seed, place in places.items()
        )  # fmt: skip
        for done, _ in enumerate(pool(pretrain), start=1):
            monitor.progress("stage 1", done, len(places))
        jobs = [(row, seed) for seed in seeds for row in rows[seed]]
        train = (
            delayed(_train)(
                row.settings, places[seed].skeletons, places[seed].out / STAGE1,
                places[seed].out / row.folder, data[seed], row.label == whole_of(places[seed].settings), threads,
            )
            for row, seed in jobs
        )  # fmt: skip
        for done, _ in enumerate(pool(train), start=1):
            monitor.progress("stage 2", done, len(jobs))
    study = _collect(rows, places)
    write_json(
        out / "ablation.json", {"dataset": settings.dataset.name, "data": data, "looks": looks, **study.as_dict()}
    )
    notes = [looks_note({"test_looks": max(count or 1 for count in looks)})]
    text = "\n".join([tables(study), *(f"{note}\n" for note in notes if note)])
    write_text(out / "ablation.md", text)
    write_text(out / "ablation.svg", forest(study))
    console.print(text, markup=False)
    console.print(f"ablation -> {out / 'ablation.md'}, {out / 'ablation.svg'}, {out / 'ablation.json'}")


def parts_of(settings: Settings) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Return the parts that the settings have: predicted skeletons only where they are on, as they are not by default."""
    return (*PARTS, PREDICTED) if settings.stage2.predict_skeletons else PARTS


def whole_of(settings: Settings) -> str:
    """Return the label of the row that is the whole method."""
    return parts_of(settings)[-1][0]


def rows_of(settings: Settings) -> list[Row]:
    """Return the rows, the image branch alone first, each control after the part that it is of.

    Raises
    ------
    CsipError
        The settings leave a part out, so that the row that adds it would add nothing.
    """
    whole, parts = settings.model_dump(), parts_of(settings)
    for label, off in parts:
        missing = next((key for key, value in off.items() if _get(whole, key) == value), None)
        if missing is not None:
            raise CsipError(
                f"{missing} is {_get(whole, missing)} in these settings: the row {label!r} would add nothing"
            )
    labels = [BASELINE, *(label for label, _ in parts)]
    rows = []
    for kept, label in enumerate(labels):
        without = {key: value for _, off in parts[kept:] for key, value in off.items()}
        rows.append(Row(label, _changed(settings, without)))
        if label in CONTROLS:
            rows.append(Row(CONTROLS[label], _changed(settings, {**without, "stage2.skeletons": "others"})))
    if settings.stage2.predict_skeletons:
        between = {key: value for label, off in PARTS if label not in (IMAGES, FUSED) for key, value in off.items()}
        rows.append(Row(PLAIN, _changed(settings, between)))
    return rows


def comparisons(settings: Settings) -> list[tuple[str, str]]:
    """Return which row is compared with which: each part with the row before, then the controls, then the whole method."""
    labels = [BASELINE, *(label for label, _ in parts_of(settings))]
    whole = labels[-1]
    parts = [(later, before) for before, later in itertools.pairwise(labels)]
    controls = [(part, control) for part, control in CONTROLS.items() if part in labels]
    if settings.stage2.predict_skeletons:
        controls += [(whole, PLAIN), (PLAIN, FUSED)]
    return [*parts, *controls, (whole, REORDERED), (TEACHER, whole), (whole, IMAGES), (whole, BASELINE)]


def _collect(rows: dict[int, list[Row]], places: dict[int, Place]) -> Study:
    """Read what the runs have written, by row and seed."""
    found: dict[str, list[Outcomes]] = {}
    for seed, its_rows in rows.items():
        for row in its_rows:
            written = parse_json((places[seed].out / row.folder / "ablation.json").read_bytes())
            for control, outcomes in written["outcomes"].items():
                found.setdefault(control or row.label, []).append(Outcomes.from_dict(outcomes))
    whole = next(iter(rows.values()))[-1].settings  # or a control, of which the same rows are compared
    return Study(tuple(rows), found, [pair for pair in comparisons(whole) if found.keys() >= set(pair)])


def _study(rows: Sequence[Row], data: str) -> str:
    """Digest of what a seed's trainings are: their settings and data."""
    parts = [data, *(row.settings.model_dump(mode="json") for row in rows)]
    return "ablation " + hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _changed(settings: Settings, changes: dict[str, Any]) -> Settings:
    tree = settings.model_dump()
    for key, value in changes.items():
        section, _, name = key.rpartition(".")
        tree[section][name] = value
    return Settings.model_validate(tree)


def _data(dataset: Dataset, skeletons: Path) -> str:
    """Digest of all that the study reads, by content."""
    parts = [TrainingData.of(dataset, skeletons).as_dict(), evaluation_data(dataset)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _pretrain(settings: Settings, skeletons: Path, folder: Path, same_data: Sequence[Path], threads: int) -> None:
    """Train stage 1 in `folder`; the image features are taken from a run in one of `same_data` that has them."""
    torch.set_num_threads(threads)
    dataset = load_dataset(settings.dataset)
    if (folder / "model.safetensors").exists():
        there = RunFolder(folder, settings, TrainingData.of(dataset, skeletons).as_dict(), unread=UNREAD).differences()
        if there:
            raise CsipError(f"{folder}: a run with other settings or data is here ({there[0]}); give another --out")
        return
    # The image features are the same in every run on the same data: whoever is first has made them for all.
    ready = [out / STAGE1 for out in same_data if (out / STAGE1 / "model.safetensors").exists()]
    if ready and not (folder / "features.h5").exists():
        with atomic(folder / "features.h5") as temporary:
            shutil.copyfile(ready[0] / "features.h5", temporary)
    train_stage1(dataset, skeletons, settings, folder, Silent())


def _train(
    settings: Settings, skeletons: Path, stage1: Path, folder: Path, data: str, whole: bool, threads: int
) -> None:
    torch.set_num_threads(threads)
    inputs = {"settings": settings.model_dump(mode="json"), "data": data}
    finished = folder / "ablation.json"
    if finished.exists():
        try:
            known = parse_json(finished.read_bytes())["inputs"]
        except (ValueError, KeyError, TypeError) as error:
            raise CsipError(f"{finished}: damaged ({error}); delete it and run again") from error
        if known != inputs:
            raise CsipError(f"{folder}: a run with other settings or data is here; give another --out")
        return
    dataset = load_dataset(settings.dataset)
    if not (folder / "model.safetensors").exists():
        train_stage2(dataset, skeletons, stage1, settings, folder, Silent())
    model = csip.loading.load(
        folder / "model.safetensors", settings.runtime.device, evaluation=settings.evaluation, runtime=settings.runtime
    )
    outcomes = {"": _score(model, dataset, "images")}
    if whole:
        outcomes[REORDERED] = _score(model, dataset, "reordered")
        if has_skeletons(skeletons, dataset):
            outcomes[TEACHER] = _score(model, dataset, "skeletons", skeletons)
    write_json(finished, {"inputs": inputs, "outcomes": {label: one.as_dict() for label, one in outcomes.items()}})


def _score(model: Model, dataset: Dataset, seen: str, cache: Path | None = None) -> Outcomes:
    """Score a model on the test as it is, or under a control."""
    everyone = list({t.name: t for t in (*dataset.query, *dataset.gallery)}.values())
    if seen == "reordered":
        found = embed_shuffled(model, dataset, everyone, Silent())
    elif cache is not None:
        skeletons = load_skeletons(cache, everyone, model.settings.clips.max_gap)
        found = embed_with_skeletons(model, dataset, everyone, skeletons, Silent())
    else:
        found = model.embedder(dataset.name).tracklets(dataset.root, everyone, Silent())
    row = {t.name: i for i, t in enumerate(everyone)}
    query, gallery = (_tracklets(side(part, model.settings)) for part in (dataset.query, dataset.gallery))
    asked, ranked = (found[[row[t.name] for t in part.tracklets]] for part in (query, gallery))
    return Outcomes.of(asked, query, ranked, gallery, _strata(dataset))


def _tracklets(entries: Side) -> Side:
    if entries.counts.max() > 1:
        raise CsipError("evaluation.level: expected tracklet, an ablation study compares tracklets; found clip")
    return entries


def _strata(dataset: Dataset) -> Pairs:
    """Return the twins of a motion world by trait; elsewhere those who look alike, as one stratum."""
    if strata := twin_strata(dataset):
        return strata
    groups = lookalike_groups(dataset)
    alike = [[pid for pid, group in groups.items() if group == number] for number in sorted(set(groups.values()))]
    return {"look-alikes": alike} if alike else {}


def _get(tree: dict[str, Any], key: str) -> Any:
    section, _, name = key.rpartition(".")
    return tree[section][name]
