"""Skeletons in other programs' formats: Kinect arrays into the cache, one JSON file per frame into it and out of it.

What does not fit together is listed in the report, never skipped in silence; its frames are in the cache, not valid.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from joblib import Parallel, delayed

from pose_cache.arrays import read_npz
from pose_cache.errors import PoseCacheError
from pose_cache.files import write_text
from pose_cache.joints import H36M17, KINECT20, kinect20_to_h36m
from pose_cache.json_tree import JsonFolder, JsonTree, json_path, read_points, write_points
from pose_cache.monitor import Monitor, Silent
from pose_cache.plan import FrameSequence, fingerprint
from pose_cache.store import Provenance, SkeletonStore, TrackletSkeletons, write_store

_CHUNK: Final = 1024  # files that a worker reads or writes at once


@dataclass(frozen=True)
class ImportReport:
    """What was imported, and what did not fit.

    Attributes
    ----------
    out : Path
        The cache file.
    tracklets, frames : int
        In the file.
    valid : int
        Frames that have a skeleton.
    problems : tuple of str
        One line for each tracklet or frame that has none, and why.
    unused : tuple of str
        Skeletons in the source that belong to no frame.
    """

    out: Path
    tracklets: int
    frames: int
    valid: int
    problems: tuple[str, ...]
    unused: tuple[str, ...]

    def write(self, path: Path) -> None:
        """Write all of it into a text file."""
        lines = [
            f"{self.out}: skeletons of {self.valid} of {self.frames} frames, {self.tracklets} tracklets",
            f"\n{len(self.problems)} without a skeleton",
            *self.problems,
            f"\n{len(self.unused)} in the source, but of no frame",
            *self.unused,
        ]
        write_text(path, "\n".join(lines) + "\n")


@dataclass(frozen=True)
class ExportReport:
    """What was exported.

    Attributes
    ----------
    folder : Path
        The folder of JSON files.
    tracklets : int
        In the cache.
    written, kept : int
        Files made, and files that an earlier export had made.
    invalid : tuple of str
        The frames that have no file.
    """

    folder: Path
    tracklets: int
    written: int
    kept: int
    invalid: tuple[str, ...]


def import_kinect(
    arrays: Path, sequences: Sequence[FrameSequence], out: Path, *, mirrored: bool = False
) -> ImportReport:
    """Import Kinect v1 skeletons of whole tracklets as Human3.6M joints.

    Parameters
    ----------
    arrays : Path
        A .npz file of (T, 20, 3) float arrays: metres, Kinect axes (y up), Kinect v1 joint order. A tracklet's key is its
        name, or its name with "/" written as "_"; a leading "train/" or "test/" may be left out. Frames of an array
        have no names, so an array must have as many as its tracklet.
    sequences : sequence of FrameSequence
        The tracklets to find skeletons for.
    out : Path
        The file to make.
    mirrored : bool
        The sensor's pictures are mirrored (Kinect's default), so that the joints it calls left are the right ones of the
        person in the picture: swap them. x already points to the right of the picture either way.

    Raises
    ------
    PoseCacheError
        If the file cannot be read or none of its arrays belongs to a tracklet.
    """
    found = read_npz(arrays)
    problems: list[str] = []
    used: set[str] = set()

    def read() -> Iterator[TrackletSkeletons]:
        for sequence in sequences:
            key = next((key for key in _kinect_keys(sequence.name) if key in found), None)
            points = None
            if key is None:
                problems.append(f"{sequence.name}: no array named {' or '.join(_kinect_keys(sequence.name))}")
            else:
                used.add(key)
                points, problem = _kinect_points(found[key], len(sequence.frames), mirrored)
                problems.extend([f"{sequence.name}: {problem}"] if problem else [])
            yield _tracklet(sequence, points)

    details = {"source": "Kinect v1", "mirrored": mirrored}
    made = Provenance("kinect", H36M17.name, "m", details, fingerprint(sequences))
    return _write(read(), sequences, out, made, arrays, problems, lambda: sorted(set(found) - used))


def import_json(
    folders: Sequence[JsonFolder],
    sequences: Sequence[FrameSequence],
    out: Path,
    *,
    unit: str = "m",
    workers: int = 1,
    monitor: Monitor = Silent(),
) -> ImportReport:
    """Import one JSON file a frame, {"keypoints": [[x, y, z] x 17]}, in Human3.6M order and camera axes.

    Parameters
    ----------
    folders : sequence of JsonFolder
        The folders of JSON files; `pose_cache.json_tree` says how they mirror the folders of the images, and
        `find_json_folders` finds them.
    sequences : sequence of FrameSequence
        The tracklets to find skeletons for.
    out : Path
        The file to make.
    unit : str
        The unit of the numbers.
    workers : int
        Processes that read files (joblib's, so that `joblib.parallel_config` can name another backend).
    monitor : Monitor, optional
        Hears how many frames are done.

    Raises
    ------
    PoseCacheError
        If there is no such folder or it has a skeleton for no frame.
    """
    tree = JsonTree(folders)
    for sequence in sequences:
        for frame in sequence.frames:
            tree.claim(frame)
    problems: list[str] = []

    def read() -> Iterator[TrackletSkeletons]:
        chunks = list(_chunks(sequences))
        found = deque[list[tuple[str | None, str | None]]]()

        def tasks() -> Iterator[Any]:
            for chunk in chunks:
                found.append([tree.find(frame) for one in chunk for frame in one.frames])
                # Absolute, since processes remember the working directory in which they were started.
                yield delayed(read_points)([path and str(Path(path).absolute()) for path, _ in found[-1]])

        done, total = 0, sum(len(one.frames) for one in sequences)
        results = Parallel(n_jobs=workers, return_as="generator", batch_size=1)(tasks())
        for chunk, (points, wrong) in zip(chunks, results, strict=True):
            reasons = [problem or reason for problem, (_, reason) in zip(wrong, found.popleft(), strict=True)]
            start = 0
            for one in chunk:
                rows = slice(start, start + len(one.frames))
                listed = zip(one.frames, reasons[rows], strict=True)
                problems.extend(f"{frame}: {reason}" for frame, reason in listed if reason)
                yield _tracklet(one, points[rows])
                start = rows.stop
            done += start
            monitor.progress("importing skeletons", done, total)

    source = folders[0].path if len(folders) == 1 else Path(", ".join(str(folder.path) for folder in folders))
    details = {"source": "JSON files", "unit": unit}
    made = Provenance("json", H36M17.name, unit, details, fingerprint(sequences))
    return _write(read(), sequences, out, made, source, problems, lambda: list(tree.unused()))


def export_json(store: SkeletonStore, folder: Path, *, workers: int = 1, monitor: Monitor = Silent()) -> ExportReport:
    """Write one JSON file a frame, as `import_json` reads them, mirroring all the folders of the images.

    Frames that are not valid get no file: they are listed in `folder`/invalid.txt. 2D keypoints are not exported. An
    interrupted export resumes: each file appears whole or not at all.

    Parameters
    ----------
    store : SkeletonStore
        The skeletons, of 17 Human3.6M joints.
    folder : Path
        The folder to make.
    workers : int
        Processes that write files.
    monitor : Monitor, optional
        Hears how many frames are done.

    Raises
    ------
    PoseCacheError
        If the joints are others, two frames would have the same file, the folder holds anything but an export of the same
        skeletons, or the disk refuses.
    """
    if store.joint_set is not H36M17:
        raise PoseCacheError(f"{store.path} has joints of {store.joint_set.name}; the JSON files hold {H36M17.name}")
    owners: dict[str, str] = {}
    invalid: list[str] = []
    for name in store.names:
        frames = store.frames(name)
        invalid += [frame for frame, is_valid in zip(frames, store.valid(name), strict=True) if not is_valid]
        for frame in frames:
            path = json_path(frame)
            if path in owners:
                raise PoseCacheError(f"{frame} and {owners[path]} would both have the file {path}: cannot export")
            owners[path] = frame
    del owners
    keep = _claim_export(folder, store)
    kept, written = 0, 0
    place = str(folder.absolute())  # processes remember the working directory in which they were started

    def tasks() -> Iterator[Any]:
        files: list[str] = []
        joints: list[np.ndarray] = []
        for name in store.names:
            tracklet = store.read(name)
            files += [
                json_path(frame) for frame, is_valid in zip(tracklet.frames, tracklet.valid, strict=True) if is_valid
            ]
            joints.append(tracklet.joints[tracklet.valid])
            if len(files) >= _CHUNK:
                yield delayed(write_points)(place, files, np.concatenate(joints), keep)
                files, joints = [], []
        if files:
            yield delayed(write_points)(place, files, np.concatenate(joints), keep)

    for made, left in Parallel(n_jobs=workers, return_as="generator", batch_size=1)(tasks()):
        kept, written = kept + left, written + made
        monitor.progress("exporting skeletons", kept + written + len(invalid), store.frame_count)
    write_text(folder / "invalid.txt", "".join(f"{frame}\n" for frame in invalid))
    return ExportReport(folder, len(store), written, kept, tuple(invalid))


def other_maker(out: Path, kind: str) -> str | None:
    """Say who made the cache at `out`, where it was not an import of this kind; None where nothing is lost with it.

    Parameters
    ----------
    out : Path
        The file that is about to be replaced.
    kind : str
        "kinect" or "json".
    """
    if not out.exists():
        return None
    try:
        maker = SkeletonStore(out).provenance.estimator
    except PoseCacheError:
        return "what cannot be told: it is damaged"
    return None if maker == kind else maker


def _claim_export(folder: Path, store: SkeletonStore) -> bool:
    """Mark the folder as an export of this cache; tell whether one has begun there."""
    mark = folder / ".csip-export"
    ours = json.dumps({"skeletons": store.digest, "joint_set": store.joint_set.name, "unit": store.provenance.unit})
    if mark.is_file():
        if mark.read_text() == ours:
            return True
        raise PoseCacheError(f"{folder} is an export of other skeletons: delete it or choose another folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PoseCacheError(
            f"{folder} is there already and is no export of a cache: choose a folder that is not there"
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(mark, ours)
    except OSError as error:
        raise PoseCacheError(f"cannot write {mark}: {error.strerror}") from error
    return False


def _chunks(sequences: Sequence[FrameSequence]) -> Iterator[list[FrameSequence]]:
    """Yield neighbours of together some _CHUNK frames: what a worker is given at once."""
    chunk: list[FrameSequence] = []
    frames = 0
    for sequence in sequences:
        chunk.append(sequence)
        frames += len(sequence.frames)
        if frames >= _CHUNK:
            yield chunk
            chunk, frames = [], 0
    if chunk:
        yield chunk


def _kinect_keys(name: str) -> list[str]:
    """Return the keys that a tracklet's array may have, the most exact first."""
    names = [name, name.partition("/")[2]] if name.startswith(("train/", "test/")) else [name]
    return list(dict.fromkeys(key for one in names for key in (one, one.replace("/", "_"))))


def _kinect_points(array: np.ndarray, frames: int, mirrored: bool) -> tuple[np.ndarray | None, str | None]:
    """Turn Kinect's axes (x right, y up, z forward) and joints into ours."""
    if array.shape != (frames, KINECT20.size, 3):
        return None, f"its array has the shape {array.shape}, expected ({frames}, {KINECT20.size}, 3)"
    if array.dtype.kind not in "iuf":
        return None, f"its array is of {array.dtype}, expected numbers"
    points = array.astype(np.float32) * np.array([1, -1, 1], np.float32)
    return kinect20_to_h36m(points[:, KINECT20.mirror_order] if mirrored else points), None


def _tracklet(sequence: FrameSequence, points: np.ndarray | None) -> TrackletSkeletons:
    """Make a tracklet of joints (T, 17, 3); frames whose joints are not finite are not valid, all of them for None."""
    count = len(sequence.frames)
    joints = np.full((count, H36M17.size, 3), np.nan, np.float32) if points is None else points
    valid = np.asarray(np.isfinite(joints).all(axis=(1, 2)))
    keypoints = np.zeros((count, 0, 3), np.float32)
    return TrackletSkeletons(sequence.name, sequence.frames, np.nan_to_num(joints), keypoints, valid)


def _write(
    tracklets: Iterator[TrackletSkeletons],
    sequences: Sequence[FrameSequence],
    out: Path,
    made: Provenance,
    source: Path,
    problems: list[str],
    unused: Callable[[], list[str]],
) -> ImportReport:
    valid = 0

    def counted() -> Iterator[TrackletSkeletons]:
        nonlocal valid
        for tracklet in tracklets:
            valid += int(tracklet.valid.sum())
            yield tracklet
        if not valid:
            raise PoseCacheError(
                f"{source}: no skeleton in it belongs to a frame of the {len(sequences)} tracklets. The first problem: "
                f"{problems[0] if problems else 'there are no tracklets'}"
            )

    write_store(out, counted(), made)
    frames = sum(len(one.frames) for one in sequences)
    return ImportReport(out, len(sequences), frames, valid, tuple(problems), tuple(unused()))
