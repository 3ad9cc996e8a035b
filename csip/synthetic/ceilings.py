"""What the skeletons of a motion world tell about its twins, cue by cue: what there is to be learnt from them.

Tracklets are told apart by the nearest neighbour in one of these cues:

* `proportions`: lengths of the bones, as shares of their sum.
* `one frame`: directions of the bones in the first frame.
* `mean pose`: mean directions of the bones over time.
* `mean joints`: mean positions of the joints over time.
* `spread`: how far each bone swings about its mean direction.
* `spectrum`: how that is spread over frequencies, coordinate by coordinate.
* `cadence`: the tempo alone.
* `encoder`: what a trained encoder says of the whole tracklet, where one is given.

Directions and positions are seen from the torso, so that neither the camera nor the way that somebody walks counts.
Directions know nothing of lengths. The length of the mean of unit vectors says how far they spread, its direction does
not: mean pose and spread are the two parts of one mean, and each is blind to the other (K. V. Mardia, P. E. Jupp,
"Directional Statistics"). Mean joints are not blind: they know lengths, and they draw in a little as swings grow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from csip.errors import CsipError
from csip.synthetic.body import FloatArray
from csip.synthetic.world import load_strata, load_truth
from pose_cache.joints import H36M17
from pose_cache.store import SkeletonStore

LENGTHS = (8, 16, 32, 64)
"""Frames from the start of a tracklet that a cue is taken from."""

ENCODER = "encoder"
"""The cue that is what an encoder says of whole tracklets."""

Encoder = Callable[[FloatArray], FloatArray]

_PARENTS, _CHILDREN = np.array(H36M17.bones).T
_RIGHT_HIP, _LEFT_HIP, _THORAX, _LEFT_SHOULDER, _RIGHT_SHOULDER = 1, 4, 8, 11, 14
_TRANSFORM = 64  # frames, at least, that a tracklet is filled up to with zeros before its Fourier transform
_TEMPI = np.arange(0.55, 1.35, 0.01)  # cycles of two steps a second
_SAMPLES = 1000
_TIE = 1e-9  # of squared distances: bones of one length differ by rounding


@dataclass(frozen=True)
class Ceiling:
    """How well one cue tells the people of one stratum.

    Attributes
    ----------
    cue, frames, stratum
        What is known of a tracklet, from how many frames, and in which trait alone the twins differ.
    own_twin
        Share of tracklets whose nearest one at other cameras, among those of the person and of the twin, is the person's.
        Of several as near, each counts a part. Chance is 0.5.
    low, high
        95 % interval of `own_twin`, bootstrap over pairs of twins.
    rank1
        Share of tracklets whose nearest one at other cameras, among all people, is the person's; ties as before.
    """

    cue: str
    frames: int
    stratum: str
    own_twin: float
    low: float
    high: float
    rank1: float


@dataclass(frozen=True)
class Ceilings:
    """The ceilings of a data set's test identities.

    Attributes
    ----------
    part
        Which of the motion world's people they are: "validation" or "test".
    people, tracklets
        How many were told apart.
    missing
        Tracklets that have no skeleton, and so are left out.
    rows
        One for each number of frames, cue and stratum.
    """

    part: str
    people: int
    tracklets: int
    missing: int
    rows: tuple[Ceiling, ...]

    def find(self, cue: str, frames: int, stratum: str) -> Ceiling:
        """Return the row of that cue, number of frames and stratum."""
        return next(row for row in self.rows if (row.cue, row.frames, row.stratum) == (cue, frames, stratum))


def measure_ceilings(root: Path, skeletons: Path | None = None, encoder: Encoder | None = None) -> Ceilings:
    """Measure what joints, and what an encoder says of them, tell about the test identities of a motion world.

    Parameters
    ----------
    root
        A folder that `csip.synthetic.world.render_mars` made.
    skeletons
        A skeleton cache of that data set: estimated joints; the true ones where not given. Frames without a pose are
        interpolated.
    encoder
        Describes whole tracklets, (M, F, 17, 3) joints with the pelvis at the origin, by (M, D) vectors: a last cue.

    Raises
    ------
    CsipError
        If the folder holds no motion world, or the cache has other joints or none of the tracklets.
    """
    strata = load_strata(root)
    twins = {pid for group in strata.test.values() for pair in group for pid in pair}
    truths = {t.name: t.joints3d for t in load_truth(root) if t.name.startswith("test/") and _person(t.name) in twins}
    found = truths if skeletons is None else _estimated(skeletons, list(truths))
    walks = TwinWalks(
        joints=np.stack([joints.astype(np.float64) for joints in found.values()]),
        people=np.array([_person(name) for name in found]),
        cameras=np.array([int(name[len("test/0001C") :].split("T")[0]) for name in found]),
        pairs={name: np.array(group) for name, group in strata.test.items()},
        fps=strata.fps,
    )
    rows = tell_apart(walks)
    if encoder is not None:
        unit = _unit(encoder(walks.joints - walks.joints[:, :, :1]))
        rows += _ceilings(walks, ENCODER, walks.joints.shape[1], unit)
    return Ceilings(strata.part, len(twins), len(found), len(truths) - len(found), rows)


def _person(name: str) -> int:
    """Identity in the name of a tracklet, "test/0001C1T0001"; -1 for junk."""
    label = name[len("test/") :][:4]
    return int(label) if label.isdigit() else -1


@dataclass(frozen=True)
class TwinWalks:
    """Skeletons of twins.

    Attributes
    ----------
    joints
        (M, F, 17, 3) Human3.6M joints of M tracklets, camera axes.
    people, cameras
        (M,) of each tracklet.
    pairs
        By stratum (P, 2): the people who are twins.
    fps
        Frames a second.
    """

    joints: FloatArray
    people: NDArray[np.int64]
    cameras: NDArray[np.int64]
    pairs: dict[str, NDArray[np.int64]]
    fps: float


def tell_apart(walks: TwinWalks) -> tuple[Ceiling, ...]:
    """Return the ceiling of each cue for each number of frames and stratum; lengths beyond the tracklets' are left out.

    A tracklet is a query where its person has another one at another camera.
    """
    rows: tuple[Ceiling, ...] = ()
    for frames in (length for length in LENGTHS if length <= walks.joints.shape[1]):
        for cue, describe in CUES.items():
            rows += _ceilings(walks, cue, frames, describe(walks.joints[:, :frames], walks.fps))
    return rows


def _ceilings(walks: TwinWalks, cue: str, frames: int, vectors: FloatArray) -> tuple[Ceiling, ...]:
    """Return the ceiling of one cue, vectors (M, D), for each stratum."""
    rows = []
    elsewhere = walks.cameras[:, None] != walks.cameras
    own = walks.people[:, None] == walks.people
    asked = (own & elsewhere).any(axis=1)
    squares = np.square(vectors).sum(axis=1)
    distances = np.where(elsewhere, squares[:, None] + squares - 2 * vectors @ vectors.T, np.inf)
    for stratum, pairs in walks.pairs.items():
        among_twins, among_all = [], []
        for pair in pairs:
            theirs = np.isin(walks.people, pair)
            queries = np.flatnonzero(theirs & asked)
            candidates = np.where(theirs, distances[queries], np.inf)
            among_twins.append(_share_right(candidates, own[queries]))
            among_all.append(_share_right(distances[queries], own[queries]))
        hits = np.concatenate(among_twins)
        low, high = _interval(among_twins)
        rank1 = float(np.concatenate(among_all).mean())
        rows.append(Ceiling(cue, frames, stratum, float(hits.mean()), low, high, rank1))
    return tuple(rows)


def _share_right(distances: FloatArray, own: NDArray[np.bool_]) -> FloatArray:
    """For each row, the share of `own` among the nearest entries."""
    nearest = distances <= distances.min(axis=1, keepdims=True) + _TIE
    return (own & nearest).sum(axis=1) / nearest.sum(axis=1)


def _interval(hits: list[FloatArray]) -> tuple[float, float]:
    """95 % bootstrap interval of a share over groups, of which each is drawn as a whole."""
    right, asked = np.array([[group.sum(), len(group)] for group in hits]).T
    chosen = np.random.default_rng(0).integers(len(hits), size=(_SAMPLES, len(hits)))
    totals = np.maximum(asked[chosen].sum(axis=1), 1)
    low, high = np.quantile(right[chosen].sum(axis=1) / totals, [0.025, 0.975])
    return float(low), float(high)


def _estimated(path: Path, names: list[str]) -> dict[str, FloatArray]:
    """Read the named tracklets' joints from a cache, without gaps; those without any pose are left out."""
    found = {}
    with SkeletonStore(path) as store:
        if store.joint_set is not H36M17:
            raise CsipError(f"{path}: expected joints of {H36M17.name}, found {store.joint_set.name}")
        for name in names:
            stored = store.read(name) if name in store else None
            if stored is not None and stored.valid.any():
                columns = stored.joints.reshape(len(stored.joints), -1).T
                known, frames = np.flatnonzero(stored.valid), np.arange(len(stored.joints))
                filled = [np.interp(frames, known, column[known]) for column in columns]
                found[name] = np.stack(filled, axis=1).reshape(stored.joints.shape)
    if not found:
        raise CsipError(
            f"{path}: expected skeletons of the test tracklets of this data set, found none", parameter="test_skeletons"
        )
    return found


# ---- cues: (M, F, 17, 3) joints in camera axes and frames a second to (M, D) figures ---------------------------------


def _unit(vectors: FloatArray) -> FloatArray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _directions(joints: FloatArray) -> FloatArray:
    """Return unit vectors of the bones in axes of the torso, (M, F, 16, 3)."""
    axes = _torso(joints)
    bones = _unit(joints[..., _CHILDREN, :] - joints[..., _PARENTS, :])
    return np.einsum("mfij,mfbj->mfbi", axes, bones)


def _torso(joints: FloatArray) -> FloatArray:
    """Return the axes of the torso as rows: forward, left, up, (M, F, 3, 3)."""
    up = _unit(joints[..., _THORAX, :] - joints[..., 0, :])
    hips = joints[..., _LEFT_HIP, :] - joints[..., _RIGHT_HIP, :]
    shoulders = joints[..., _LEFT_SHOULDER, :] - joints[..., _RIGHT_SHOULDER, :]
    left: FloatArray = _unit(hips) + _unit(shoulders)
    left = _unit(left - (left * up).sum(axis=-1, keepdims=True) * up)
    return np.stack([np.cross(left, up), left, up], axis=-2)


def _proportions(joints: FloatArray, fps: float) -> FloatArray:
    lengths = np.linalg.norm(joints[..., _CHILDREN, :] - joints[..., _PARENTS, :], axis=-1).mean(axis=1)
    return lengths / lengths.sum(axis=1, keepdims=True)


def _one_frame(joints: FloatArray, fps: float) -> FloatArray:
    return _directions(joints[:, :1]).reshape(len(joints), -1)


def _mean_pose(joints: FloatArray, fps: float) -> FloatArray:
    return _unit(_directions(joints).mean(axis=1)).reshape(len(joints), -1)


def _mean_joints(joints: FloatArray, fps: float) -> FloatArray:
    centred = joints - joints[..., :1, :]
    return np.einsum("mfij,mfbj->mfbi", _torso(joints), centred).mean(axis=1).reshape(len(joints), -1)


def _spread(joints: FloatArray, fps: float) -> FloatArray:
    """Square root of the total variance of each bone's direction."""
    length = np.linalg.norm(_directions(joints).mean(axis=1), axis=-1)
    return np.sqrt(np.maximum(1 - length**2, 0))


def _changes(joints: FloatArray) -> FloatArray:
    """Directions about their mean over time, (M, F, 48)."""
    directions = _directions(joints)
    return (directions - directions.mean(axis=1, keepdims=True)).reshape(*joints.shape[:2], -1)


def _spectrum(joints: FloatArray, fps: float) -> FloatArray:
    """Magnitudes of the Fourier transform of each direction under a Hann window."""
    changes = _changes(joints)
    window = np.hanning(changes.shape[1] + 2)[1:-1]
    window /= np.linalg.norm(window)
    return np.abs(np.fft.rfft(changes * window[:, None], max(_TRANSFORM, len(window)), axis=1)).reshape(len(joints), -1)


def _cadence(joints: FloatArray, fps: float) -> FloatArray:
    """Tempo whose constant and first two harmonics fit all directions best (least squares)."""
    directions = _directions(joints).reshape(*joints.shape[:2], -1)
    explained = []
    for tempo in _TEMPI:
        turn = 2 * np.pi * tempo * np.arange(directions.shape[1]) / fps
        waves = [np.ones_like(turn), np.cos(turn), np.sin(turn), np.cos(2 * turn), np.sin(2 * turn)]
        basis = np.linalg.qr(np.stack(waves, axis=1))[0]
        explained.append(np.square(basis.T @ directions).sum(axis=(1, 2)))
    return _TEMPI[np.argmax(explained, axis=0)][:, None]


CUES: dict[str, Callable[[FloatArray, float], FloatArray]] = {
    "proportions": _proportions,
    "one frame": _one_frame,
    "mean pose": _mean_pose,
    "mean joints": _mean_joints,
    "spread": _spread,
    "spectrum": _spectrum,
    "cadence": _cadence,
}
"""What describes (M, F, 17, 3) joints in camera axes, at so many frames a second, as (M, D) figures."""
