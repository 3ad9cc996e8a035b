"""Videos in a folder, and the names of their cameras and tracklets.

    VIDEOS/door.mp4                camera door
    VIDEOS/hall/monday.mp4         camera hall
    VIDEOS/site/hall/monday.mp4    camera site-hall
    VIDEOS/MOT17-02/img1/*.jpg     camera MOT17-02; any folder of pictures is a video

A regular expression, searched in the path below VIDEOS, says otherwise: its group ``camera``, else its first group, else all
that it matches. The tracklets of hall/monday.mp4 are hall/monday-0001 and so on.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from csip.data.dataset import is_image
from csip.errors import CsipError

VIDEOS: Final = frozenset({
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp",
    ".ogv", ".h264", ".264", ".h265", ".265", ".hevc", ".mjpeg", ".mjpg", ".dav",
})  # fmt: skip
_PICTURES: Final = "img1"  # MOTChallenge's folder of a sequence's pictures; the sequence has the name


@dataclass(frozen=True)
class VideoFile:
    """A video to ingest.

    Attributes
    ----------
    path
        The file, or the folder of pictures.
    name
        Path below the folder of videos, with /; of a MOTChallenge sequence without its img1.
    camera
        Name of the camera, fit for a folder.
    stem
        What the names of its tracklets begin with below the camera; unique there.
    """

    path: Path
    name: str
    camera: str
    stem: str


def find_videos(root: Path, camera: str | None = None) -> list[VideoFile]:
    """List the videos below a folder in the order of their names; no file is opened.

    Parameters
    ----------
    root : Path
        A folder, which is searched to its depth, or one video.
    camera : str, optional
        Regular expression that finds the camera in a video's path below ``root``.

    Raises
    ------
    CsipError
        There is no such folder, no video is in it, the expression is none, or it does not match.
    """
    if not root.exists():
        raise CsipError(f"{root}: no such folder of videos")
    pattern = _pattern(camera)
    if root.is_file() or _is_sequence(root):
        folder = root.parent if root.is_file() or root.name != _PICTURES else root.parent.parent
        found = [root / _PICTURES if (root / _PICTURES).is_dir() else root]
    else:
        folder, found = root, sorted(_search(root))
    if not found:
        raise CsipError(
            f"{root}: no videos in it; looked for {', '.join(sorted(VIDEOS))} and folders of pictures at any depth"
        )
    taken: set[tuple[str, str]] = set()
    videos = []
    for path in found:
        place = path.parent if path.name == _PICTURES and path.is_dir() else path
        name = place.relative_to(folder).as_posix()
        where = PurePosixPath(name) if path.is_dir() else PurePosixPath(name).with_suffix("")
        title = _camera(name, where, pattern)
        parts = where.parts if pattern else where.parts[-1:]
        stem = _plain("-".join(parts))
        unique, count = stem, 1
        while (title, unique) in taken:
            count += 1
            unique = f"{stem}~{count}"
        taken.add((title, unique))
        videos.append(VideoFile(path, name, title, unique))
    return videos


def _search(root: Path) -> list[Path]:
    found = []
    for folder, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        visible = [name for name in files if not name.startswith(".")]
        here = [Path(folder) / name for name in visible if Path(name).suffix.lower() in VIDEOS]
        found += here
        if not here and any(is_image(name) for name in visible):
            found.append(Path(folder))
    return found


def _is_sequence(root: Path) -> bool:
    """Whether a folder is one video: pictures without a video beside them, or a MOTChallenge sequence."""
    if (root / _PICTURES).is_dir():
        return True
    names = [entry.name for entry in root.iterdir()]
    return any(map(is_image, names)) and not any(Path(name).suffix.lower() in VIDEOS for name in names)


def _pattern(camera: str | None) -> re.Pattern[str] | None:
    if camera is None:
        return None
    try:
        return re.compile(camera)
    except re.error as error:
        raise CsipError(f"--camera {camera}: no regular expression ({error}); e.g. 'cam([0-9]+)'") from error


def _camera(name: str, where: PurePosixPath, pattern: re.Pattern[str] | None) -> str:
    if pattern is None:
        return _plain("-".join(where.parent.parts) or where.name)
    match = pattern.search(name)
    if match is None:
        raise CsipError(f"--camera {pattern.pattern}: does not match {name}; it has to find the camera in every video")
    group: str | int = "camera" if "camera" in pattern.groupindex else min(pattern.groups, 1)
    found = match[group]
    if not found:
        raise CsipError(f"--camera {pattern.pattern}: finds no camera in {name}, but an empty name")
    return _plain(found)


def _plain(text: str) -> str:
    """Make a name fit for a folder on any system."""
    return re.sub(r"[^\w.-]+", "_", text).strip(".") or "_"
