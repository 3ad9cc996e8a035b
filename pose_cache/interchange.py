"""Skeletons that others estimated, brought into the cache: Kinect arrays, and one JSON file a frame.

What does not fit together is listed in the report, never skipped in silence; its frames are in the cache, not valid.
"""

import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from pose_cache.errors import PoseCacheError
from pose_cache.extract import FrameSequence, fingerprint
from pose_cache.joints import H36M17, KINECT20, kinect20_to_h36m
from pose_cache.store import Provenance, TrackletSkeletons, write_store


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
    try:
        with np.load(arrays, allow_pickle=False) as file:
            found = {key: file[key] for key in file.files}
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise PoseCacheError(f"{arrays}: not a readable .npz file of arrays ({error})") from error
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
    return _write(read(), sequences, out, "kinect", details, arrays, problems, lambda: sorted(set(found) - used))


def import_json(folder: Path, sequences: Sequence[FrameSequence], out: Path, *, unit: str = "m") -> ImportReport:
    """Import one JSON file a frame, {"keypoints": [[x, y, z] x 17]}, in Human3.6M order and camera axes.

    Parameters
    ----------
    folder : Path
        The folder of JSON files, which mirrors the folders of the images, with or without the first ones: the frame
        `bbox_train/0001/F1.jpg` is found at `bbox_train/0001/F1.json`, `0001/F1.json` or `F1.json` in it.
    sequences : sequence of FrameSequence
        The tracklets to find skeletons for.
    out : Path
        The file to make.
    unit : str
        The unit of the numbers.

    Raises
    ------
    PoseCacheError
        If there is no such folder or it has a skeleton for no frame.
    """
    if not folder.is_dir():
        raise PoseCacheError(f"{folder}: no such folder of JSON skeletons")
    problems: list[str] = []
    used: set[Path] = set()

    def read() -> Iterator[TrackletSkeletons]:
        for sequence in sequences:
            points = np.full((len(sequence.frames), H36M17.size, 3), np.nan, np.float32)
            for row, frame in enumerate(sequence.frames):
                path = next((path for path in _json_paths(folder, frame) if path.is_file()), None)
                if path is None:
                    problems.append(f"{frame}: no JSON file for it in {folder}")
                    continue
                used.add(path)
                points[row], problem = _json_points(path)
                problems.extend([f"{frame}: {problem}"] if problem else [])
            yield _tracklet(sequence, points)

    def unused() -> list[str]:
        return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.json") if path not in used)

    return _write(
        read(), sequences, out, "json", {"source": "JSON files", "unit": unit}, folder, problems, unused, unit
    )


def _kinect_keys(name: str) -> list[str]:
    """Return the keys that a tracklet's array may have, the most exact first."""
    names = [name, name.partition("/")[2]] if name.startswith(("train/", "test/")) else [name]
    return list(dict.fromkeys(key for one in names for key in (one, one.replace("/", "_"))))


def _kinect_points(array: np.ndarray, frames: int, mirrored: bool) -> tuple[np.ndarray | None, str | None]:
    """Turn Kinect's axes (x right, y up, z forward) and joints into ours."""
    if array.shape != (frames, KINECT20.size, 3):
        return None, f"its array has the shape {array.shape}, expected ({frames}, {KINECT20.size}, 3)"
    points = array.astype(np.float32) * np.array([1, -1, 1], np.float32)
    return kinect20_to_h36m(points[:, KINECT20.mirror_order] if mirrored else points), None


def _json_paths(folder: Path, frame: str) -> Iterator[Path]:
    parts = PurePosixPath(frame).with_suffix(".json").parts
    return (folder.joinpath(*parts[first:]) for first in range(len(parts)))


def _json_points(path: Path) -> tuple[np.ndarray, str | None]:
    """Return joints (17, 3), not a number where the file has none, and what is wrong with it."""
    nothing = np.full((H36M17.size, 3), np.nan, np.float32)
    try:
        content = json.loads(path.read_text())
        points = np.array(content["keypoints"], np.float32)
    except (OSError, ValueError, KeyError, TypeError) as error:
        return nothing, f'{path} does not hold {{"keypoints": [[x, y, z], ...]}}: {type(error).__name__} {error}'
    if points.shape != nothing.shape:
        return nothing, f"{path} has keypoints of the shape {points.shape}, expected {nothing.shape}"
    return points, None if np.isfinite(points).all() else f"{path} has keypoints that are not finite"


def _tracklet(sequence: FrameSequence, points: np.ndarray | None) -> TrackletSkeletons:
    """Make a tracklet of joints (T, 17, 3); frames whose joints are not finite are not valid, all of them for None."""
    count = len(sequence.frames)
    joints = np.full((count, H36M17.size, 3), np.nan, np.float32) if points is None else points
    valid = np.isfinite(joints).all(axis=(1, 2))
    keypoints = np.zeros((count, 0, 3), np.float32)
    return TrackletSkeletons(sequence.name, sequence.frames, np.nan_to_num(joints), keypoints, valid)


def _write(
    tracklets: Iterator[TrackletSkeletons],
    sequences: Sequence[FrameSequence],
    out: Path,
    estimator: str,
    details: Mapping[str, object],
    source: Path,
    problems: list[str],
    unused: Callable[[], list[str]],
    unit: str = "m",
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

    write_store(out, counted(), Provenance(estimator, H36M17.name, unit, details, fingerprint(sequences)))
    frames = sum(len(one.frames) for one in sequences)
    return ImportReport(out, len(sequences), frames, valid, tuple(problems), tuple(unused()))
