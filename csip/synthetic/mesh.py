"""A dressed body as a mesh of tubes, and the painter that draws it.

Every part (limb, trunk, head, foot, skirt, bag) is a tube: rings of elliptic cross-section along an axis. The tubes
of all frames are built at once; one frame is then drawn by filling its front faces from the farthest to the nearest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from csip.synthetic.body import Body, Clothing, FloatArray, Pose

Paint = Callable[[FloatArray, FloatArray], FloatArray]

_FRACTION_BITS = 4  # cv2 takes polygon corners as fixed-point numbers


@dataclass(frozen=True)
class Mesh:
    """Quadrilaterals over F frames.

    Attributes
    ----------
    vertices
        (F, V, 3), in the axes of the pose that it was built from, metres.
    quads
        (Q, 4) indices of vertices.
    inside
        (F, Q, 3) a point behind each quad, so that its outward side is known.
    over
        (Q,) metres by which a quad counts as nearer than it is: garments lie over what they cover.
    albedo
        (Q, 3) RGB in [0, 1].
    """

    vertices: FloatArray
    quads: NDArray[np.int64]
    inside: FloatArray
    over: FloatArray
    albedo: FloatArray


@dataclass(frozen=True)
class _Tube:
    centres: FloatArray  # (F, K, 3)
    side: FloatArray  # (F, K, 3) unit
    front: FloatArray  # (F, K, 3) unit
    half_side: FloatArray  # (F, K) or (K,)
    half_front: FloatArray
    corners: int
    albedo: FloatArray  # (K - 1, corners, 3)
    over: float = 0.0


def build_mesh(body: Body, clothing: Clothing, pose: Pose) -> Mesh:
    """Dress a posed body.

    Parameters
    ----------
    body, clothing
        The person; lookalikes share `clothing` and so every colour and fold.
    pose
        The body's joints over F frames.
    """
    folds = np.random.default_rng(clothing.texture)
    tubes = [_trunk(body, clothing, pose), _neck(body, clothing, pose), _head(body, clothing, pose)]
    for name in ("right", "left"):
        tubes += _arm(body, clothing, pose, name)
        tubes += _leg(body, clothing, pose, name)
        tubes.append(_shoe(body, clothing, pose, name))
    if clothing.hair_length >= 0.6:
        tubes.append(_long_hair(body, clothing, pose))
    if clothing.garment in ("skirt", "coat"):
        tubes.append(_skirt(body, clothing, pose))
    if clothing.backpack:
        tubes.append(_backpack(body, clothing, pose))

    vertices, quads, inside, over, albedo = [], [], [], [], []
    count = 0
    for tube in tubes:
        rings, corners = tube.centres.shape[1], tube.corners
        angle = 2 * np.pi * (np.arange(corners) + 0.5) / corners
        half_side = np.broadcast_to(tube.half_side, tube.centres.shape[:2])[..., None, None]
        half_front = np.broadcast_to(tube.half_front, tube.centres.shape[:2])[..., None, None]
        ring = (
            half_side * np.cos(angle)[:, None] * tube.side[:, :, None]
            + half_front * np.sin(angle)[:, None] * tube.front[:, :, None]
        )
        vertices.append((tube.centres[:, :, None] + ring).reshape(len(tube.centres), -1, 3))
        index = count + np.arange(rings * corners).reshape(rings, corners)
        following = np.roll(index, -1, axis=1)
        quads.append(np.stack([index[:-1], following[:-1], following[1:], index[1:]], axis=-1).reshape(-1, 4))
        middle = (tube.centres[:, :-1] + tube.centres[:, 1:]) / 2
        inside.append(np.repeat(middle, corners, axis=1))
        over.append(np.full((rings - 1) * corners, tube.over))
        wrinkles = folds.uniform(0.94, 1.04, (rings - 1, corners, 1))
        albedo.append((tube.albedo * wrinkles).reshape(-1, 3))
        count += rings * corners
    return Mesh(
        np.concatenate(vertices, axis=1),
        np.concatenate(quads),
        np.concatenate(inside, axis=1),
        np.concatenate(over),
        np.clip(np.concatenate(albedo), 0.0, 1.0),
    )


def shade(mesh: Mesh, sun: FloatArray, up: FloatArray, ambient: float) -> tuple[FloatArray, FloatArray]:
    """Light a mesh given in camera axes.

    Parameters
    ----------
    mesh
        Vertices in camera axes, the camera at the origin.
    sun, up
        (3,) unit vectors in camera axes: towards the light, and away from the ground.
    ambient
        Share of the light that comes from everywhere, in [0, 1].

    Returns
    -------
    colours
        (F, Q, 3) RGB, about [0, 1].
    facing
        (F, Q) bool, true where the quad is seen from outside.
    """
    corners = mesh.vertices[:, mesh.quads]  # (F, Q, 4, 3)
    centre = corners.mean(axis=2)
    normal = np.cross(corners[:, :, 2] - corners[:, :, 0], corners[:, :, 3] - corners[:, :, 1])
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    outward = np.sign(np.einsum("fqi,fqi->fq", normal, centre - mesh.inside))
    normal *= outward[..., None]
    facing = np.einsum("fqi,fqi->fq", normal, centre) < 0
    sky = 0.82 + 0.26 * (normal @ up)
    light = ambient * sky + (1 - ambient) * np.clip(normal @ sun, 0.0, None) * 1.1
    return mesh.albedo * light[..., None], facing


def paint_mesh(
    image: NDArray[np.uint8], corners: FloatArray, depth: FloatArray, colours: FloatArray
) -> NDArray[np.uint8]:
    """Fill quads into an image, farthest first, in place.

    Parameters
    ----------
    image
        (H, W, 3) uint8.
    corners
        (Q, 4, 2) pixels.
    depth
        (Q,) distance of each quad; larger is farther.
    colours
        (Q, 3), same channel order and range as `image`.
    """
    order = np.argsort(-depth, kind="stable")
    fixed = np.round(corners[order] * (1 << _FRACTION_BITS)).astype(np.int32)
    for polygon, colour in zip(fixed, colours[order].tolist(), strict=True):
        cv2.fillConvexPoly(image, polygon, colour, cv2.LINE_8, _FRACTION_BITS)
    return image


def _unit(vectors: FloatArray) -> FloatArray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def _cross_axes(axis: FloatArray, left: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Two unit vectors across `axis` (F, 3), the first as near to `left` as can be."""
    side = _unit(left - np.sum(left * axis, axis=-1, keepdims=True) * axis)
    return side, np.cross(side, axis)


def _limb(
    start: FloatArray,
    end: FloatArray,
    left: FloatArray,
    radii: tuple[float, float, float],
    paint: Paint,
    flat: float = 1.0,
) -> _Tube:
    """Make a tube from `start` to `end` (F, 3) with round ends; radii at the start, at 30 % and at the end."""
    along = np.concatenate([[0.0, 0.0], np.linspace(0.0, 1.0, 7), [1.0, 1.0]])
    bulge = np.array([-1.0, -0.7, 0, 0, 0, 0, 0, 0, 0, 0.7, 1.0])
    cap = np.array([0.1, 0.72, 1, 1, 1, 1, 1, 1, 1, 0.72, 0.1])
    radius = np.interp(along, [0.0, 0.3, 1.0], radii)
    length = np.linalg.norm(end - start, axis=-1, keepdims=True)[..., None]
    axis = _unit(end - start)
    side, front = _cross_axes(axis, left)
    share = along[:, None] + (bulge * radius)[:, None] / np.maximum(length, 1e-6)
    centres = start[:, None] + share * (end - start)[:, None]
    rings = len(along)
    middle = (share.mean(axis=0)[1:, 0] + share.mean(axis=0)[:-1, 0]) / 2
    corners = 10
    angle = 2 * np.pi * (np.arange(corners) + 1.0) / corners
    albedo = paint(np.repeat(middle[:, None], corners, 1), np.repeat(angle[None], rings - 1, 0))
    return _Tube(
        centres,
        np.repeat(side[:, None], rings, 1),
        np.repeat(front[:, None], rings, 1),
        cap * radius,
        cap * radius * flat,
        corners,
        albedo,
    )


def _where(
    condition: NDArray[np.bool_], first: tuple[float, ...], second: tuple[float, ...] | FloatArray
) -> FloatArray:
    return np.where(condition[..., None], np.array(first), np.asarray(second))


def _solid(colour: tuple[float, float, float]) -> Paint:
    return lambda along, angle: np.broadcast_to(np.array(colour), (*along.shape, 3))


def _top_colour(clothing: Clothing, height: FloatArray, angle: FloatArray) -> FloatArray:
    """Colour of the top at a height of the trunk (0 hips, 1 shoulders) and an angle (pi / 2 is the front)."""
    plain = np.broadcast_to(np.array(clothing.top), (*height.shape, 3))
    if clothing.pattern == "stripes":
        return _where(np.floor(height * 9) % 2 == 0, clothing.second, plain)
    if clothing.pattern == "band":
        return _where((height > 0.52) & (height < 0.78), clothing.second, plain)
    if clothing.pattern == "block":
        return _where(height > 0.62, clothing.second, plain)
    if clothing.pattern == "print":
        front = np.abs(np.mod(angle, 2 * np.pi) - np.pi / 2) < 0.62
        return _where((height > 0.45) & (height < 0.85) & front, clothing.second, plain)
    return plain


def _belly(height: FloatArray, body: Body) -> FloatArray:
    """How much a belly deepens the trunk at a height (0 hips, 1 shoulders); 1 is not at all."""
    return 1 + 0.45 * body.belly * np.exp(-(((height - 0.3) / 0.25) ** 2))


def _trunk(body: Body, clothing: Clothing, pose: Pose) -> _Tube:
    shoulder, girth, loose = body.shoulder, body.trunk_girth, clothing.looseness
    bulk = 0.085 * body.height * girth * (0.6 + 0.4 * loose)
    seat = (body.hip + 0.052 * body.height * body.leg_girth**0.5) * body.pelvis_girth
    height = np.array([-0.24, -0.18, -0.08, 0.05, 0.2, 0.38, 0.55, 0.72, 0.86, 0.97, 1.05, 1.12, 1.2])
    width = np.array([
        0.3 * seat, 0.75 * seat, seat, seat, 0.5 * (seat + bulk), 0.98 * bulk, 0.5 * bulk + 0.42 * shoulder,
        0.35 * bulk + 0.68 * shoulder, 0.25 * bulk + 0.76 * shoulder, 0.96 * shoulder, 0.84 * shoulder,
        0.52 * shoulder, 0.28 * shoulder,
    ])  # fmt: skip
    deep = 0.062 * body.height * girth * (0.6 + 0.4 * loose)
    depth = np.array([0.3, 0.7, 0.98, 1.02, 0.98, 0.95, 1.0, 1.06, 0.98, 0.78, 0.66, 0.55, 0.42])
    depth = depth * deep * _belly(height, body)
    rings = np.concatenate([np.linspace(-0.24, 1.0, 16), [1.05, 1.1, 1.15, 1.2]])
    outline: FloatArray = PchipInterpolator(height, np.stack([width, depth], axis=-1))(rings)

    pelvis, spine, thorax = (pose.points[name][:, None] for name in ("pelvis", "spine", "thorax"))
    lower = pelvis + (2 * rings)[:, None] * (spine - pelvis)
    upper = spine + (2 * rings - 1)[:, None] * (thorax - spine)
    centres: FloatArray = np.where((rings > 0.5)[:, None], upper, lower)
    # The hips hang below the pelvis whatever the trunk's lean.
    below = pelvis + (rings * body.torso)[:, None] * pose.frames["pelvis"][:, None, :, 2]
    centres = np.where((rings < 0)[:, None], below, centres)
    blend = np.clip(rings, 0, 1)[:, None]
    side = _unit((1 - blend) * pose.frames["pelvis"][:, None, :, 1] + blend * pose.frames["thorax"][:, None, :, 1])
    front = _unit((1 - blend) * pose.frames["pelvis"][:, None, :, 0] + blend * pose.frames["thorax"][:, None, :, 0])
    # Bellies stand out to the front only.
    centres = centres + (0.5 * (_belly(rings, body) - 1) * deep)[:, None] * front

    corners = 16
    middle = np.repeat(((rings[1:] + rings[:-1]) / 2)[:, None], corners, 1)
    angle = np.repeat(2 * np.pi * (np.arange(corners) + 1.0)[None] / corners, len(rings) - 1, 0)
    hem = clothing.hem if clothing.garment == "trousers" else 0.25
    albedo = _where(middle < hem, clothing.bottom, _top_colour(clothing, middle, angle))
    albedo = _where(middle > 1.14, clothing.skin, albedo)
    return _Tube(centres, side, front, outline[:, 0], outline[:, 1], corners, albedo, over=0.03)


def _neck(body: Body, clothing: Clothing, pose: Pose) -> _Tube:
    radius = 0.29 * body.head * (0.8 + 0.2 * body.arm_girth)
    end = pose.points["neck"] + 0.25 * (pose.points["head"] - pose.points["neck"])
    radii = (radius * 1.1, radius, radius)
    return _limb(pose.points["thorax"], end, pose.frames["head"][..., 1], radii, _solid(clothing.skin))


def _head(body: Body, clothing: Clothing, pose: Pose) -> _Tube:
    frame, size = pose.frames["head"], body.head
    polar = np.linspace(0.04, np.pi - 0.04, 11)
    up = 0.5 - 0.5 * np.cos(polar)  # chin to crown
    narrow = np.interp(up, [0.0, 0.3, 0.6, 1.0], [0.78, 0.92, 1.0, 1.0])
    place = np.stack([np.interp(up, [0, 1], [0.08, 0.02]), 0 * up, -0.04 + 1.06 * up], axis=-1) * size
    centres = pose.points["neck"][:, None] + np.einsum("fij,kj->fki", frame, place)
    corners = 14
    angle = 2 * np.pi * (np.arange(corners) + 1.0) / corners
    level = np.repeat(((up[1:] + up[:-1]) / 2)[:, None], corners, 1)
    forward = np.sin(angle)[None] * np.sqrt(np.clip(1 - (2 * level - 1) ** 2, 0, 1))
    reach = 0.3 * min(clothing.hair_length * 3, 1.0)
    hairy = (level > 0.62 + 0.3 * forward - reach * (forward < 0.5)) & (clothing.hair_length > 0)
    albedo = _where(hairy, clothing.hair, np.broadcast_to(np.array(clothing.skin), (*level.shape, 3)))
    # Eyes and mouth: dark enough to show which way the face looks.
    front = np.abs(np.mod(angle, 2 * np.pi) - np.pi / 2)[None]
    eyes = (front > 0.2) & (front < 0.8) & (level > 0.46) & (level < 0.6)
    mouth = (front < 0.4) & (level > 0.14) & (level < 0.24)
    albedo = np.where((eyes | mouth)[..., None], albedo * 0.55, albedo)
    return _Tube(
        centres,
        np.repeat(frame[:, None, :, 1], len(up), 1),
        np.repeat(frame[:, None, :, 0], len(up), 1),
        0.37 * size * np.sin(polar) * narrow,
        0.44 * size * np.sin(polar) * narrow,
        corners,
        albedo,
    )


def _long_hair(body: Body, clothing: Clothing, pose: Pose) -> _Tube:
    frame, size = pose.frames["head"], body.head
    top = pose.points["neck"] + _apply(frame, np.array([-0.2, 0, 0.6]) * size)
    drop = 0.2 + 1.1 * clothing.hair_length
    tip = pose.points["neck"] + _apply(pose.frames["thorax"], np.array([-0.34, 0, 0.5 - drop]) * size)
    return _limb(top, tip, frame[..., 1], (0.3 * size, 0.32 * size, 0.24 * size), _solid(clothing.hair), flat=0.5)


def _arm(body: Body, clothing: Clothing, pose: Pose, name: str) -> list[_Tube]:
    left = pose.frames["thorax"][..., 1]
    thick = 0.0275 * body.height * body.arm_girth
    cloth = 0.35 + 0.65 * clothing.looseness

    def sleeve(start: float) -> Paint:
        def paint(along: FloatArray, angle: FloatArray) -> FloatArray:
            fabric = _top_colour(clothing, 0.9 - 0.65 * (along + start) * body.upper_arm / body.torso, 0 * angle)
            if clothing.pattern in ("block", "print"):
                fabric = np.broadcast_to(np.array(clothing.top), fabric.shape)
            return np.where((along + start < clothing.sleeve)[..., None], fabric, np.array(clothing.skin))

        return paint

    shoulder, elbow, wrist, hand = (pose.points[f"{name}_{part}"] for part in ("shoulder", "elbow", "wrist", "hand"))
    upper = thick * (cloth if clothing.sleeve > 0.5 else 1.0)
    lower = thick * (cloth if clothing.sleeve > 1.5 else 1.0)
    palm = (0.0135 * body.height, 0.021 * body.height, 0.012 * body.height)
    return [
        _limb(shoulder, elbow, left, (upper * 1.1, upper * 1.12, upper * 0.86), sleeve(0.0)),
        _limb(elbow, wrist, left, (lower * 0.86, lower * 0.84, lower * 0.58), sleeve(1.0)),
        _limb(wrist, hand, left, palm, _solid(clothing.skin)),
    ]


def _leg(body: Body, clothing: Clothing, pose: Pose, name: str) -> list[_Tube]:
    left = pose.frames["pelvis"][..., 1]
    thick = 0.046 * body.height * body.leg_girth
    cloth = 0.2 + 0.8 * clothing.looseness

    def trousers(start: float) -> Paint:
        return lambda along, angle: _where(
            along + start < clothing.leg, clothing.bottom, np.broadcast_to(np.array(clothing.skin), (*along.shape, 3))
        )

    hip, knee, ankle = (pose.points[f"{name}_{part}"] for part in ("hip", "knee", "ankle"))
    upper = thick * (cloth if clothing.leg > 0.7 else 1.0)
    lower = thick * (cloth if clothing.leg > 1.3 else 1.0)
    wide = 0.72 if clothing.leg > 1.9 else 0.5
    return [
        _limb(hip, knee, left, (upper * 1.02, upper * 1.18, upper * 0.82), trousers(0.0)),
        _limb(knee, ankle, left, (lower * 0.80, lower * 0.84, lower * wide), trousers(1.0)),
    ]


def _shoe(body: Body, clothing: Clothing, pose: Pose, name: str) -> _Tube:
    heel, toe, ankle = (pose.points[f"{name}_{part}"] for part in ("heel", "toe", "ankle"))
    radius = 0.021 * body.height
    sole = _unit(toe - heel)
    rise = radius * _unit(ankle - heel - np.sum((ankle - heel) * sole, axis=-1, keepdims=True) * sole)
    radii = (radius * 1.05, radius * 1.15, radius * 0.95)
    left = pose.frames["pelvis"][..., 1]
    return _limb(heel + rise, toe + 0.8 * rise, left, radii, _solid(clothing.shoes), flat=0.95)


def _skirt(body: Body, clothing: Clothing, pose: Pose) -> _Tube:
    """Make a skirt, or the lower part of a coat: from the waist around both legs."""
    frame = pose.frames["pelvis"]
    axis_points = []
    spread = []
    for share in (0.3, 0.7, 1.0):
        along = share * clothing.hem
        legs = []
        for name in ("right", "left"):
            hip, knee, ankle = (pose.points[f"{name}_{part}"] for part in ("hip", "knee", "ankle"))
            legs.append(hip + along * (knee - hip) if along <= 1 else knee + (along - 1) * (ankle - knee))
        axis_points.append((legs[0] + legs[1]) / 2)
        spread.append(np.einsum("fi,fij->fj", legs[0] - legs[1], frame)[:, :2])
    bulk = (body.hip + 0.052 * body.height * body.leg_girth**0.5) * body.pelvis_girth
    thigh = 0.064 * body.height * body.leg_girth
    waist = pose.points["pelvis"] + 0.3 * body.torso * frame[..., 2]
    hips = pose.points["pelvis"] - 0.05 * body.torso * frame[..., 2]
    centres = np.stack([waist, (waist + hips) / 2, hips, *axis_points], axis=1)
    ones = np.ones(len(waist))
    half_side = [0.92 * bulk * ones, 1.03 * bulk * ones, 1.08 * bulk * ones]
    half_front = [0.068 * body.height * body.trunk_girth * ones, 0.07 * body.height * body.trunk_girth * ones]
    half_front.append(np.maximum(half_front[-1], thigh * 1.15))
    for share, gap in zip((0.3, 0.7, 1.0), spread, strict=True):
        flare = 1.06 + 0.14 * share * clothing.looseness
        half_side.append(np.maximum(bulk * flare, np.abs(gap[:, 1]) / 2 + thigh * 1.02))
        half_front.append(np.maximum(thigh * 1.2 * flare, np.abs(gap[:, 0]) / 2 + thigh * 1.0))
    corners = 16
    colour = clothing.bottom if clothing.garment == "skirt" else clothing.top
    rings = centres.shape[1]
    return _Tube(
        centres,
        np.repeat(frame[:, None, :, 1], rings, 1),
        np.repeat(frame[:, None, :, 0], rings, 1),
        np.stack(half_side, axis=1),
        np.stack(half_front, axis=1),
        corners,
        np.broadcast_to(np.array(colour), (rings - 1, corners, 3)),
        over=0.05,
    )


def _backpack(body: Body, clothing: Clothing, pose: Pose) -> _Tube:
    frame = pose.frames["thorax"]
    back = -0.062 * body.height * body.trunk_girth - 0.05
    top = pose.points["thorax"] + _apply(frame, np.array([back, 0, -0.06]))
    bottom = pose.points["thorax"] + _apply(frame, np.array([back, 0, -0.33]))
    return _limb(top, bottom, frame[..., 1], (0.10, 0.125, 0.12), _solid(clothing.bag), flat=0.7)


def _apply(rotation: FloatArray, vector: FloatArray) -> FloatArray:
    return np.einsum("fij,j->fi", rotation, vector)
