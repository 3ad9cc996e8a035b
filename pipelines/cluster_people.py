"""The stage that proposes who is who: descriptors in, ``labels.csv`` out for a person to look through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from csip.config import Settings
from csip.data import folder
from csip.data.dataset import DISTRACTOR
from csip.data.labels import LABELS, check_replaceable, write_labels
from csip.data.readers import load_dataset
from csip.errors import CsipError
from csip.retrieval.clustering import agreement, cluster, in_sight_together
from csip.retrieval.descriptors import read_descriptors
from pipelines.console import console
from pipelines.embed_tracklets import DESCRIPTORS


def run(
    settings: Settings,
    run_folder: Path,
    found: Path | None = None,
    threshold: float | None = None,
    people: int | None = None,
    out: Path | None = None,
    force: bool = False,
) -> dict[str, Any]:
    """Propose identities over cameras; write ``labels.csv`` into the data set where nobody is known in it.

    Where people are known already, the proposal goes into ``RUN/labels.csv`` and is compared with them.

    Parameters
    ----------
    found
        The file of descriptors, if not ``RUN/descriptors.h5``.
    threshold, people
        See `csip.retrieval.clustering.cluster`.
    out
        The file to write.
    force
        Replace labels that a person has changed.

    Returns
    -------
    dict
        ``people``, ``tracklets``, ``cameras``, ``over_cameras`` (people seen by more than one), ``alone`` (of one tracklet),
        ``apart`` (pairs that were in sight together), ``threshold``, ``silhouette``, ``out``; where people are known,
        ``known`` (tracklets), ``ari``, ``nmi``, ``purity``.

    Raises
    ------
    CsipError
        A person has changed the labels, the descriptors are of another data set, or a parameter is out of range.
    """
    path = found or run_folder / DESCRIPTORS
    descriptors = read_descriptors(path)
    if descriptors.dataset != settings.dataset.name:
        raise CsipError(
            f"{path}: descriptors of data set {descriptors.dataset}, not {settings.dataset.name}; `csip embed` makes them"
        )
    root = settings.dataset.path
    table = settings.dataset.layout == "folder" and (root / folder.TABLE).exists()
    given = _given(settings, table, force)
    # What is known is not overridden by a guess, and only tables have labels beside them.
    whole = out is None
    out = out or (root / LABELS if table and not folder.read_people(root, labels=False) else run_folder / LABELS)
    if not force:
        check_replaceable(out)
    sightings = folder.read_sightings(root) if table else {}
    if sightings and not set(descriptors.names) <= sightings.keys():
        strange = next(name for name in descriptors.names if name not in sightings)
        raise CsipError(f"{path}: tracklet {strange} is not in {root / folder.TABLE}; make it anew with `csip embed`")
    if whole and out.parent == root and len(descriptors) < len(sightings):
        raise CsipError(
            f"{path}: describes {len(descriptors):,} of the {len(sightings):,} tracklets of {root / folder.TABLE}; the others "
            f"would be left out of {out}; describe all by `csip embed --part all`, or name another file with --out"
        )
    apart = in_sight_together(descriptors.names, sightings)
    proposal = cluster(descriptors.features, descriptors.names, descriptors.cameras, apart, threshold, people)
    digits = max(len(str(proposal.people.max())), 3)
    write_labels(
        out,
        [
            (name, f"person-{person:0{digits}d}", confidence)
            for name, person, confidence in zip(
                descriptors.names, proposal.people.tolist(), proposal.confidence.tolist(), strict=True
            )
        ],
        force,
    )
    count = int(proposal.people.max())
    pairs = np.unique(np.stack([proposal.people, descriptors.cameras]), axis=1)
    figures: dict[str, Any] = {
        "people": count,
        "tracklets": len(descriptors),
        "cameras": len(np.unique(descriptors.cameras)),
        "over_cameras": int((np.bincount(pairs[0]) > 1).sum()),
        "alone": int((np.bincount(proposal.people)[1:] == 1).sum()),
        "apart": len(apart),
        "threshold": proposal.threshold,
        "silhouette": proposal.silhouette,
        "out": str(out),
    }
    known = np.array([name in given for name in descriptors.names])
    if known.any():
        truth = np.array([given[name] for name in np.array(descriptors.names, dtype=object)[known]])
        figures |= {"known": int(known.sum()), **agreement(proposal.people[known], truth)}
    _show(figures, proposal.chosen_by)
    return figures


def _given(settings: Settings, table: bool, force: bool) -> dict[str, str]:
    """Return the people that somebody knows, by tracklet; an earlier proposal that nobody has touched is no knowledge.

    Nor is, where `force` replaces them, what cannot be read.
    """
    root = settings.dataset.path
    if table:
        try:
            check_replaceable(root / LABELS)
        except CsipError:
            try:
                return folder.read_people(root)
            except CsipError:
                if not force:
                    raise
        return folder.read_people(root, labels=False)
    if not root.is_dir():
        return {}
    dataset = load_dataset(settings.dataset)
    everyone = (*dataset.train, *dataset.query, *dataset.gallery)
    return {t.name: str(t.pid) for t in everyone if t.pid != DISTRACTOR}


def _show(figures: dict[str, Any], chosen_by: str) -> None:
    console.print(
        f"cluster: {figures['tracklets']:,} tracklets of {figures['cameras']} cameras are {figures['people']:,} people, "
        f"{figures['over_cameras']:,} of them seen by more than one camera, {figures['alone']:,} on one tracklet alone",
        soft_wrap=True,
    )
    how = {
        "silhouette": "the one with the best mean silhouette",
        "threshold": "as given",
        "people": "as the number of people asks for",
    }
    console.print(
        f"  joined up to a mean distance of {figures['threshold']:.4f} (1 - cosine; {how[chosen_by]}), silhouette "
        f"{figures['silhouette']:.3f}; {figures['apart']:,} pairs in sight together were kept apart",
        soft_wrap=True,
    )
    if "ari" in figures:
        console.print(
            f"  against the {figures['known']:,} tracklets whose person is known: adjusted Rand index {figures['ari']:.3f}, "
            f"normalised mutual information {figures['nmi']:.3f}, purity {figures['purity']:.3f}",
            soft_wrap=True,
        )
    console.print(f"  a proposal, to look through and correct -> {figures['out']}", soft_wrap=True)
