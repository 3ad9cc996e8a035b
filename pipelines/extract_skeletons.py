"""The stage that makes a data set's skeleton cache, and the tools around the cache."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from csip.data.dataset import Dataset
from csip.data.skeletons import SPLITS, frame_sequences
from csip.errors import CsipError
from csip.synthetic.accuracy import compare_with_truth, has_truth
from pipelines.advice import share_done
from pipelines.console import RichMonitor, console
from pose_cache import interchange
from pose_cache.estimator import estimator_spec
from pose_cache.extract import ExtractOptions, ExtractSummary, Share, extract, merge_shards
from pose_cache.interchange import ExportReport, ImportReport
from pose_cache.json_tree import JsonFolder, find_json_folders
from pose_cache.outcome import read_record
from pose_cache.preview import draw_contact_sheet
from pose_cache.store import SkeletonStore, verify_store
from pose_cache.summary import CacheSummary, summarize_store

_LISTED = 10


def extract_skeletons(
    dataset: Dataset,
    out: Path,
    *,
    estimator: str = "human3d",
    splits: Sequence[str] = ("train",),
    options: ExtractOptions,
    share: Share | None = None,
    force: bool = False,
) -> ExtractSummary:
    """Extract the skeletons of a data set into `out`, and write its metrics to `out` with the suffix .json.

    Parameters
    ----------
    dataset
        The data set.
    out
        The cache file.
    estimator
        "human3d", or "demo" for rendered people.
    splits
        Of "train", "query" and "gallery". Training needs the skeletons of the training tracklets only.
    options, share, force
        See `pose_cache.extract.extract`. A share writes no metrics.
    """
    spec = estimator_spec(estimator)
    sequences = frame_sequences(dataset, splits)
    with RichMonitor() as monitor:
        if estimator == "demo" and not has_truth(dataset.root):
            monitor.say("estimator demo was trained on rendered people; for photographs use --set estimator=human3d")
        summary = extract(
            sequences, dataset.root, spec, out, options, share=share, force=force,
            monitor=monitor,
        )  # fmt: skip
    _say_summary(summary)
    if summary.up_to_date:
        out.touch()  # what was asked for is there: Make need not ask again
    if share is None and (not summary.up_to_date or read_record(out) is None):
        _write_record(summary, estimator, dataset.root)
    return summary


def merge(
    dataset: Dataset, out: Path, *, estimator: str = "human3d", splits: Sequence[str] = ("train",), force: bool = False
) -> ExtractSummary:
    """Join what the jobs of a data set have extracted into `out`, and write its metrics as `extract_skeletons` does."""
    summary = merge_shards(frame_sequences(dataset, splits), dataset.root, out, force=force)
    _say_summary(summary)
    _write_record(summary, estimator, dataset.root)
    return summary


def import_kinect(dataset: Dataset, arrays: Path, out: Path, *, mirrored: bool, force: bool = False) -> ImportReport:
    """Import Kinect v1 skeletons (.npz) for all tracklets of a data set."""
    with _replacing(out, "kinect", force):
        report = interchange.import_kinect(arrays, frame_sequences(dataset, SPLITS), out, mirrored=mirrored)
    return _say_report(report)


def import_json(
    dataset: Dataset,
    folder: Path | None,
    out: Path,
    *,
    splits: Sequence[str] = ("train",),
    unit: str = "m",
    workers: int = 1,
    force: bool = False,
) -> ImportReport:
    """Import JSON skeletons, one file a frame, for tracklets of a data set.

    Parameters
    ----------
    dataset
        The data set.
    folder
        The folder of JSON files; None finds the one beside the images.
    out
        The cache file. What does not fit is listed in full beside it, in `out` with the suffix .import.txt.
    splits
        Of "train", "query" and "gallery".
    unit
        Of the numbers.
    workers
        Processes that read files.
    force
        Replace a cache that was made otherwise.

    Raises
    ------
    CsipError
        Another kind of cache is there, and `force` is not given.
    """
    sequences = frame_sequences(dataset, splits)
    folders = [JsonFolder(folder)] if folder else find_json_folders(dataset.root, (s.frames[0] for s in sequences))
    for found in folders:
        console.print(f"reading the skeletons in {found.path}", markup=False, soft_wrap=True)
    with _replacing(out, "json", force), RichMonitor() as monitor:
        report = interchange.import_json(
            folders, sequences, out, unit=unit, workers=workers,
            monitor=monitor,
        )  # fmt: skip
    return _say_report(report)


def export_json(cache: Path, folder: Path, *, workers: int = 1) -> ExportReport:
    """Write one JSON file per frame, mirroring the folders of the images; an interrupted run resumes."""
    with SkeletonStore(cache) as store, RichMonitor() as monitor:
        report = interchange.export_json(
            store, folder, workers=workers,
            monitor=monitor,
        )  # fmt: skip
    kept = f" ({report.kept:,} kept)" if report.kept else ""
    console.print(f"exported {report.written + report.kept:,} frames{kept}, {report.tracklets:,} tracklets -> {folder}")
    _say_list(report.invalid, f"not valid and left out, all in {folder / 'invalid.txt'}")
    return report


def info(cache: Path, *, as_json: bool = False) -> CacheSummary:
    """Print what is in a cache, for people or as one JSON object."""
    found = summarize_store(cache)
    if as_json:
        console.print(json.dumps(asdict(found), indent=1), markup=False, soft_wrap=True)
        return found
    share = f" ({found.valid / found.frames:.2%})" if found.frames else ""
    lengths = ", ".join(f"{name} {value:,.4g}" for name, value in found.lengths.items())
    gaps = f"{found.gaps:,} between poses, the longest of {found.longest_gap:,} frames" if found.gaps else "none"
    rows = {
        "tracklets": f"{found.tracklets:,}, {found.without_pose:,} without a pose",
        "frames": f"{found.frames:,}, {found.valid:,} valid{share}",
        "frames per tracklet": lengths or "-",
        "gaps": gaps,
        "joints": f"{found.joint_set}, {found.joints} in 3D, {found.keypoints2d} keypoints in 2D",
        "unit": found.unit,
        "estimator": found.estimator,
        **{
            f"  {name}": value if isinstance(value, str) else json.dumps(value) for name, value in found.details.items()
        },
        "skeletons' digest": found.digest,
        "frames' fingerprint": found.dataset or "-",
        "software": ", ".join(f"{name} {version}" for name, version in found.software.items()) or "-",
        "created": found.created,
        "format": f"version {found.version}",
        "size": f"{found.bytes / 1e6:,.1f} MB"
        + (f", {found.bytes / found.frames:,.0f} bytes per frame" if found.frames else ""),
    }
    console.print(found.path, markup=False, soft_wrap=True)
    for name, text in rows.items():
        console.print(f"  {name:<20} {text}", markup=False, soft_wrap=True)
    return found


def preview(
    cache: Path, root: Path, out: Path, *, tracklets: int = 6, frames: int = 4, names: Sequence[str] = ()
) -> Path:
    """Draw a contact sheet of some tracklets."""
    with SkeletonStore(cache) as store:
        draw_contact_sheet(store, root, out, tracklets=tracklets, frames=frames, names=names)
        drawn = len(names) or min(tracklets, len(store))
    console.print(f"picture of {drawn} tracklets -> {out}")
    return out


def verify(cache: Path) -> bool:
    """Check a cache file, print what is wrong with it, and return whether it is healthy."""
    problems = verify_store(cache)
    for problem in problems[:_LISTED]:
        console.print(problem, markup=False, soft_wrap=True)
    if len(problems) > _LISTED:
        console.print(f"and {len(problems) - _LISTED} more problems")
    if problems:
        return False
    with SkeletonStore(cache) as store:
        made = store.provenance
        console.print(
            f"{cache}: {len(store):,} tracklets, {store.frame_count:,} frames, {made.joint_set} in {made.unit}, by "
            f"{made.estimator}; every checksum is right",
            markup=False,
        )
    return True


def _write_record(summary: ExtractSummary, estimator: str, root: Path) -> None:
    """Write what the report shows; on rendered people that includes the errors."""
    errors = {}
    if has_truth(root):
        with SkeletonStore(summary.out) as store:
            errors = compare_with_truth(store, root)
        console.print(f"against the true joints: PA-MPJPE {errors['pa_mpjpe_mm']:.1f} mm")
    summary.write_record(estimator, errors)


def _say_summary(summary: ExtractSummary) -> None:
    what = f"{summary.tracklets:,} tracklets, {summary.frames:,} frames"
    if summary.up_to_date:
        console.print(f"skeletons: up to date, {what} -> {summary.out}")
    else:
        kept = f" ({summary.kept_frames:,} frames kept)" if summary.kept_frames else ""
        speed = f"{summary.seconds:.0f} s, {summary.frames_per_second:,.0f} frames/s"
        part = "" if summary.share is None else f"share {summary.share} of "
        console.print(f"skeletons: {part}{what}{kept}, {speed} -> {summary.out}", markup=False)
    unusable = {kind.label: count for kind, count in summary.kinds.items() if not kind.usable}
    lost = unusable | ({"without a pose": summary.without_pose} if summary.without_pose else {})
    converted = {kind.label: count for kind, count in summary.kinds.items() if kind.usable}
    for title, counts in (("not valid", lost), ("converted", converted)):
        if counts:
            console.print(f"  {title}: " + ", ".join(f"{count:,} {label}" for label, count in counts.items()))
    for example in summary.examples:
        console.print(f"  unreadable image: {example}", markup=False, soft_wrap=True)
    if summary.share is not None and not summary.up_to_date:
        console.print(f"  {share_done(summary.share, summary.out)}", soft_wrap=True)


def _say_report(report: ImportReport) -> ImportReport:
    console.print(
        f"imported skeletons of {report.valid:,} of {report.frames:,} frames, {report.tracklets:,} tracklets -> {report.out}"
    )
    _say_list(report.problems, "without a skeleton")
    _say_list(report.unused, "in the source without a frame")
    listing = report.out.with_suffix(".import.txt")
    report.write(listing)
    if report.problems or report.unused:
        console.print(f"  all of them are listed in {listing}", markup=False, soft_wrap=True)
    return report


@contextmanager
def _replacing(out: Path, kind: str, force: bool) -> Iterator[None]:
    """Refuse to replace a cache that was not made by an import of this kind; its metrics are deleted with it."""
    other = interchange.other_maker(out, kind)
    if other is not None and not force:
        raise CsipError(
            f"{out} already exists, made by {other}: replace it with --force, or write to another file with --out"
        )
    yield
    if other is not None:
        out.with_suffix(".json").unlink(missing_ok=True)


def _say_list(lines: Sequence[str], what: str) -> None:
    if lines:
        console.print(f"  {len(lines):,} {what}:")
    for line in lines[:_LISTED]:
        console.print(f"    {line}", markup=False, soft_wrap=True)
    if len(lines) > _LISTED:
        console.print(f"    and {len(lines) - _LISTED:,} more")
