"""A rendered walker (body, gait, clothing) and its motion.

An identity is a pure function of a seed and an integer key: the same key gives the same person in every
process. Angles in the dataclasses are radians, lengths metres, colours RGB in [0, 1].

Body axes: x forward, y to the person's left, z up; the origin is on the ground below the mean pelvis.
The walking cycle follows the joint-angle curves of normal gait (D. A. Winter, "Biomechanics and Motor Control
of Human Movement"), scaled by the person's own parameters; phase 0 is the right heel strike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

FloatArray = NDArray[np.floating]
Colour = tuple[float, float, float]
Uniform = Callable[[float, float], float]
"""Draws a number between a low and a high one."""

# Streams of the random generator: body, gait and clothing of one key are independent draws.
_BODY, _GAIT, _CLOTHING = 1, 2, 3

RIGHT, LEFT = -1.0, 1.0
H36M_NAMES = (
    "pelvis", "right_hip", "right_knee", "right_ankle", "left_hip", "left_knee", "left_ankle", "spine",
    "thorax", "neck", "head", "left_shoulder", "left_elbow", "left_wrist", "right_shoulder", "right_elbow",
    "right_wrist",
)  # fmt: skip
COCO_NAMES = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
    "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee",
    "left_ankle", "right_ankle",
)  # fmt: skip


@dataclass(frozen=True)
class Body:
    """Bone lengths and girths, in metres; widths are half widths, girths are factors around 1."""

    thigh: float
    shin: float
    ankle_height: float
    foot: float
    torso: float
    neck: float
    head: float
    shoulder: float
    hip: float
    upper_arm: float
    forearm: float
    hand: float
    trunk_girth: float
    belly: float
    pelvis_girth: float
    arm_girth: float
    leg_girth: float

    @property
    def height(self) -> float:
        """Standing height, in metres."""
        legs = self.thigh + self.shin + self.ankle_height
        return legs + self.torso + self.neck + self.head


@dataclass(frozen=True)
class Gait:
    """How a person walks. Angles in radians, cadence in steps a second, lags in cycles; the rest are factors.

    `hip_flexion`, `knee_flexion` and `arm_flexion` are added to the mean angles of hip, knee and upper arm. `arm_lag` is
    how far shoulders and arms are behind the legs, `step_lag` how far the left step is behind the middle of two right
    ones. With `level` the amplitudes change the swing of a joint about a mean angle that is everybody's;
    without, a longer stride and a higher knee also bend the joints more on average.
    """

    cadence: float
    stride: float
    knee_lift: float
    arm_swing: float
    arm_asymmetry: float
    elbow: float
    elbow_swing: float
    arm_spread: float
    lean: float
    hunch: float
    head_pitch: float
    sway: float
    pelvis_turn: float
    pelvis_drop: float
    shoulder_turn: float
    step_width: float
    toe_out: float
    leg_asymmetry: float
    hip_flexion: float = 0.0
    knee_flexion: float = 0.0
    arm_flexion: float = 0.0
    arm_lag: float = 0.0
    step_lag: float = 0.0
    level: bool = False


@dataclass(frozen=True)
class Clothing:
    """What a person looks like beside the body's shape.

    `sleeve` and `leg` count along the limb: 0 to 1 is the upper arm or thigh, 1 to 2 the forearm or shin.
    `garment` is "trousers", "skirt" or "coat"; `pattern` is "plain", "stripes", "band", "block" or "print".
    """

    skin: Colour
    hair: Colour
    top: Colour
    second: Colour
    bottom: Colour
    shoes: Colour
    bag: Colour
    pattern: str
    garment: str
    sleeve: float
    leg: float
    hem: float
    hair_length: float
    backpack: bool
    looseness: float
    texture: int


@dataclass(frozen=True)
class Identity:
    """One person: `key` says who, the other keys whose clothing, body and gait (in three parts) the person has."""

    key: int
    clothing_key: int
    body_key: int
    posture_key: int
    swings_key: int
    cadence_key: int
    body: Body
    gait: Gait
    clothing: Clothing


@dataclass(frozen=True)
class Pose:
    """A body's joints over F frames, in body axes.

    Attributes
    ----------
    points
        (F, 3) positions by name: the names of `H36M_NAMES` and `COCO_NAMES`, and toes and hands.
    frames
        (F, 3, 3) rotations by name ("pelvis", "thorax", "head"), columns forward, left, up.
    """

    points: dict[str, FloatArray]
    frames: dict[str, FloatArray]

    def stack(self, names: Sequence[str]) -> FloatArray:
        """Positions of the named joints, (F, len(names), 3)."""
        return np.stack([self.points[name] for name in names], axis=1)


def make_identity(seed: int, key: int, clothing_key: int | None = None) -> Identity:
    """Draw the person `key` of the world `seed`.

    Parameters
    ----------
    seed
        The world; people of different seeds are unrelated.
    key
        The person.
    clothing_key
        Whose clothes, hair and skin the person has; the person's own by default.
    """
    clothing_key = key if clothing_key is None else clothing_key
    return Identity(
        key=key,
        clothing_key=clothing_key,
        body_key=key,
        posture_key=key,
        swings_key=key,
        cadence_key=key,
        body=draw_body(np.random.default_rng([seed, _BODY, key]).uniform),
        gait=_draw_gait(np.random.default_rng([seed, _GAIT, key])),
        clothing=draw_clothing(seed, clothing_key),
    )


def draw_body(uniform: Uniform) -> Body:
    """Draw a body, number by number."""

    def factor(spread: float) -> float:
        return float(uniform(1 - spread, 1 + spread))

    height = uniform(1.52, 1.92)
    leg_share = factor(0.09)
    legs = 0.515 * height * leg_share
    torso = 0.285 * height * (1 - 1.4 * (leg_share - 1)) * factor(0.03)
    ankle_height = 0.045 * height
    thigh_share = uniform(0.47, 0.535)
    arms = 0.335 * height * factor(0.09)
    upper_share = uniform(0.51, 0.575)
    return Body(
        thigh=(legs - ankle_height) * thigh_share,
        shin=(legs - ankle_height) * (1 - thigh_share),
        ankle_height=ankle_height,
        foot=0.135 * height * factor(0.08),
        torso=torso,
        neck=0.048 * height * factor(0.25),
        head=0.138 * height * factor(0.15),
        shoulder=0.108 * height * factor(0.22),
        hip=0.052 * height * factor(0.18),
        upper_arm=arms * upper_share,
        forearm=arms * (1 - upper_share),
        hand=0.09 * height,
        trunk_girth=factor(0.38),
        belly=float(uniform(0.0, 1.2) ** 1.5),
        pelvis_girth=factor(0.25),
        arm_girth=factor(0.38),
        leg_girth=factor(0.38),
    )


def _draw_gait(rng: np.random.Generator) -> Gait:
    def degrees(low: float, high: float) -> float:
        return float(np.deg2rad(rng.uniform(low, high)))

    return Gait(
        cadence=float(rng.uniform(1.5, 2.25)),
        stride=float(rng.uniform(0.65, 1.25)),
        knee_lift=float(rng.uniform(0.8, 1.25)),
        arm_swing=degrees(5, 36),
        arm_asymmetry=float(rng.uniform(-0.5, 0.5)),
        elbow=degrees(4, 60),
        elbow_swing=degrees(4, 28),
        arm_spread=degrees(2, 16),
        lean=degrees(-3, 12),
        hunch=degrees(0, 16),
        head_pitch=degrees(-6, 20),
        sway=float(rng.uniform(0.0, 0.045)),
        pelvis_turn=degrees(1, 9),
        pelvis_drop=degrees(0.5, 6),
        shoulder_turn=degrees(1, 11),
        step_width=degrees(-1, 5),
        toe_out=degrees(-4, 20),
        leg_asymmetry=float(rng.uniform(-0.15, 0.15)),
    )


_FABRICS: tuple[Colour, ...] = (
    (0.09, 0.09, 0.10), (0.20, 0.20, 0.22), (0.42, 0.43, 0.45), (0.68, 0.68, 0.68), (0.92, 0.92, 0.90),
    (0.10, 0.14, 0.30), (0.16, 0.28, 0.55), (0.40, 0.58, 0.80), (0.60, 0.10, 0.12), (0.82, 0.20, 0.18),
    (0.88, 0.48, 0.15), (0.90, 0.78, 0.25), (0.16, 0.36, 0.20), (0.45, 0.62, 0.30), (0.35, 0.38, 0.25),
    (0.42, 0.28, 0.18), (0.72, 0.60, 0.45), (0.45, 0.20, 0.45), (0.88, 0.60, 0.68), (0.18, 0.55, 0.58),
)  # fmt: skip
_TROUSERS: tuple[Colour, ...] = (
    (0.09, 0.09, 0.10), (0.22, 0.22, 0.24), (0.45, 0.45, 0.46), (0.12, 0.16, 0.28), (0.22, 0.32, 0.50),
    (0.45, 0.55, 0.68), (0.62, 0.54, 0.42), (0.38, 0.30, 0.22), (0.30, 0.34, 0.24), (0.85, 0.84, 0.80),
    (0.45, 0.12, 0.16),
)  # fmt: skip
_SKINS: tuple[Colour, ...] = (
    (0.93, 0.76, 0.66), (0.87, 0.68, 0.55), (0.76, 0.56, 0.42), (0.58, 0.40, 0.28), (0.38, 0.25, 0.17),
)  # fmt: skip
_HAIRS: tuple[Colour, ...] = (
    (0.06, 0.05, 0.05), (0.15, 0.10, 0.07), (0.30, 0.19, 0.11), (0.62, 0.46, 0.26), (0.45, 0.18, 0.10),
    (0.62, 0.62, 0.62),
)  # fmt: skip
_SHOES: tuple[Colour, ...] = (
    (0.07, 0.07, 0.07), (0.90, 0.90, 0.88), (0.35, 0.22, 0.14), (0.65, 0.15, 0.15), (0.20, 0.25, 0.45),
    (0.5, 0.5, 0.5),
)  # fmt: skip


def draw_clothing(seed: int, key: int) -> Clothing:
    """Draw the clothing `key` of the world `seed`."""
    rng = np.random.default_rng([seed, _CLOTHING, key])

    def colour(palette: Sequence[Colour], spread: float = 0.04) -> Colour:
        drawn = np.array(palette[int(rng.integers(len(palette)))]) + rng.uniform(-spread, spread, 3)
        red, green, blue = np.clip(drawn, 0.04, 0.96)
        return float(red), float(green), float(blue)

    garment = str(rng.choice(["trousers", "skirt", "coat"], p=[0.72, 0.14, 0.14]))
    leg = float(rng.choice([1.98, 1.5, 0.85], p=[0.7, 0.08, 0.22]))
    if garment == "skirt":
        leg = 0.0
    return Clothing(
        skin=colour(_SKINS, 0.02),
        hair=colour(_HAIRS, 0.03),
        top=colour(_FABRICS),
        second=colour(_FABRICS),
        bottom=colour(_FABRICS if garment == "skirt" else _TROUSERS),
        shoes=colour(_SHOES),
        bag=colour(_FABRICS),
        pattern=str(rng.choice(["plain", "stripes", "band", "block", "print"], p=[0.4, 0.17, 0.13, 0.14, 0.16])),
        garment=garment,
        sleeve=1.95 if garment == "coat" else float(rng.choice([0.15, 0.6, 1.2, 1.95], p=[0.1, 0.4, 0.1, 0.4])),
        leg=leg,
        hem=float(rng.uniform(0.35, 1.05)) if garment != "trousers" else float(rng.uniform(-0.12, 0.14)),
        hair_length=float(rng.choice([0.0, 0.25, 0.6, 1.0], p=[0.06, 0.5, 0.2, 0.24])),
        backpack=bool(rng.random() < 0.2),
        looseness=float(rng.uniform(1.0, 1.2)),
        texture=int(rng.integers(2**31)),
    )


# Degrees at 0, 10, ... 100 % of the cycle that starts at the same side's heel strike.
_HIP = CubicSpline(np.linspace(0, 1, 11), [30, 25, 16, 6, -4, -10, -6, 11, 26, 32, 30], bc_type="periodic")
_KNEE = CubicSpline(np.linspace(0, 1, 11), [5, 15, 15, 9, 6, 13, 37, 60, 54, 22, 5], bc_type="periodic")
_FOOT = CubicSpline(np.linspace(0, 1, 11), [0, -5, 2, 6, 9, 4, -16, -8, 0, 2, 0], bc_type="periodic")
_MEAN_HIP, _MEAN_KNEE = (float(np.deg2rad(curve.integrate(0, 1))) for curve in (_HIP, _KNEE))


def _rotation(axis: int, angle: FloatArray | float) -> FloatArray:
    """Rotations about one axis, (..., 3, 3)."""
    angle = np.asarray(angle, dtype=np.float64)
    first, second = [(1, 2), (2, 0), (0, 1)][axis]
    out = np.zeros((*angle.shape, 3, 3))
    out[..., axis, axis] = 1.0
    out[..., first, first] = out[..., second, second] = np.cos(angle)
    out[..., first, second] = -np.sin(angle)
    out[..., second, first] = np.sin(angle)
    return out


def _pointing(angle: FloatArray | float) -> FloatArray:
    """Return unit vectors hanging down, swung forward by `angle`, (..., 3)."""
    angle = np.asarray(angle, dtype=np.float64)
    return np.stack([np.sin(angle), np.zeros_like(angle), -np.cos(angle)], axis=-1)


def walk(body: Body, gait: Gait, phase: FloatArray) -> Pose:
    """Place the joints of a walking body.

    Parameters
    ----------
    body, gait
        The person.
    phase
        (F,) position in the walking cycle, in cycles (1 = two steps); 0 is the right heel strike.

    Returns
    -------
    Pose
        Joints in body axes; the lower foot stands on the ground, z = 0. Bones keep their length.
    """
    phase = np.asarray(phase, dtype=np.float64)
    turn, arms = 2 * np.pi * phase, 2 * np.pi * (phase - gait.arm_lag)
    still = np.zeros_like(phase)
    across = np.array([0.0, 1.0, 0.0])

    pelvis_frame = _rotation(2, gait.pelvis_turn * np.cos(turn)) @ _rotation(0, gait.pelvis_drop * np.sin(turn))
    lean = gait.lean + np.deg2rad(1.5) * np.cos(2 * turn)
    spine_frame = _rotation(2, still) @ _rotation(1, lean)
    thorax_frame = (
        _rotation(2, -gait.shoulder_turn * np.cos(arms))
        @ _rotation(1, lean + gait.hunch)
        @ _rotation(0, -0.4 * gait.pelvis_drop * np.sin(turn))
    )
    head_frame = _rotation(2, -0.2 * gait.shoulder_turn * np.cos(arms)) @ _rotation(1, still + gait.head_pitch)
    neck_frame = _rotation(1, 0.5 * (lean + gait.hunch) + 0.25 + 0.3 * gait.head_pitch)

    points: dict[str, FloatArray] = {"pelvis": np.stack([still, gait.sway * np.sin(turn), still], axis=-1)}
    for name, side, cycle in (("right", RIGHT, phase), ("left", LEFT, phase + 0.5 - gait.step_lag)):
        hip, knee, foot = _leg_angles(gait, side, cycle)
        leg_frame = pelvis_frame @ _rotation(2, side * gait.toe_out) @ _rotation(0, side * gait.step_width)
        points[f"{name}_hip"] = points["pelvis"] + side * body.hip * (pelvis_frame @ across)
        points[f"{name}_knee"] = points[f"{name}_hip"] + body.thigh * _apply(leg_frame, _pointing(hip))
        points[f"{name}_ankle"] = points[f"{name}_knee"] + body.shin * _apply(leg_frame, _pointing(hip - knee))
        sole = np.stack([np.cos(foot), still, np.sin(foot)], axis=-1)
        below = np.stack([np.sin(foot), still, -np.cos(foot)], axis=-1)
        heel = points[f"{name}_ankle"] + _apply(leg_frame, body.ankle_height * below - 0.25 * body.foot * sole)
        points[f"{name}_heel"] = heel
        points[f"{name}_toe"] = heel + body.foot * _apply(leg_frame, sole)

    points["spine"] = points["pelvis"] + 0.5 * body.torso * spine_frame[..., 2]
    points["thorax"] = points["spine"] + 0.5 * body.torso * _rotation(1, lean + gait.hunch)[..., 2]
    points["neck"] = points["thorax"] + body.neck * neck_frame[..., 2]
    points["head"] = points["neck"] + body.head * head_frame[..., 2]
    for name, side, cycle in (("right", RIGHT, arms), ("left", LEFT, arms + np.pi)):
        upper, bend = _arm_angles(gait, side, cycle)
        arm_frame = _rotation(2, -0.7 * gait.shoulder_turn * np.cos(arms)) @ _rotation(0, side * gait.arm_spread)
        # A bent forearm comes across the body a little, as elbows do.
        lower = _apply(_rotation(2, still - side * 0.35), _pointing(bend))
        lower = _apply(_rotation(1, -upper), lower)
        points[f"{name}_shoulder"] = points["thorax"] + side * body.shoulder * (thorax_frame @ across)
        points[f"{name}_elbow"] = points[f"{name}_shoulder"] + body.upper_arm * _apply(arm_frame, _pointing(upper))
        points[f"{name}_wrist"] = points[f"{name}_elbow"] + body.forearm * _apply(arm_frame, lower)
        points[f"{name}_hand"] = points[f"{name}_wrist"] + body.hand * _apply(arm_frame, lower)

    for name, place in _FACE.items():
        points[name] = points["neck"] + body.head * (head_frame @ np.array(place))
    ground = np.min([points[f"{side}_{part}"][:, 2] for side in ("left", "right") for part in ("heel", "toe")], axis=0)
    lift = np.stack([still, still, -ground], axis=-1)
    points = {name: place + lift for name, place in points.items()}
    return Pose(points, {"pelvis": pelvis_frame, "thorax": thorax_frame, "head": head_frame})


def _leg_angles(gait: Gait, side: float, cycle: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return flexion of hip and knee, and the foot's pitch, at places in the cycle of that side's leg."""
    amplitude = gait.stride * (1 + side * gait.leg_asymmetry)
    hip, knee, foot = (np.deg2rad(curve(cycle % 1.0)) for curve in (_HIP, _KNEE, _FOOT))
    rest_hip, rest_knee = (_MEAN_HIP, _MEAN_KNEE) if gait.level else (0.0, 0.0)
    hip = rest_hip + (hip - rest_hip) * amplitude
    knee = rest_knee + (knee - rest_knee) * gait.knee_lift * (0.45 + 0.55 * amplitude)
    hip, knee = hip + gait.hip_flexion, knee + gait.knee_flexion
    return hip, knee, hip - knee + foot * amplitude


def _arm_angles(gait: Gait, side: float, cycle: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return how far the upper arm is forward and the elbow bent; `cycle` in radians, 0 where that arm is behind."""
    upper = np.deg2rad(4) + gait.arm_flexion - gait.arm_swing * (1 + side * gait.arm_asymmetry) * np.cos(cycle)
    if gait.level:
        return upper, gait.elbow - gait.elbow_swing * np.cos(cycle) / 2
    return upper, gait.elbow * (1 - 0.3 * side * gait.arm_asymmetry) + gait.elbow_swing * (1 - np.cos(cycle)) / 2


# Forward, left, up from the top of the neck, in head lengths (the head is 1 high, about .75 deep and .62 wide).
_FACE: dict[str, tuple[float, float, float]] = {
    "nose": (0.47, 0.0, 0.36),
    "left_eye": (0.40, 0.14, 0.50),
    "right_eye": (0.40, -0.14, 0.50),
    "left_ear": (0.05, 0.35, 0.42),
    "right_ear": (0.05, -0.35, 0.42),
}


def _apply(rotation: FloatArray, vectors: FloatArray) -> FloatArray:
    return np.einsum("...ij,...j->...i", rotation, vectors)


def walking_speed(body: Body, gait: Gait) -> float:
    """Forward speed that goes with the steps, in metres a second (so that the standing foot hardly slides)."""
    reach = np.deg2rad(_HIP(0.02) - _HIP(0.52)) * gait.stride
    step = 2 * (body.thigh + body.shin) * np.sin(reach / 2) * 0.95
    return float(step * gait.cadence)
