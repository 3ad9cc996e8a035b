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
import unicodedata
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from csip.data.dataset import is_image, is_other_picture
from csip.data.names import is_hidden
from csip.errors import CsipError
from csip.monitor import Monitor

VIDEOS: Final = frozenset({
    ".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv", ".3gp",
    ".ogv", ".h264", ".264", ".h265", ".265", ".hevc", ".mjpeg", ".mjpg", ".dav", ".asf", ".divx", ".f4v", ".3g2", ".ivf",
    ".m2v", ".mpe", ".mxf", ".qt", ".vob", ".y4m", ".amv", ".dv", ".insv", ".lrv", ".mod", ".mp4v", ".mpv", ".nut", ".obu",
    ".ogg", ".ogm", ".rm", ".rmvb", ".tod", ".trp", ".wtv",
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

    def tracklet(self, number: int) -> str:
        """Name the tracklet of a track: ``monday-0001``, or ``monday-neg0001`` for -1."""
        return f"{self.stem}-{number:04d}" if number >= 0 else f"{self.stem}-neg{-number:04d}"

    def owns(self, folder: str) -> bool:
        """Whether a folder below the camera's is the name of one of this video's tracklets."""
        return re.fullmatch(rf"{re.escape(self.stem)}-(neg)?\d{{4,}}", folder) is not None


def find_videos(root: Path, camera: str | None = None, monitor: Monitor | None = None) -> list[VideoFile]:
    """List the videos below a folder in the order of their names; no file is opened.

    What links lead to more than once is listed once; links may lead in a circle. Hidden folders are passed over, and those that
    systems make (``@eaDir``, ``#recycle``). Cameras whose names would become one when
    they are made fit for a folder, as those of a/b and a-b, are told apart: a-b and a-b~2.

    Parameters
    ----------
    root : Path
        A folder, which is searched to its depth, or one video.
    camera : str, optional
        Regular expression that finds the camera in a video's path below ``root``.
    monitor : Monitor, optional
        Hears of links and of cameras that were told apart.

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
        folder = root
        found, repeated = _search(root)
        if repeated and monitor is not None:
            monitor.say(
                f"{root}: {repeated} links lead to folders or videos that are listed already, and are not followed"
            )
    if not found:
        raise CsipError(
            f"{root}: no videos in it; looked for {', '.join(sorted(VIDEOS))} and folders of pictures at any depth"
        )
    places = [(path, _place(path).relative_to(folder)) for path in sorted(found)]
    keys = {path: _camera(name.as_posix(), _where(path, name), pattern) for path, name in places}
    titles = _titles(set(keys.values()), monitor)
    taken: set[tuple[str, str]] = set()
    videos = []
    for path, name in places:
        where, title = _where(path, name), titles[keys[path]]
        stem = _plain("-".join(where.parts if pattern else where.parts[-1:]))
        unique, count = stem, 1
        while (title, unique) in taken:
            count += 1
            unique = f"{stem}~{count}"
        taken.add((title, unique))
        videos.append(VideoFile(path, _text(name.as_posix()), title, unique))
    return videos


def _text(name: str) -> str:
    """Make a name that is no Unicode fit for tables and JSON."""
    return name.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _place(path: Path) -> Path:
    """Return what has the video's name: a MOTChallenge sequence instead of its folder of pictures."""
    return path.parent if path.name == _PICTURES and path.is_dir() else path


def _where(path: Path, name: Path) -> PurePosixPath:
    plain = PurePosixPath(name.as_posix())
    return plain if path.is_dir() else plain.with_suffix("")


def _titles(cameras: set[tuple[str, ...]], monitor: Monitor | None) -> dict[tuple[str, ...], str]:
    """Name cameras, each its own way; where two would have one name, whose folder is called so keeps it."""
    titles: dict[tuple[str, ...], str] = {}
    by_name: dict[str, list[tuple[str, ...]]] = {}
    for parts in sorted(cameras):
        by_name.setdefault(_plain("-".join(parts)), []).append(parts)
    for name, alike in by_name.items():
        alike.sort(key=lambda parts: (parts != (name,), len(parts), parts))
        for count, parts in enumerate(alike, start=1):
            titles[parts] = name if count == 1 else f"{name}~{count}"
        if len(alike) > 1 and monitor is not None:
            told = ", ".join(f"{'/'.join(parts)} is {titles[parts]}" for parts in alike)
            monitor.say(f"cameras whose names are alike: {told}")
    return titles


def _search(root: Path) -> tuple[list[Path], int]:
    """Return the videos below a folder, and how many links were not followed as they lead to what is listed."""
    found: list[Path] = []
    links: list[Path] = []
    seen: set[tuple[int, int]] = set()
    folders, repeated = [root], 0
    while folders or links:
        # What is reached without links has its own name, wherever links to it are.
        path = folders.pop() if folders else links.pop(0)
        try:
            status = path.stat()
        except OSError:  # a link that leads nowhere, or in a circle of its own
            found += [path] if path.suffix.lower() in VIDEOS else []
            continue
        key = (status.st_dev, status.st_ino)
        if key in seen:
            repeated += 1
            continue
        seen.add(key)
        if not path.is_dir():
            found.append(path)
            continue
        names = sorted(name for name in os.listdir(path) if not is_hidden(name))  # noqa: PTH208
        here = [path / name for name in names if Path(name).suffix.lower() in VIDEOS and not (path / name).is_dir()]
        if not here and any(map(_is_picture, names)):
            found.append(path)
        for entry in (path / name for name in names):
            if entry.is_symlink() and (entry.is_dir() or entry in here):
                links.append(entry)
            elif entry.is_dir():
                folders.append(entry)
            elif entry in here:
                found.append(entry)
                seen.add((entry.stat().st_dev, entry.stat().st_ino))
    return found, repeated


def _is_sequence(root: Path) -> bool:
    """Whether a folder is one video: pictures without a video beside them, or a MOTChallenge sequence."""
    if (root / _PICTURES).is_dir():
        return True
    names = [entry.name for entry in root.iterdir()]
    return any(map(_is_picture, names)) and not any(Path(name).suffix.lower() in VIDEOS for name in names)


def _is_picture(name: str) -> bool:
    # What cannot be read is not passed over here: who reads the folder says so.
    return is_image(name) or is_other_picture(name)


def _pattern(camera: str | None) -> re.Pattern[str] | None:
    if camera is None:
        return None
    try:
        return re.compile(camera)
    except re.error as error:
        raise CsipError(
            f"{camera}: no regular expression for the camera ({error}); e.g. 'cam([0-9]+)'", parameter="camera"
        ) from error


def _camera(name: str, where: PurePosixPath, pattern: re.Pattern[str] | None) -> tuple[str, ...]:
    """Return what a camera is known by: its folders, or what the expression finds."""
    if pattern is None:
        return tuple(map(_composed, where.parent.parts or (where.name,)))
    match = pattern.search(name)
    if match is None:
        raise CsipError(
            f"{pattern.pattern}: does not match {name}; it has to find the camera in every video", parameter="camera"
        )
    group: str | int = "camera" if "camera" in pattern.groupindex else min(pattern.groups, 1)
    found = match[group]
    if not found:
        raise CsipError(f"{pattern.pattern}: finds no camera in {name}, but an empty name", parameter="camera")
    return (_composed(found),)


def _composed(text: str) -> str:
    """Write accents one way: they come as one letter or as two, depending on the system a name was made on."""
    return unicodedata.normalize("NFC", text)


def _plain(text: str) -> str:
    """Make a name fit for a folder on any system."""
    return re.sub(r"[^\w.-]+", "_", _composed(text)).strip(".") or "_"
