"""The clustering stage: descriptors in, ``labels.csv`` out for a person to look through."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from csip.config import Settings
from csip.data import folder
from csip.data.labels import LABELS, check_replaceable
from csip.errors import CsipError
from csip.retrieval.clustering import Agreement, Proposal, agreement, cluster, in_sight_together
from csip.retrieval.descriptors import Descriptors, check_pictures, read_descriptors
from csip.retrieval.labels import has_table, known_identities
from pipelines.console import console
from pipelines.embed_tracklets import DESCRIPTORS

_CHOSEN_BY = {
    "silhouette": "the one with the best mean silhouette",
    "threshold": "as given",
    "people": "as the number of people asks for",
}


@dataclass(frozen=True)
class Clustered:
    """What the stage has found and written.

    Attributes
    ----------
    proposal
        Who may be who.
    apart
        Pairs of tracklets that were in sight together.
    out
        The file written.
    known, agreement
        Tracklets whose person is known, and how well the proposal agrees with them; None where nobody is.
    """

    proposal: Proposal
    apart: int
    out: Path
    known: int
    agreement: Agreement | None


def run(
    settings: Settings,
    run_folder: Path,
    found: Path | None = None,
    threshold: float | None = None,
    people: int | None = None,
    out: Path | None = None,
    force: bool = False,
) -> Clustered:
    """Propose identities over cameras; write ``labels.csv`` into the data set where nobody is known in it.

    Where people are known already, the proposal goes into ``RUN/labels.csv`` and is compared with them.

    Parameters
    ----------
    found
        The file of descriptors, if not ``RUN/descriptors.h5``.
    threshold, people
        See `csip.retrieval.clustering.cluster_features`.
    out
        The file to write.
    force
        Replace labels that a person has changed.

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
    check_pictures(path, descriptors, settings.dataset)
    root, table = settings.dataset.path, has_table(settings.dataset)
    known = known_identities(settings.dataset, replace_unreadable=force)
    # What is known is not overridden by a guess, and only tables have labels beside them.
    whole = out is None
    out = out or (root / LABELS if table and not folder.read_people(root, labels=False) else run_folder / LABELS)
    if not force:
        check_replaceable(out)
    sightings = folder.read_sightings(root) if table else {}
    _check_described(descriptors, path, sightings, root, out if whole and out.parent == root else None)
    apart = in_sight_together(descriptors.names, sightings)
    proposal = cluster(descriptors, apart, threshold, people)
    proposal.save(out, force)
    rows = [row for row, name in enumerate(descriptors.names) if name in known]
    truth = np.array([known[descriptors.names[row]] for row in rows])
    result = Clustered(proposal, len(apart), out, len(rows), agreement(proposal.people[rows], truth) if rows else None)
    _show(result)
    return result


def _check_described(
    descriptors: Descriptors, path: Path, sightings: dict[str, folder.Sighting], root: Path, labels: Path | None
) -> None:
    """See that the descriptors are of the table's tracklets, and where the table's own labels are written, of all."""
    table = root / folder.TABLE
    if sightings and not set(descriptors.names) <= sightings.keys():
        strange = next(name for name in descriptors.names if name not in sightings)
        raise CsipError(f"{path}: tracklet {strange} is not in {table}; rerun `csip embed`")
    if labels is not None and len(descriptors) < len(sightings):
        raise CsipError(
            f"{path}: describes {len(descriptors):,} of the {len(sightings):,} tracklets of {table}; the others would be "
            f"left out of {labels}; embed all of them with `csip embed --part all`, or name another file with --out"
        )


def _show(result: Clustered) -> None:
    proposal = result.proposal
    cameras = 0 if proposal.cameras is None else len(np.unique(proposal.cameras))
    console.print(
        f"cluster: {len(proposal.people):,} tracklets of {cameras} cameras are {proposal.count:,} people, "
        f"{proposal.over_cameras:,} of them seen by more than one camera, {proposal.alone:,} on one tracklet alone",
        soft_wrap=True,
    )
    console.print(
        f"  clusters up to a mean distance of {proposal.threshold:.4f} (1 - cosine; {_CHOSEN_BY[proposal.chosen_by]}), "
        f"silhouette {proposal.silhouette:.3f}; {result.apart:,} pairs in sight together were kept apart",
        soft_wrap=True,
    )
    if result.agreement is not None:
        console.print(
            f"  against the {result.known:,} tracklets whose person is known: adjusted Rand index "
            f"{result.agreement.ari:.3f}, normalised mutual information {result.agreement.nmi:.3f}, purity "
            f"{result.agreement.purity:.3f}",
            soft_wrap=True,
        )
    console.print(f"  a proposal, to look through and correct -> {result.out}", soft_wrap=True)
