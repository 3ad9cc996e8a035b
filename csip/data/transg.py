"""The preprocessed layout of the TranSG family (TranSG, SimMC, Hi-MPC, MoCos), as its Preprocess.py writes it.

    root/train_npy_data/source_{x,y,z}_NAME_F.npy          (windows * F, J) coordinates in metres
    root/train_npy_data/frame_id_NAME_F.npy                (windows,) the person of each window
    root/test_npy_data/PART/t_source_{x,y,z}_NAME_F.npy    the same of each part: probe and gallery (KGBD, KS20), Still and
    root/test_npy_data/PART/frame_id_NAME_F.npy            Walking (BIWI), A and B (IAS-Lab)

The windows of a person that follow each other make a sequence: the layout does not say where a recording ends. Its ids_*.npy
hold the same people as pickled dictionaries, which are not opened: a pickle can run any program.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import numpy as np

from csip.data.sequences import SkeletonDataset, SkeletonSequence, from_sensor
from csip.errors import CsipError
from pose_cache.arrays import read_npy
from pose_cache.errors import PoseCacheError
from pose_cache.joints import KINECT20, KINECT25

_SIZES = {joints.size: joints for joints in (KINECT20, KINECT25)}
_OTHER = {"probe": "gallery", "Still": "Walking", "Walking": "Still", "A": "B", "B": "A"}


def load(root: Path, probe: str | None = None, name: str = "transg") -> SkeletonDataset:
    """Read the windows.

    Parameters
    ----------
    root
        The folder of one length, e.g. ``Datasets/KGBD/6``.
    probe
        The part that asks: probe, Still, Walking, A or B; by default the first of probe, Still, A that is there.

    Raises
    ------
    CsipError
        A file is missing, no array, or of another length than the others; there is no such part.
    """
    root = Path(root)
    tests = root / "test_npy_data"
    probe = probe or next((part for part in ("probe", "Still", "A") if (tests / part).is_dir()), None)
    if probe is None or probe not in _OTHER:
        raise CsipError(f"{tests}: dataset.probe is {probe!r}, expected a part that is there: {', '.join(_OTHER)}")
    gallery = _OTHER[probe]
    parts = [
        _read(folder, prefix, label)
        for folder, prefix, label in (
            (root / "train_npy_data", "source", "train"),
            (tests / probe, "t_source", probe),
            (tests / gallery, "t_source", gallery),
        )
    ]
    sizes = {sequence.joints.shape[1] for part in parts for sequence in part}
    if len(sizes) > 1:
        raise CsipError(f"{root}: its parts have different numbers of joints: {sorted(sizes)}")
    protocol = f"as preprocessed, probe {probe} against gallery {gallery}"
    return SkeletonDataset(name, root, _SIZES[sizes.pop()].name, protocol, *parts)


def _read(folder: Path, prefix: str, label: str) -> tuple[SkeletonSequence, ...]:
    if not folder.is_dir():
        raise CsipError(f"{folder}: missing; expected {prefix}_x_NAME_FRAMES.npy and its companions in it")
    found = sorted(folder.glob(f"{prefix}_x_*.npy"))
    if len(found) != 1:
        raise CsipError(f"{folder}: expected one {prefix}_x_NAME_FRAMES.npy, found {len(found)}")
    match = re.fullmatch(rf"{prefix}_x_(.+)_(\d+)", found[0].stem)
    if match is None:
        raise CsipError(f"{found[0]}: its name does not end in the number of frames of a window")
    data, frames = match[1], int(match[2])
    axes = [_array(folder / f"{prefix}_{axis}_{data}_{frames}.npy") for axis in "xyz"]
    people = _array(folder / f"frame_id_{data}_{frames}.npy")
    if people.ndim != 1 or people.dtype.kind not in "iuf" or not (people == np.round(people)).all():
        raise CsipError(
            f"{folder}: frame_id has the shape {people.shape} of {people.dtype}, expected the number of a person for each window"
        )
    for axis, array in zip("xyz", axes, strict=True):
        if (
            array.dtype.kind not in "iuf"
            or array.ndim != 2
            or array.shape[1] not in _SIZES
            or len(array) != frames * len(people)
        ):
            raise CsipError(
                f"{folder}: {prefix}_{axis} has the shape {array.shape}, expected ({frames} x {len(people)} windows, "
                f"{' or '.join(map(str, _SIZES))} joints)"
            )
    joints = from_sensor(np.stack(axes, axis=2), axes[0].shape[1], str(folder))
    edges = np.flatnonzero(np.diff(people)) + 1
    bounds = np.concatenate(([0], edges, [len(people)]))
    return tuple(
        SkeletonSequence(
            f"{label}/person{people[start]}_window{start}",
            int(people[start]),
            joints[start * frames : stop * frames],
            frames,
        )
        for start, stop in itertools.pairwise(bounds)
    )


def _array(path: Path) -> np.ndarray:
    try:
        return read_npy(path)
    except PoseCacheError as error:
        raise CsipError(str(error)) from error
