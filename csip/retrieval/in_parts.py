"""A file of descriptors made in parts, by one process or by many: see `pose_cache.parts`."""

from __future__ import annotations

import hashlib
import json
import pickle
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from csip.data.content import contents_of
from csip.data.dataset import Dataset, Tracklet, fingerprint
from csip.errors import CsipError
from csip.models.reid import ReIDModel
from csip.monitor import Monitor, Silent
from csip.retrieval.descriptors import Descriptors, check_suffix, read_descriptors, write_in_blocks
from csip.retrieval.model import Model, pick_device
from csip.runtime import device_of_worker
from pose_cache.parts import Part, PartsFolder, Work, joined_rows
from pose_cache.pieces import Spread, kept_by_worker

SHARD = 64  # tracklets: what a killed process can lose at most

Piece = Sequence[Tracklet]


def embed_to_file(
    model: Model, dataset: Dataset, tracklets: Sequence[Tracklet], out: Path, spread: Spread, monitor: Monitor
) -> Descriptors | None:
    """Embed tracklets into a file, to the numbers of `Model.embed_tracklets`; resume where an earlier call was interrupted.

    Parameters
    ----------
    out
        The file, ``.h5`` or ``.npz``. Finished parts are in ``.OUT.shards`` beside it until it is written.
    spread
        Who does the work, and which share of it.

    Returns
    -------
    Descriptors or None
        What the file holds, the features of an ``.h5`` as a memory map; None after a share, which leaves parts alone.

    Raises
    ------
    CsipError
        There are no tracklets, a frame cannot be read, the name has another ending.
    PoseCacheError
        Somebody else is writing `out`, a worker died, or shares that are to be merged are missing.
    """
    check_suffix(out)
    if not tracklets:
        raise CsipError(f"{dataset.root}: there are no tracklets to embed")
    folder = PartsFolder(out.with_name(f".{out.name}.shards"), out)
    embedder = model.embedder(dataset.name)

    def here(pieces: Sequence[Piece]) -> Iterator[np.ndarray]:
        rows = embedder.describe_all(dataset.root, [tracklet for piece in pieces for tracklet in piece], monitor)
        return (np.stack([next(rows) for _ in piece]) for piece in pieces)

    if not spread.alone:
        embedder.say_unknown(tracklets, monitor)
    elsewhere = _Elsewhere(pickle.dumps(model.reopen), model.file_digest, dataset.name, dataset.root, folder.path)
    work = Work("embedding tracklets", "tracklets", here, partial(_embed_there, elsewhere=elsewhere))
    # Each job of several reads the pictures of its own pieces alone.
    pieces = spread.mine([tracklets[start : start + SHARD] for start in range(0, len(tracklets), SHARD)])
    # Before they are read: what changes meanwhile then shows.
    pictures = contents_of(dataset.root, [tracklet for piece in pieces for tracklet in piece])
    parts = _parts(model, dataset, pieces, pictures, folder)
    with joined_rows(folder, parts, spread, work, monitor) as rows:
        if rows is None:
            return None
        if out.suffix == ".h5":
            write_in_blocks(out, dataset, tracklets, rows, model.digest, pictures)
            return read_descriptors(out, mapped=True)
        descriptors = Descriptors.of(dataset, tracklets, np.concatenate(list(rows)), model.digest, pictures)
        descriptors.save(out)
        return descriptors


def _parts(
    model: Model, dataset: Dataset, pieces: Sequence[Piece], pictures: np.ndarray, folder: PartsFolder
) -> list[Part[Piece]]:
    """Name the parts by all that their rows depend on."""
    settings, embedder = model.settings, model.embedder(dataset.name)
    clips, evaluation = settings.clips, settings.evaluation
    common = [model.file_digest, sorted(embedder.camera_rows.items()), evaluation.sampling, evaluation.part_norm,
              model.precision, clips.frames, clips.stride, clips.height, clips.width, clips.mean, clips.std]  # fmt: skip
    contents, parts = iter(pictures.tolist()), []
    for piece in pieces:
        depends = [*common, fingerprint(piece), [next(contents) for _ in piece]]
        key = hashlib.sha256(json.dumps(depends).encode()).hexdigest()[:24]
        parts.append(Part(folder.path / f"{key}.npy", piece, len(piece)))
    return parts


# ---- in another process ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Elsewhere:
    """What another process needs to embed: it can be pickled, which a network on a device is too large for.

    Attributes
    ----------
    reopen
        `Model.reopen`, pickled.
    digest
        Of the file that the model runs from.
    dataset, root
        The data set's name and folder.
    locks
        Where workers of one machine share out its GPUs.
    """

    reopen: bytes
    digest: str
    dataset: str
    root: Path
    locks: Path


def _embed_there(piece: Piece, elsewhere: _Elsewhere) -> np.ndarray:
    embedder = _opened(elsewhere).embedder(elsewhere.dataset)
    return np.stack(list(embedder.describe_all(elsewhere.root, piece, Silent())))


@kept_by_worker
def _opened(elsewhere: _Elsewhere) -> Model:
    """Load the model of a worker, once, on a device of its own."""
    model: Model = pickle.loads(elsewhere.reopen)()
    if model.file_digest != elsewhere.digest:
        raise CsipError(
            f"on {socket.gethostname()} the model has the digest {model.file_digest}, expected {elsewhere.digest}: all "
            "machines have to see the same files"
        )
    # A worker may not start processes of its own; other workers compute while this one decodes.
    runtime = model.settings.runtime.model_copy(update={"workers": 0})
    model.settings = model.settings.model_copy(update={"runtime": runtime})
    if isinstance(model.network, ReIDModel):
        model.to(device_of_worker(pick_device(runtime.device), elsewhere.locks))
    return model
