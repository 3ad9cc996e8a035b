"""The stage that divides a reviewed data set into train, query and gallery."""

from __future__ import annotations

from pathlib import Path

from csip.config import Settings
from csip.data import folder
from csip.data.labels import LABELS
from csip.errors import CsipError
from csip.retrieval.labels import has_table
from csip.review.review import left_out
from csip.review.split import Split, split, write_split
from pipelines.console import console


def run(settings: Settings, out: Path | None = None, train_share: float = 0.5, seed: int = 0) -> Split:
    """Write the split as a data set beside the reviewed one, see `csip.review.split`.

    Parameters
    ----------
    out
        The folder to make, if not ``NAME-split`` beside the data set.

    Raises
    ------
    CsipError
        The data set has no labels, too few people were seen by two cameras, or the folder holds something else.
    """
    root = settings.dataset.path
    if not has_table(settings.dataset):
        raise CsipError(f"{root / folder.TABLE}: missing; a split needs the table that `csip ingest` makes")
    if not (root / LABELS).exists():
        raise CsipError(f"{root / LABELS}: missing; `csip review` writes it")
    people, sightings = folder.read_people(root), folder.read_sightings(root)
    aside = left_out(root, settings.dataset.name)
    cameras = {name: seen.camera for name, seen in sightings.items() if name not in aside}
    known = {name: person for name, person in people.items() if name in cameras}
    result = split(known, cameras, train_share, seed)
    out = out if out is not None else root.with_name(f"{root.name}-split")
    frames = write_split(root, out, known, result.parts)
    counts = result.counts()
    console.print(
        f"split: {result.train:,} people train with {counts['train']:,} tracklets, {result.tested:,} are tested with "
        f"{counts['test']:,}; {counts['gallery']:,} distractors, {len(aside):,} left out; {frames:,} frames -> {out}",
        soft_wrap=True,
    )
    return result
