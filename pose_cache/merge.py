"""Join tracklets of several cache files into one, a block at a time. See `pose_cache.store` for the format."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NamedTuple

import h5py
import numpy as np

from pose_cache.errors import PoseCacheError
from pose_cache.hdf5 import (
    Layout,
    Provenance,
    check_table,
    create_file,
    lasting_details,
    open_file,
    read_created,
    read_provenance,
    read_sources,
    tracklet_table,
)

# Frames copied at once: about 27 MB with 17 joints.
_BLOCK: Final = 65536


class Piece(NamedTuple):
    """Tracklets that lie next to each other in a cache file: rows `first` to `stop` - 1 of its table."""

    path: Path
    first: int
    stop: int


def merge_stores(shards: Sequence[Path], out: Path, provenance: Provenance | None = None) -> None:
    """Join cache files into one, in the order given.

    Parameters
    ----------
    shards : sequence of Path
        At least one file; all of the same joint set, keypoints, unit and estimator.
    out : Path
        The file to make or replace.
    provenance : Provenance, optional
        Of the whole; the first file's own if not given.

    Raises
    ------
    PoseCacheError
        If a file is damaged or disagrees with the first, or if a tracklet is in two of them.
    """
    pieces = []
    for shard in shards:
        with open_file(shard) as file:
            pieces.append(Piece(shard, 0, len(file["tracklets"])))
    merge_pieces(pieces, out, provenance)


def merge_pieces(pieces: Sequence[Piece], out: Path, provenance: Provenance | None = None) -> None:
    """Join tracklets of cache files into one file, in the order given, their checksums with them.

    Parameters
    ----------
    pieces : sequence of Piece
        At least one; their files all of the same joint set, keypoints, unit and estimator.
    out : Path
        The file to make or replace; it may be one of those that are read.
    provenance : Provenance, optional
        Of the whole; the first file's own if not given.

    Raises
    ------
    PoseCacheError
        If a file is damaged or disagrees with the first, or if a tracklet comes twice.
    """
    if not pieces:
        raise PoseCacheError(f"nothing to merge into {out}: expected at least one cache file")
    with ExitStack() as stack:
        files = {path: stack.enter_context(open_file(path)) for path in dict.fromkeys(one.path for one in pieces)}
        tables = {path: _table(path, file) for path, file in files.items()}
        first = pieces[0].path
        for path, file in files.items():
            if (mismatch := _difference(files[first], file)) is not None:
                raise PoseCacheError(f"cannot merge {path} with {first}: {mismatch}")
        table = _merged_table(pieces, tables)
        layouts = [Layout.of(file) for file in files.values()]
        frames, name_bytes = int(table["length"].sum()), max(one.name_bytes for one in layouts)
        layout = Layout(frames, layouts[0].joints, layouts[0].keypoints, name_bytes)
        created = min(read_created(file) for file in files.values())
        with create_file(out, layout, table, provenance or read_provenance(files[first]), created) as target:
            frame, tracklet = 0, 0
            for path, begin, stop in pieces:
                source, rows = files[path], tables[path][begin:stop]
                start, count = int(rows["start"][0]) if len(rows) else 0, int(rows["length"].sum())
                _copy_frames(source, slice(start, start + count), target, frame)
                target["checksums"][tracklet : tracklet + len(rows)] = source["checksums"][begin:stop]
                frame, tracklet = frame + count, tracklet + len(rows)


def _copy_frames(source: h5py.File, rows: slice, target: h5py.File, frame: int) -> None:
    for start in range(rows.start, rows.stop, _BLOCK):
        stop = min(start + _BLOCK, rows.stop)
        place = slice(frame + start - rows.start, frame + stop - rows.start)
        for key in ("joints", "keypoints2d", "valid", "frames"):
            target[key][place] = source[key][start:stop]
        target["sources"][place] = read_sources(source, slice(start, stop))


def _table(path: Path, file: h5py.File) -> np.ndarray:
    """Read a file's table, refused if it does not fit the file's frames."""
    table: np.ndarray = file["tracklets"][()]
    check_table(path, table, len(file["valid"]), len(file["checksums"]))
    return table


def _merged_table(pieces: Sequence[Piece], tables: dict[Path, np.ndarray]) -> np.ndarray:
    """One table of all pieces, refused if a name comes twice."""
    owner: dict[bytes, Path] = {}
    for path, first, stop in pieces:
        for name in tables[path]["name"][first:stop].tolist():
            if name in owner:
                raise PoseCacheError(f"tracklet {name.decode()!r} is in both {owner[name]} and {path}")
            owner[name] = path
    lengths = np.concatenate([tables[path]["length"][first:stop] for path, first, stop in pieces])
    return tracklet_table(list(owner), lengths, pieces[0].path)


def _difference(one: h5py.File, other: h5py.File) -> str | None:
    """Say what two files to be merged do not agree in."""
    first, second = (
        (made.estimator, made.joint_set, made.unit, lasting_details(made.details), Layout.of(file).keypoints)
        for made, file in ((read_provenance(one), one), (read_provenance(other), other))
    )
    for what, a, b in zip(("estimator", "joint set", "unit", "details", "2D keypoints"), first, second, strict=True):
        if a != b:
            return f"their {what} differ: {b!r} and {a!r}"
    return None
