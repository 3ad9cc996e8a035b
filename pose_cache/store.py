"""The skeleton cache: one HDF5 file per data set.

Arrays are flat over all N frames, the frames of a tracklet next to each other, so that a clip is one slice.
All arrays are stored contiguously, uncompressed and little-endian, and are read by mapping the file into memory:
a clip costs microseconds, and any number of processes may read at once.

    /joints        (N, J, 3) float32   camera axes (x right, y down, z forward), in `unit`, not root-centred
    /keypoints2d   (N, K, 3) float32   x, y in crop pixels, score
    /valid         (N,)      bool      False where no pose was found or the frame could not be read; joints are zeros there
    /frames        (N,)      string    frame path relative to the dataset root (fixed length, UTF-8)
    /sources       (N,)      compound  the frame's file: bytes (int64), crc (uint32), kind (uint8), see `pose_cache.sources`
    /tracklets     (M,)      compound  name (string), start (int64), length (int64)
    /checksums     (M,)      uint32    CRC-32 of each tracklet: its name, frames, joints, keypoints2d, valid and sources

Attributes of the file: `format` ("csip-skeletons"), `version` (1), `joint_set`, `unit`, `estimator`, `dataset`
(fingerprint of the frames' names), `details` (JSON: configs, digests of weights), `software` (JSON: versions), `created`
(ISO 8601, UTC: no frame was read before). Apart from `software` and `created` the same skeletons give the same content on
every machine.

A file appears whole or not at all: it is written beside its place as NAME.*.partial, flushed to the disk, and renamed.
"""

import datetime
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import h5py
import numpy as np

from pose_cache.errors import PoseCacheError
from pose_cache.hdf5 import (
    Layout,
    Provenance,
    check_table,
    create_file,
    map_dataset,
    open_file,
    read_created,
    read_provenance,
    read_sources,
    tracklet_checksum,
    tracklet_table,
)
from pose_cache.joints import JointSet, joint_set
from pose_cache.merge import merge_stores
from pose_cache.sources import SOURCE, unknown_sources

__all__ = ["Provenance", "SkeletonStore", "TrackletSkeletons", "merge_stores", "verify_store", "write_store"]

# Frames held in memory while writing: about 27 MB with 17 joints.
_BLOCK: Final = 65536


@dataclass(frozen=True)
class TrackletSkeletons:
    """The skeletons of one tracklet of T frames.

    Attributes
    ----------
    name : str
        The tracklet's name, unique in its file.
    frames : tuple of str
        T frame paths relative to the dataset root.
    joints : np.ndarray
        (T, J, 3) float32, camera axes, not root-centred; zeros where not valid.
    keypoints2d : np.ndarray
        (T, K, 3) float32, x and y in crop pixels and the score.
    valid : np.ndarray
        (T,) bool.
    sources : np.ndarray or None
        (T,) `pose_cache.sources.SOURCE`, what the frames' files were; None where skeletons do not come from images.
    """

    name: str
    frames: tuple[str, ...]
    joints: np.ndarray
    keypoints2d: np.ndarray
    valid: np.ndarray
    sources: np.ndarray | None = None


class SkeletonStore:
    """A skeleton cache open for reading.

    Cheap to open: the frames' names stay on the disk until they are asked for. Safe to hand to other processes,
    forked or spawned (it pickles as its path).

    Parameters
    ----------
    path : Path
        The file.

    Raises
    ------
    PoseCacheError
        If the file is missing, damaged, or of another format version.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        with open_file(self.path) as file:
            self.provenance = read_provenance(file)
            self.created = read_created(file)
            self.joint_set: JointSet = joint_set(self.provenance.joint_set)
            table = file["tracklets"][()]
            self._valid: np.ndarray = file["valid"][()]
            self._checksums: np.ndarray = file["checksums"][()]
            self._joints = map_dataset(self.path, file["joints"])
            self._keypoints2d = map_dataset(self.path, file["keypoints2d"])
            self._frames = map_dataset(self.path, file["frames"])
            self._sources = map_dataset(self.path, file["sources"]) if "sources" in file else None
        mapped = (self._joints, self._keypoints2d, self._frames, *([] if self._sources is None else [self._sources]))
        if any(len(array) != len(self._valid) for array in mapped) or self._joints.shape[1] != self.joint_set.size:
            raise PoseCacheError(
                f"{self.path}: its arrays differ in length, or its joints are not those of {self.joint_set.name}: "
                f"{', '.join(str(array.shape) for array in (self._valid, *mapped))}; make it again"
            )
        check_table(self.path, table, len(self._valid), len(self._checksums))
        self.names: tuple[str, ...] = tuple(self._decoded(name, "/tracklets") for name in table["name"].tolist())
        spans = np.stack([table["start"], table["start"] + table["length"]], axis=1).tolist()
        self._slices = {name: slice(*span) for name, span in zip(self.names, spans, strict=True)}
        if len(self._slices) < len(self.names):
            raise PoseCacheError(
                f"{self.path}: {len(self.names) - len(self._slices)} tracklet names occur more than once; make it again"
            )

    def __len__(self) -> int:
        """Count the tracklets, M."""
        return len(self.names)

    def __getitem__(self, name: str) -> TrackletSkeletons:
        return self.read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._slices

    def __enter__(self) -> "SkeletonStore":
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close: the mapped arrays end with the object."""

    def __reduce__(self) -> tuple[type["SkeletonStore"], tuple[Path]]:
        return SkeletonStore, (self.path,)

    @property
    def digest(self) -> str:
        """SHA-256 over the tracklets' checksums, first 16 hexadecimal digits: equal where the skeletons are equal."""
        return hashlib.sha256(self._checksums.astype("<u4").tobytes()).hexdigest()[:16]

    def digest_of(self, names: Iterable[str]) -> str:
        """Return the digest of some tracklets in that order, as `digest`; names that are not there count by their absence."""
        rows = {name: row for row, name in enumerate(self.names)}
        found = hashlib.sha256()
        for name in names:
            found.update(self._checksums[rows[name]].astype("<u4").tobytes() if name in rows else b"missing")
        return found.hexdigest()[:16]

    @property
    def frame_count(self) -> int:
        """Number of frames, N."""
        return len(self._valid)

    def read(self, name: str) -> TrackletSkeletons:
        """Return one tracklet, as copies in memory."""
        rows = self._slice(name)
        joints, keypoints2d = np.array(self._joints[rows]), np.array(self._keypoints2d[rows])
        return TrackletSkeletons(
            name, self.frames(name), joints, keypoints2d, self._valid[rows].copy(), self.sources(name)
        )

    def joints(self, name: str, indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Return 3D joints (T, J, 3) float32 of a tracklet's frames, all or those at `indices`."""
        return _picked(self._joints[self._slice(name)], indices)

    def keypoints2d(self, name: str, indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Return 2D keypoints (T, K, 3) float32 of a tracklet's frames: x, y in crop pixels, score."""
        return _picked(self._keypoints2d[self._slice(name)], indices)

    def valid(self, name: str, indices: Sequence[int] | np.ndarray | None = None) -> np.ndarray:
        """Return (T,) bool: which of a tracklet's frames have a pose."""
        return _picked(self._valid[self._slice(name)], indices)

    def frames(self, name: str) -> tuple[str, ...]:
        """Return the paths of a tracklet's frames, relative to the dataset root."""
        return tuple(self._decoded(value, "/frames") for value in self._frames[self._slice(name)].tolist())

    def sources(self, name: str) -> np.ndarray:
        """Return (T,) `pose_cache.sources.SOURCE`: what the files of a tracklet's frames were."""
        rows = self._slice(name)
        return unknown_sources(rows.stop - rows.start) if self._sources is None else np.array(self._sources[rows])

    def is_intact(self, row: int) -> bool:
        """Read the tracklet in a row of the table and tell whether it matches its checksum."""
        name = self.names[row]
        rows = self._slice(name)
        arrays = self._frames[rows], self._joints[rows], self._keypoints2d[rows], self._valid[rows], self.sources(name)
        return bool(tracklet_checksum(name.encode(), *arrays) == self._checksums[row])

    def _decoded(self, name: bytes, where: str) -> str:
        try:
            return name.decode()
        except UnicodeDecodeError as error:
            raise PoseCacheError(f"{self.path}: {where} holds {name!r:.60}, no UTF-8 text; make it again") from error

    def _slice(self, name: str) -> slice:
        try:
            return self._slices[name]
        except KeyError:
            raise PoseCacheError(
                f"{self.path} has no skeletons of tracklet {name!r} (it has {len(self)} tracklets, the first is "
                f"{self.names[0] if self.names else 'none'!r}): extract or import them again for this dataset"
            ) from None


def write_store(
    path: Path, tracklets: Iterable[TrackletSkeletons], provenance: Provenance, created: datetime.datetime | None = None
) -> None:
    """Write tracklets, in their order, into a new cache file, atomically.

    Memory is bounded: what exceeds a block goes into part files, which are merged at the end.

    Parameters
    ----------
    path : Path
        The file to make or replace; its folder is made if need be.
    tracklets : iterable of TrackletSkeletons
        Consumed once.
    provenance : Provenance
        Goes into the file's attributes.
    created : datetime, optional
        When the first frame was read; now, if not given.

    Raises
    ------
    PoseCacheError
        If shapes do not agree, a name comes twice, a valid joint is not finite, or the disk refuses.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    parts: list[Path] = []
    block: list[TrackletSkeletons] = []
    frames = 0
    try:
        for tracklet in tracklets:
            block.append(_checked(tracklet, joint_set(provenance.joint_set)))
            frames += len(tracklet.frames)
            if frames >= _BLOCK:
                parts.append(path.with_name(f"{path.name}.part{len(parts)}"))
                _write_block(parts[-1], block, provenance, created)
                block, frames = [], 0
        if not parts:
            _write_block(path, block, provenance, created)
            return
        if block:
            parts.append(path.with_name(f"{path.name}.part{len(parts)}"))
            _write_block(parts[-1], block, provenance, created)
        merge_stores(parts, path)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def verify_store(path: Path) -> list[str]:
    """Read a whole cache file and list what is wrong with it.

    Checked: it opens, shapes agree, tracklets lie one after the other and fill the arrays, names are unique, valid
    joints are finite, and every tracklet matches its checksum, so that a single flipped byte of the data is found.

    Returns
    -------
    list of str
        One line a problem; empty for a healthy file.
    """
    try:
        with open_file(path) as file:
            return [f"{path}: {problem}" for problem in _problems(file)]
    except PoseCacheError as error:
        return [str(error)]
    except (OSError, RuntimeError, KeyError, ValueError, MemoryError) as error:
        return [f"{path}: cannot be read: {error}"]


def _problems(file: h5py.File) -> Iterator[str]:
    layout = Layout.of(file)
    read_created(file)
    expected = joint_set(read_provenance(file).joint_set).size
    if layout.joints != expected:
        yield f"/joints has {layout.joints} joints, but the joint set has {expected}"
    arrays = ("joints", "keypoints2d", "valid", "frames", *(["sources"] if "sources" in file else []))
    sizes = {key: file[key].shape[0] for key in arrays}
    if len(set(sizes.values())) > 1:
        yield f"arrays differ in length: {sizes}"
        return
    table, checksums = file["tracklets"][()], file["checksums"][()]
    names = table["name"].tolist()
    if len(set(names)) < len(names):
        yield f"{len(names) - len(set(names))} tracklet names occur more than once"
    ends = np.cumsum(table["length"])
    if not np.array_equal(table["start"], ends - table["length"]) or (ends[-1] if len(ends) else 0) != layout.frames:
        yield f"/tracklets does not cover the {layout.frames} frames one after the other"
        return
    if len(checksums) != len(table):
        yield f"/checksums has {len(checksums)} entries for {len(table)} tracklets"
        return
    for name, start, length, checksum in zip(names, table["start"], table["length"], checksums, strict=True):
        rows = slice(int(start), int(start + length))
        joints, valid = file["joints"][rows], file["valid"][rows]
        label = name.decode(errors="replace")
        if not np.isfinite(joints[valid]).all():
            yield f"tracklet {label}: joints are not finite where the pose is valid"
        frames, keypoints2d, sources = file["frames"][rows], file["keypoints2d"][rows], read_sources(file, rows)
        if tracklet_checksum(name, frames, joints, keypoints2d, valid, sources) != checksum:
            yield f"tracklet {label} (frames {start} to {start + length - 1}): the checksum differs, the data are damaged"


def _checked(tracklet: TrackletSkeletons, joints: JointSet) -> TrackletSkeletons:
    """Return the tracklet with the stored types, or say what is wrong with it."""
    count = len(tracklet.frames)
    shapes = tracklet.joints.shape, tracklet.keypoints2d.shape, tracklet.valid.shape
    good = shapes[0] == (count, joints.size, 3) and shapes[2] == (count,)
    if (
        not good
        or tracklet.keypoints2d.ndim != 3
        or len(tracklet.keypoints2d) != count
        or shapes[1][2] != 3
        or not count
        or (tracklet.sources is not None and (tracklet.sources.dtype, len(tracklet.sources)) != (SOURCE, count))
    ):
        raise PoseCacheError(
            f"tracklet {tracklet.name!r} of {count} frames: expected joints ({count}, {joints.size}, 3) of {joints.name}, "
            f"keypoints2d ({count}, K, 3) and valid ({count},), with at least one frame, but got {shapes}"
        )
    valid = tracklet.valid.astype(bool)
    if not np.isfinite(tracklet.joints[valid]).all() or not np.isfinite(tracklet.keypoints2d).all():
        raise PoseCacheError(
            f"tracklet {tracklet.name!r}: joints or keypoints are not finite; mark such frames not valid"
        )
    positions = np.where(valid[:, None, None], tracklet.joints, 0).astype("<f4")
    keypoints2d = tracklet.keypoints2d.astype("<f4")
    return TrackletSkeletons(tracklet.name, tracklet.frames, positions, keypoints2d, valid, tracklet.sources)


def _write_block(
    path: Path, block: list[TrackletSkeletons], provenance: Provenance, created: datetime.datetime | None
) -> None:
    """Write tracklets that fit in memory into one file."""
    joints = joint_set(provenance.joint_set).size
    names = [tracklet.name.encode() for tracklet in block]
    frames = [frame.encode() for tracklet in block for frame in tracklet.frames]
    keypoints = {tracklet.keypoints2d.shape[1] for tracklet in block} or {0}
    if len(keypoints) > 1:
        raise PoseCacheError(f"{path}: tracklets differ in their number of 2D keypoints: {sorted(keypoints)}")
    layout = Layout(len(frames), joints, keypoints.pop(), max(map(len, frames), default=1))
    table = tracklet_table(names, [len(tracklet.frames) for tracklet in block], path)
    sources = [unknown_sources(len(t.frames)) if t.sources is None else t.sources for t in block]
    with create_file(path, layout, table, provenance, created) as file:
        if not block:
            return
        file["joints"][:] = np.concatenate([tracklet.joints for tracklet in block])
        file["keypoints2d"][:] = np.concatenate([tracklet.keypoints2d for tracklet in block])
        file["valid"][:] = np.concatenate([tracklet.valid for tracklet in block])
        file["frames"][:] = np.array(frames, dtype=file["frames"].dtype)
        file["sources"][:] = np.concatenate(sources)
        file["checksums"][:] = [
            tracklet_checksum(name, [f.encode() for f in t.frames], t.joints, t.keypoints2d, t.valid, known)
            for name, t, known in zip(names, block, sources, strict=True)
        ]


def _picked(rows: np.ndarray, indices: Sequence[int] | np.ndarray | None) -> np.ndarray:
    """Copy the rows at the indices into a plain array."""
    return np.array(rows) if indices is None else rows.take(indices, 0)
