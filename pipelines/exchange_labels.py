"""The stage that takes labels into other tools and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from csip.config import Settings
from csip.data import folder
from csip.data.csv_table import format_rows
from csip.data.labels import LABELS, is_proposal, parse_labels
from csip.data.readers import load_dataset, load_labelled
from csip.errors import CsipError
from csip.files import whole_folder, write_text
from csip.retrieval.labels import has_table
from csip.review.interchange import coco, cvat, fiftyone, mars, mot
from csip.review.interchange.tracks import LabelledTrack, Matched, VideoBoxes, first_frames, match, read_tracks
from csip.review.labels import written_by_review
from csip.review.review import left_out
from csip.video.decode import VideoReader
from pipelines.console import RichMonitor, console

Format = Literal["mot", "coco", "cvat", "fiftyone", "mars"]
_SHOWN = 3


def export_labels(settings: Settings, form: Format, out: Path, videos: Path | None = None, force: bool = False) -> None:
    """Write the labels of a data set in another tool's format, into a new folder.

    Parameters
    ----------
    form
        The format.
    out
        The folder to make.
    videos
        The folder that was ingested: FiftyOne shows the videos, and COCO names their size.
    force
        Replace what the folder holds.

    Raises
    ------
    CsipError
        The data set has no boxes, which all formats but MARS's have; or the folder holds something.
    """
    root = settings.dataset.path
    if form == "mars":
        data = load_labelled(settings.dataset, "an export")
        with whole_folder(out, force) as partial, RichMonitor() as monitor:
            mars.write_mars(data, folder.read_people(root), partial, monitor)
        tracklets = len({t.name for t in (*data.train, *data.query, *data.gallery)})
        console.print(f"export: {tracklets:,} tracklets, {len(data.query):,} of them queries -> {out}", soft_wrap=True)
        return
    tracks = _tracks(settings)
    sizes = _sizes(tracks, videos) if videos is not None else {}
    with whole_folder(out, force) as partial:
        match form:
            case "mot":
                mot.write_mot(tracks, partial)
            case "coco":
                coco.write_coco(tracks, partial, sizes)
            case "cvat":
                cvat.write_cvat(tracks, partial)
            case "fiftyone":
                fiftyone.write_fiftyone(tracks, partial, _needed(videos), sizes)
    people = {track.person for track in tracks} - {None}
    console.print(
        f"export: {len(tracks):,} tracklets of {len(people):,} people in {len({t.video for t in tracks}):,} videos -> {out}",
        soft_wrap=True,
    )


def import_labels(
    settings: Settings, form: Format, source: Path, videos: Path | None = None, force: bool = False
) -> Matched:
    """Take the people of another tool's file over into ``labels.csv``.

    Tracklets of videos that the file does not have keep their person.

    Parameters
    ----------
    form
        The format of the file.
    source
        The file, or the folder of files.
    videos
        The folder that was ingested, for FiftyOne, whose boxes are shares of the picture.
    force
        Replace labels that somebody has edited.

    Raises
    ------
    CsipError
        The file is damaged or of another format, has none of the data set's videos, or the labels were edited.
    """
    root = settings.dataset.path
    if not has_table(settings.dataset):
        raise CsipError(f"{root / folder.TABLE}: missing; labels are imported for the table that `csip ingest` makes")
    if not source.exists():
        raise CsipError(f"{source}: no such file or folder")
    if form == "mars":
        with RichMonitor() as monitor:
            matched = mars.match_mars(source, load_dataset(settings.dataset), monitor)
    else:
        matched = _matched(settings, form, source, videos)
    if not matched.people:
        raise CsipError(
            f"{source}: none of its boxes or pictures with a person is one of {root}; is it of this data set, and of format "
            f"{form}?"
        )
    labels = root / LABELS
    known = folder.read_sightings(root)
    before = parse_labels(labels.read_bytes(), labels, known) if labels.exists() else {}
    after = {name: person for name, person in before.items() if name not in matched.covered} | matched.people
    changed = sum(before.get(name) != after.get(name) for name in {*before, *after})
    if changed and labels.exists() and not force and not (is_proposal(labels) or written_by_review(labels)):
        raise CsipError(
            f"{labels}: somebody has edited it, and {changed:,} tracklets would change; rename it to keep it",
            parameter="force",
        )
    if changed:
        rows = [(name, after[name]) for name in known if name in after]
        write_text(labels, format_rows([("tracklet", "person"), *rows]))
    _show(settings, matched, changed, labels)
    return matched


def _tracks(settings: Settings) -> list[LabelledTrack]:
    root = settings.dataset.path
    if not has_table(settings.dataset):
        raise CsipError(
            f"{root / folder.TABLE}: missing; only the table that `csip ingest` makes has boxes", parameter="format"
        )
    return read_tracks(root, folder.read_people(root), left_out(root, settings.dataset.name))


def _matched(settings: Settings, form: Format, source: Path, videos: Path | None) -> Matched:
    tracks = _tracks(settings)
    first = first_frames(tracks)
    names = list(first)
    found: dict[str, VideoBoxes] = {}
    match form:
        case "mot":
            found = mot.read_mot(source, names)
        case "coco":
            found = coco.read_coco(source, names)
        case "cvat":
            found = cvat.read_cvat(source, first)
        case "fiftyone":
            found = fiftyone.read_fiftyone(source, first, _sizes(tracks, _needed(videos)))
    if not found:
        raise CsipError(
            f"{source}: has none of the videos of {settings.dataset.path}, e.g. {', '.join(names[:_SHOWN])}"
        )
    return match(tracks, found)


def _needed(videos: Path | None) -> Path:
    if videos is None:
        raise CsipError("FiftyOne's boxes are shares of the picture: name the folder of the videos", parameter="videos")
    return videos


def _sizes(tracks: Sequence[LabelledTrack], videos: Path) -> dict[str, tuple[int, int]]:
    """Return the size of each video's picture; `videos` is their folder, or the only one."""
    names = dict.fromkeys(track.video for track in tracks)
    return {name: VideoReader(videos / name if videos.is_dir() else videos).geometry.size for name in names}


def _show(settings: Settings, matched: Matched, changed: int, labels: Path) -> None:
    people = len(set(matched.people.values()))
    console.print(
        f"import: {len(matched.people):,} tracklets are {people:,} people, {changed:,} changed -> {labels}",
        soft_wrap=True,
    )
    named = folder.read_people(settings.dataset.path, labels=False)
    reasons = {
        "have boxes without a person": matched.unknown,
        "have no boxes there": matched.missing,
        "are shared by several people there": matched.mixed,
    }
    for reason, names in reasons.items():
        if names:
            examples = ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
            kept = sum(name in named for name in names)
            rest = f"; {folder.TABLE} names the person of {kept:,} of them, which stays" if kept else ""
            console.print(f"  {len(names):,} tracklets {reason}, and have no label: {examples}{rest}", soft_wrap=True)
