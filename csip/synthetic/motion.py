"""The motion world: twins in the same clothing who differ in one trait alone, and what the others are stays equal.

Twins come in strata. Those of `body` differ in proportions and girths, of `posture` in the mean angles that they hold,
of `swings` in the amplitudes of their joints about those angles, of `cadence` in the tempo and in how far arms and left
step are behind. All else that makes a person is shared, and the walks of all people vary alike.

Each trait of a person has a key. Keys 2 n and 2 n + 1 are opposites: every number of the one is half of its range away
from that of the other, so all twins of a stratum differ by as much, and each number alone is uniform over its range.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from csip.synthetic.body import FloatArray, Gait, Identity, Uniform, draw_body, draw_clothing, walking_speed
from csip.synthetic.camera import Camera
from csip.synthetic.walks import Outing

STRATA = ("body", "posture", "swings", "cadence")

_TRAIT = 31  # stream of the random generator; the trait's number follows

_DEGREE = float(np.deg2rad(1))
_POSTURE = {
    "elbow": (16 * _DEGREE, 64 * _DEGREE), "arm_spread": (2 * _DEGREE, 16 * _DEGREE), "lean": (-3 * _DEGREE, 12 * _DEGREE),
    "hunch": (0.0, 16 * _DEGREE), "head_pitch": (-6 * _DEGREE, 20 * _DEGREE), "step_width": (-1 * _DEGREE, 5 * _DEGREE),
    "toe_out": (-4 * _DEGREE, 20 * _DEGREE), "hip_flexion": (-10 * _DEGREE, 10 * _DEGREE),
    "knee_flexion": (0.0, 20 * _DEGREE), "arm_flexion": (-12 * _DEGREE, 16 * _DEGREE),
}  # fmt: skip
_SWINGS = {
    "stride": (0.72, 1.2), "knee_lift": (0.8, 1.25), "arm_swing": (8 * _DEGREE, 30 * _DEGREE),
    "arm_asymmetry": (-0.4, 0.4), "elbow_swing": (4 * _DEGREE, 20 * _DEGREE), "sway": (0.0, 0.045),
    "pelvis_turn": (1 * _DEGREE, 9 * _DEGREE), "pelvis_drop": (0.5 * _DEGREE, 6 * _DEGREE),
    "shoulder_turn": (1 * _DEGREE, 11 * _DEGREE), "leg_asymmetry": (-0.12, 0.12),
}  # fmt: skip
_CADENCE = {"cadence": (1.5, 2.25), "arm_lag": (-0.08, 0.08), "step_lag": (-0.05, 0.05)}

# Between two walks of a person every number of the gait varies by this share of its range (standard deviation); twins
# are half of a range apart. Positions averaged over time shrink as swings grow: so much variation of posture hides it.
_VARIATION = ((_POSTURE, 0.15), (_SWINGS, 0.08), (_CADENCE, 0.08))
_TURNING = (0.2, 0.45)  # radians a second: a walk of 64 frames stays in view and shows the person from many sides


def stratum(number: int) -> str:
    """Name the stratum of person `number` (from 0); 2 i and 2 i + 1 are twins, and the strata take turns."""
    return STRATA[number // 2 % len(STRATA)]


def make_twin(seed: int, number: int, key: int) -> Identity:
    """Draw person `number` (from 0) of the people of `seed`.

    Parameters
    ----------
    seed, number
        They decide who it is; people of different seeds are unrelated.
    key
        Only copied into the result: what the data set calls the person.
    """
    first = number - number % 2
    keys = {trait: number if trait == stratum(number) else first for trait in STRATA}
    draws = {trait: _uniform(seed, trait, keys[trait]) for trait in STRATA}
    ranges = (("posture", _POSTURE), ("swings", _SWINGS), ("cadence", _CADENCE))
    gait = {name: draws[trait](*limits) for trait, limited in ranges for name, limits in limited.items()}
    return Identity(
        key=key,
        clothing_key=first,
        **{f"{trait}_key": keys[trait] for trait in STRATA},
        body=draw_body(draws["body"]),
        gait=Gait(**gait, level=True),
        clothing=draw_clothing(seed, first),
    )


def _uniform(seed: int, trait: str, key: int) -> Uniform:
    rng = np.random.default_rng([seed, _TRAIT, STRATA.index(trait), key // 2])
    shift = 0.5 * (key % 2)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * float((rng.random() + shift) % 1.0)

    return uniform


def draw_outing(identity: Identity, camera: Camera, rng: np.random.Generator, times: FloatArray) -> Outing:
    """Draw how and where a person walks past a camera, at `times` (F,) in seconds.

    The path turns by time, not by way: else the tempo would show in how much of a person is seen.
    """
    varied = {
        name: getattr(identity.gait, name) + (high - low) * share * rng.normal()
        for limited, share in _VARIATION
        for name, (low, high) in limited.items()
    }
    gait = replace(identity.gait, **varied)
    phase = rng.random() + 0.5 * gait.cadence * times
    direction = camera.heading + np.pi * rng.integers(2) + np.deg2rad(rng.normal(0, 18))
    heading = direction + rng.choice([-1, 1]) * rng.uniform(*_TURNING) * times
    middle = np.array([rng.uniform(-2, 2), camera.distance + rng.uniform(-1, 1)])
    step = walking_speed(identity.body, gait) * (times[1] - times[0] if len(times) > 1 else 0.0)
    place = np.cumsum(step * np.stack([np.cos(heading), np.sin(heading)], axis=-1), axis=0)
    return Outing(gait, phase, heading, place - place.mean(axis=0) + middle)
