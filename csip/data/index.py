"""The index cache of a data set: listing a million frames is slow, so the list is kept beside them.

A reader looks at files and folders through a `Tree`, which notes what it looked at: a file by the digest of its content, a
folder by the times of its last change. Those are looked at again before a kept index is used, so that one whose tree has
changed is never trusted; no frame is opened or asked for on its own. A folder that was changed within the last seconds is
noted by the names in it, since clocks of file systems are coarse.

The file is ``.csip-index/READER-KEY.npz`` in the data set's folder; it can be deleted at any time. Where it cannot be
written, everything works without it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from csip.data.dataset import Dataset, Tracklet, is_image, is_other_picture
from csip.data.names import in_natural_order, is_hidden
from csip.errors import CsipError
from csip.files import atomic

FORMAT = 4
FOLDER = ".csip-index"
_COARSE_NS = 2_000_000_000
_PARTS = ("train", "query", "gallery")


class Tree:
    """Files and folders below a root, and a note of all that was looked at.

    Parameters
    ----------
    root
        The data set's folder. Paths are relative to it, with ``/``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.notes: dict[str, str] = {}
        self.unread: list[str] = []
        self.links = False  # whether a folder that was listed has links to folders in it
        self._listed: dict[str, tuple[list[str], list[str]]] = {}

    def read(self, path: str, expected: str) -> bytes:
        """Return a file's content.

        Raises
        ------
        CsipError
            There is no such file, or it cannot be read; `expected` says what it should be.
        """
        try:
            content = (self.root / path).read_bytes()
        except OSError as error:
            reason = "missing" if isinstance(error, FileNotFoundError) else error.strerror
            raise CsipError(f"{self.root / path}: {reason}; expected {expected}") from error
        self.notes[path] = "file " + hashlib.sha256(content).hexdigest()
        return content

    def folders(self, path: str = "") -> list[str]:
        """Return the names of the folders in a folder, sorted, without hidden ones; none where there is no such folder."""
        return self._list(path)[0]

    def files(self, path: str = "") -> list[str]:
        """Return the names of the files in a folder, sorted, without hidden ones; none where there is no such folder."""
        return self._list(path)[1]

    def frames(self, path: str) -> list[str]:
        """Return the names of the pictures in a folder in natural order: 1, 2, 10.

        Those of a format that cannot be read are put on the list `unread`, for `indexed` to refuse.
        """
        files = self.files(path)
        self.unread += [f"{path}/{name}" for name in files if is_other_picture(name)]
        return in_natural_order(filter(is_image, files))

    def has_file(self, path: str) -> bool:
        """Whether there is such a file."""
        folder, _, name = path.rpartition("/")
        return name in self.files(folder)

    def _list(self, path: str) -> tuple[list[str], list[str]]:
        if path not in self._listed:
            # The note first: what is added while the names are read makes it stale.
            self.notes[path] = _folder_times(self.root / path)
            folders, files, links = _names(self.root / path)
            self._listed[path], self.links = (folders, files), self.links or links
            if not self.notes[path]:
                self.notes[path] = _digest_names(folders, files)
        return self._listed[path]

    def changed(self, notes: dict[str, str]) -> bool:
        """Whether anything that another tree noted is different now."""
        return any(self._now(path, note) != note for path, note in notes.items())

    def _now(self, path: str, note: str) -> str:
        kind = note.partition(" ")[0]
        if kind == "names":
            return _digest_names(*_names(self.root / path)[:2])
        if kind == "times":
            return _folder_times(self.root / path)
        try:
            return "file " + hashlib.sha256((self.root / path).read_bytes()).hexdigest()
        except OSError:
            return ""


def indexed(root: Path, reader: str, name: str, options: dict[str, object], read: Callable[[Tree], Dataset]) -> Dataset:
    """Return what a reader says of a data set, from the kept index where nothing has changed since.

    Parameters
    ----------
    root
        The data set's folder.
    reader
        The reader's name.
    name
        The name of the data set that is returned.
    options
        All else that the result is a function of.
    read
        The reader; it looks at the disk through the tree alone.

    Raises
    ------
    CsipError
        What the reader says is wrong.
    """
    key = hashlib.sha256(json.dumps([FORMAT, reader, options], sort_keys=True).encode()).hexdigest()[:12]
    path = root / FOLDER / f"{reader}-{key}.npz"
    kept = _load(path, root, name)
    if kept is not None:
        return kept
    # Before the tree is looked at: making the folder changes the root.
    writable = _make_folder(path.parent)
    tree = Tree(root)
    try:
        dataset = read(tree)
        _refuse_unread(tree)
    except CsipError:
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # where it is empty: what is no data set is left as it was
        _refuse_unread(tree)
        raise
    if writable:
        _save(path, dataset, tree.notes)
    return dataset


def _refuse_unread(tree: Tree) -> None:
    if not tree.unread:
        return
    kinds = Counter(Path(name).suffix.lower() for name in tree.unread)
    listed = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
    raise CsipError(
        f"{tree.root}: {len(tree.unread):,} pictures are of formats that cannot be read ({listed}), e.g. {tree.unread[0]}; "
        "convert them to JPEG or PNG, or move them out of the folders of frames"
    )


def _load(path: Path, root: Path, name: str) -> Dataset | None:
    try:
        with np.load(path) as arrays:
            notes = dict(zip(_strings(arrays["paths"]), _strings(arrays["notes"]), strict=True))
            if Tree(root).changed(notes):
                return None
            frames = _strings(arrays["frames"])
            ends = np.cumsum(arrays["lengths"]).tolist()
            columns = (_strings(arrays["names"]), arrays["pids"].tolist(), arrays["cameras"].tolist())
            tracklets = [
                Tracklet(title, pid, camera, tuple(frames[start:end]))
                for title, pid, camera, start, end in zip(*columns, [0, *ends[:-1]], ends, strict=True)
            ]
            parts = [tuple(tracklets[row] for row in arrays[part].tolist()) for part in _PARTS]
    except Exception:  # NumPy and zipfile raise whatever they stumble over
        # Missing, damaged, or of another format: it is made anew.
        return None
    return Dataset(name, root, *parts)


def _save(path: Path, dataset: Dataset, notes: dict[str, str]) -> None:
    parts = [getattr(dataset, part) for part in _PARTS]
    unique = list({id(tracklet): tracklet for part in parts for tracklet in part}.values())
    row = {id(tracklet): i for i, tracklet in enumerate(unique)}
    arrays = {
        "paths": _bytes(notes),
        "notes": _bytes(notes.values()),
        "names": _bytes(t.name for t in unique),
        "pids": np.array([t.pid for t in unique], dtype=np.int64),
        "cameras": np.array([t.camera for t in unique], dtype=np.int64),
        "lengths": np.array([len(t.frames) for t in unique], dtype=np.int64),
        "frames": _bytes(frame for t in unique for frame in t.frames),
    }
    for part, tracklets in zip(_PARTS, parts, strict=True):
        arrays[part] = np.array([row[id(t)] for t in tracklets], dtype=np.int64)
    # Where it cannot be written, everything works without it; several processes may write it at once.
    with contextlib.suppress(OSError), atomic(path, path.with_name(f".{path.stem}.{os.getpid()}.tmp.npz")) as temporary:
        np.savez(temporary, allow_pickle=False, **arrays)


def _make_folder(path: Path) -> bool:
    try:
        path.mkdir(exist_ok=True)
    except OSError:
        return False
    return True


def _names(path: Path) -> tuple[list[str], list[str], bool]:
    """Return the folders and the files in a folder, and whether one of the former is a link."""
    folders: list[str] = []
    files: list[str] = []
    links = False
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if not is_hidden(entry.name):
                    is_folder = _is_folder(entry)
                    (folders if is_folder else files).append(entry.name)
                    links |= is_folder and entry.is_symlink()
    except (FileNotFoundError, NotADirectoryError):
        pass
    return sorted(folders), sorted(files), links


def _is_folder(entry: os.DirEntry[str]) -> bool:
    # The kind of an entry comes with its name. Only where a link leads must be asked for, and a linked frame is no folder.
    if entry.is_symlink() and is_image(entry.name):
        return False
    return entry.is_dir()


def _folder_times(path: Path) -> str:
    """Return a note of a folder's last change; empty where there is none, or where it is too recent to tell changes apart."""
    try:
        status = path.stat()
    except OSError:
        return ""
    newest = max(status.st_mtime_ns, status.st_ctime_ns)
    return "" if time.time_ns() - newest < _COARSE_NS else f"times {status.st_mtime_ns} {status.st_ctime_ns}"


def _digest_names(folders: list[str], files: list[str]) -> str:
    return "names " + hashlib.sha256(json.dumps([folders, files]).encode()).hexdigest()


def _bytes(strings: Iterable[str]) -> np.ndarray:
    return np.frombuffer("\0".join(strings).encode(errors="surrogateescape"), dtype=np.uint8)


def _strings(array: np.ndarray) -> list[str]:
    text = array.tobytes().decode(errors="surrogateescape")
    return text.split("\0") if text else []
