"""Folders of JSON files, one per frame, {"keypoints": [[x, y, z] x 17]}: how the method's authors keep skeletons.

Such a folder mirrors the folders of the images: the frame `bbox_train/0001/F1.jpg` is at `bbox_train/0001/F1.json` in it,
or, where the first folders are left out, at `0001/F1.json` or `F1.json`. A data set has more than a million of these
files: folders are listed once, and what reads and writes files takes many at a time, to be run in other processes.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

import numpy as np

from pose_cache.errors import PoseCacheError
from pose_cache.files import parse_json
from pose_cache.joints import H36M17

FOLDER_NAME: Final = "skeleton_3d"  # or longer, as skeleton_3d_hmr2.0
_SUFFIX: Final = ".json"


@dataclass(frozen=True)
class JsonFolder:
    """A folder of JSON skeletons.

    Attributes
    ----------
    path : Path
        The folder.
    under : str
        The folder of the data set that it belongs to, relative to the root: only frames in there are looked for. Empty for
        the whole data set.
    """

    path: Path
    under: str = ""


def find_json_folders(root: Path, frames: Iterable[str]) -> list[JsonFolder]:
    """Find the folders of JSON skeletons that are beside the images: those whose names start with "skeleton_3d".

    Parameters
    ----------
    root : Path
        The data set's folder.
    frames : iterable of str
        A frame of each tracklet, relative to the root. Looked at are the folders above those that hold the frames.

    Raises
    ------
    PoseCacheError
        If there is none, or more than one for the same frames.
    """
    above = {""}
    for frame in frames:
        parts = PurePosixPath(frame).parts[:-2]
        above.update("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    found: list[JsonFolder] = []
    for under in sorted(above):
        if (root / under).is_dir():
            with os.scandir(root / under) as entries:
                names = sorted(e.name for e in entries if e.name.startswith(FOLDER_NAME) and e.is_dir())
            found += [JsonFolder(root / under / name, under) for name in names]
    if not found:
        raise PoseCacheError(
            f"{root}: no folder {FOLDER_NAME}* of JSON skeletons in it, nor in {len(above) - 1} folders above its frames: "
            "give the folder's path"
        )
    for one in found:
        rivals = [other for other in found if other is not one and _is_in(one.under, other.under)]
        if rivals:
            raise PoseCacheError(f"both {rivals[0].path} and {one.path} may hold the skeletons: give the path of one")
    return found


def _is_in(folder: str, other: str) -> bool:
    return not other or folder == other or folder.startswith(other + "/")


class JsonTree:
    """All the JSON files of some folders, listed once, and which frame each belongs to.

    Every frame is claimed first; only then it is known which files two frames lay claim to. Memory: about 200 bytes a file.

    Raises
    ------
    PoseCacheError
        If a folder is missing or cannot be listed.
    """

    def __init__(self, folders: Sequence[JsonFolder]) -> None:
        self._listings = [_Listing(folder) for folder in folders]

    def claim(self, frame: str) -> None:
        """Say that a frame is one of the data set's."""
        for listing in self._listings:
            listing.claim(frame)

    def find(self, frame: str) -> tuple[str | None, str | None]:
        """Return the path of a claimed frame's file, or None and the reason why it has none."""
        reason = "it is in none of the folders that have JSON skeletons"
        for listing in self._listings:
            path, problem = listing.find(frame)
            if path is not None:
                return path, None
            reason = problem or reason
        return None, reason

    def unused(self) -> Iterator[str]:
        """List the files that no frame claimed; of folders in which no claimed frame could be, the number of files."""
        for listing in self._listings:
            yield from listing.unused()


class _Listing:
    """One folder: for each folder in it the names of its files, without the suffix, and the frame that claimed each."""

    def __init__(self, folder: JsonFolder) -> None:
        if not folder.path.is_dir():
            raise PoseCacheError(f"{folder.path}: no such folder of JSON skeletons")
        self._folder, self._skip = folder, len(PurePosixPath(folder.under).parts)
        self._files: dict[str, dict[str, str | None]] = {}
        for place, names in _walk(str(folder.path)):
            stems: dict[str, str | None] = {n.removesuffix(_SUFFIX): None for n in names if n.endswith(_SUFFIX)}
            if stems:
                relative = os.path.relpath(place, folder.path)
                self._files["" if relative == "." else relative.replace(os.sep, "/")] = stems
        self._top = {place.partition("/")[0] for place in self._files if place}
        self._places: dict[str, str] = {}
        self._contested: dict[tuple[str, str], str] = {}

    def claim(self, frame: str) -> None:
        if not _is_in(frame, self._folder.under):
            return
        place, stem = self._locate(frame)
        stems = self._files.get(place, {})
        if stem in stems:
            owner = stems[stem]
            if owner is None:
                stems[stem] = frame
            elif owner != frame:
                self._contested[place, stem] = frame

    def find(self, frame: str) -> tuple[str | None, str | None]:
        if not _is_in(frame, self._folder.under):
            return None, None
        place, stem = self._locate(frame)
        path = "/".join(filter(None, (str(self._folder.path), place, stem + _SUFFIX)))
        owner = self._files.get(place, {}).get(stem)
        if owner is None:
            return None, f"no JSON file for it, expected {path}"
        if (place, stem) in self._contested:
            other = owner if owner != frame else self._contested[place, stem]
            return None, f"{path} could be its skeleton as well as that of {other}: the files need the images' folders"
        return path, None

    def unused(self) -> Iterator[str]:
        looked_at = set(self._places.values())
        for place in sorted(self._files):
            stems = self._files[place]
            prefix = f"{place}/" if place else ""
            if place in looked_at:
                yield from (f"{prefix}{stem}{_SUFFIX}" for stem in sorted(stems) if stems[stem] is None)
            else:
                yield f"{prefix or './'}: {len(stems)} files, in a folder of none of the tracklets"

    def _locate(self, frame: str) -> tuple[str, str]:
        """Return the folder that a frame's file would be in, and its name without the suffix."""
        folder, _, name = frame.rpartition("/")
        if folder not in self._places:
            parts = PurePosixPath(folder).parts[self._skip :]
            # The first of its folders that is there at the top settles how many are left out: no guessing further down.
            nowhere = len(parts) if "" in self._files else 0
            first = next((index for index, part in enumerate(parts) if part in self._top), nowhere)
            self._places[folder] = "/".join(parts[first:])
        return self._places[folder], _stem(name)


def _walk(top: str) -> Iterator[tuple[str, list[str]]]:
    """Yield all folders below one and the files in them; a link that leads back to where it is passes for no folder."""
    above = {top: frozenset({os.path.realpath(top)})}
    for place, folders, names in os.walk(top, onerror=_refuse, followlinks=True):
        yield place, names
        came_from, inside = above.pop(place), []
        for name in folders:
            path = f"{place}/{name}"
            target = os.path.realpath(path)
            if target not in came_from:
                inside.append(name)
                above[path] = came_from | {target}
        folders[:] = inside


def _stem(name: str) -> str:
    return name.rpartition(".")[0] or name


def _refuse(error: OSError) -> None:
    raise PoseCacheError(f"{error.filename}: cannot be listed ({error.strerror})") from error


def read_points(paths: Sequence[str | None]) -> tuple[np.ndarray, list[str | None]]:
    """Read the joints of some frames.

    Parameters
    ----------
    paths : sequence of (str or None)
        The file of each of T frames, or None.

    Returns
    -------
    points : np.ndarray
        (T, 17, 3) float32, not a number where there is no file or it does not hold joints.
    problems : list of (str or None)
        What is wrong with each file.
    """
    points = np.full((len(paths), H36M17.size, 3), np.nan, np.float32)
    problems: list[str | None] = [None] * len(paths)
    for row, path in enumerate(paths):
        if path is not None:
            problems[row] = _read_into(points[row], path)
    return points, problems


def _read_into(target: np.ndarray, path: str) -> str | None:
    try:
        with open(path, "rb") as file:  # noqa: PTH123  twice as fast as through Path
            content = parse_json(file.read())
        points = np.array(content["keypoints"], np.float32)
    except (OSError, ValueError, LookupError, TypeError, OverflowError) as error:
        return f'{path} does not hold {{"keypoints": [[x, y, z], ...]}}: {type(error).__name__} {error}'
    if points.shape != target.shape:
        return f"{path} has keypoints of the shape {points.shape}, expected {target.shape}"
    if not np.isfinite(points).all():
        return f"{path} has keypoints that are not finite"
    target[:] = points
    return None


def json_path(frame: str) -> str:
    """Return a frame's path in a folder that leaves none of the folders out.

    Raises
    ------
    PoseCacheError
        If the frame's path leads out of the folder.
    """
    folder, slash, name = frame.rpartition("/")
    if frame.startswith("/") or not name or ".." in frame.split("/"):
        raise PoseCacheError(f"the frame {frame!r} is not a path relative to the data set's root: cannot mirror it")
    return folder + slash + _stem(name) + _SUFFIX


def write_points(folder: str, files: Sequence[str], points: np.ndarray, keep: bool) -> tuple[int, int]:
    """Write files of joints; each appears whole or not at all.

    Parameters
    ----------
    folder : str
        The folder of the tree.
    files : sequence of str
        T paths in it.
    points : np.ndarray
        (T, 17, 3) float32. The files hold them exactly.
    keep : bool
        Leave files that are there already.

    Returns
    -------
    tuple of int
        How many were written, and how many left.
    """
    there: dict[str, set[str]] = {}
    kept = 0
    try:
        for file, joints in zip(files, points, strict=True):
            place, name = os.path.split(os.path.join(folder, file))  # noqa: PTH118
            if place not in there:
                os.makedirs(place, exist_ok=True)  # noqa: PTH103
                there[place] = _whole_files(place) if keep else set()
            if name in there[place]:
                kept += 1
                continue
            # A flush for each of a million files would take hours: what a crash leaves empty is written again.
            path = f"{place}/{name}"
            with open(path + ".partial", "w") as stream:  # noqa: PTH123
                stream.write(json.dumps({"keypoints": joints.tolist()}))
            os.replace(path + ".partial", path)  # noqa: PTH105
    except OSError as error:
        raise PoseCacheError(f"cannot write {error.filename or folder}: {error.strerror}. Is the disk full?") from error
    return len(files) - kept, kept


def _whole_files(folder: str) -> set[str]:
    with os.scandir(folder) as entries:  # a crash of the machine can leave files that are empty
        return {entry.name for entry in entries if entry.name.endswith(_SUFFIX) and entry.stat().st_size}
