"""One walk of one rendered person past one camera: crops, joints, boxes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from csip.synthetic.body import (
    COCO_NAMES,
    H36M_NAMES,
    FloatArray,
    Gait,
    Identity,
    Pose,
    make_identity,
    walk,
    walking_speed,
)
from csip.synthetic.camera import Camera, cut_background, make_camera
from csip.synthetic.mesh import Mesh, build_mesh, paint_mesh, shade

_WALK = 21
_SUPERSAMPLING = 2


@dataclass(frozen=True)
class RenderedTracklet:
    """One walk past one camera.

    Attributes
    ----------
    key, camera
        The person and the number of the camera.
    crops
        (F, H, W, 3) uint8, RGB; (0, H, W, 3) where they were left out.
    joints3d
        (F, 17, 3) Human3.6M joints, metres, camera axes (x right, y down, z forward), from the camera.
    coco, h36m
        (F, 17, 2) the joints in crop pixels; (0, 0) is the centre of the first pixel.
    intrinsics
        (F, 3, 3) camera axes to crop pixels, one matrix a frame since each frame has its own box.
    boxes
        (F, 4) x0, y0, x1, y1 in the camera's picture.
    """

    key: int
    camera: int
    crops: NDArray[np.uint8]
    joints3d: NDArray[np.float32]
    coco: NDArray[np.float32]
    h36m: NDArray[np.float32]
    intrinsics: NDArray[np.float64]
    boxes: NDArray[np.float32]

    def without_crops(self) -> RenderedTracklet:
        """Return the joints alone, which are cheap to send between processes."""
        return replace(self, crops=self.crops[:0])


@dataclass(frozen=True)
class Outing:
    """One walk: how the person walks this time, and along which path.

    Attributes
    ----------
    gait
        The person's gait as it is this time.
    phase
        (F,) position in the walking cycle, see `csip.synthetic.body.walk`.
    heading
        (F,) radians in the world's x, y.
    place
        (F, 2) position on the ground, metres.
    """

    gait: Gait
    phase: FloatArray
    heading: FloatArray
    place: FloatArray

    def to_world(self, points: FloatArray) -> FloatArray:
        """Points (F, ..., 3) in body axes, in the world's axes."""
        shape = (-1, *[1] * (points.ndim - 2))
        cos, sin = np.cos(self.heading).reshape(shape), np.sin(self.heading).reshape(shape)
        x = cos * points[..., 0] - sin * points[..., 1] + self.place[:, 0].reshape(shape)
        y = sin * points[..., 0] + cos * points[..., 1] + self.place[:, 1].reshape(shape)
        return np.stack([x, y, points[..., 2]], axis=-1)


def frame_times(frames: int, fps: float) -> FloatArray:
    """Return seconds of each frame, (frames,), about the middle of the walk."""
    return (np.arange(frames) - (frames - 1) / 2) / fps


def draw_outing(identity: Identity, camera: Camera, rng: np.random.Generator, times: FloatArray) -> Outing:
    """Draw how and where a person walks past a camera, at `times` (F,) in seconds."""
    gait = this_time(identity.gait, rng)
    phase = rng.random() + 0.5 * gait.cadence * times
    heading, place = _path(camera, walking_speed(identity.body, gait) * times, rng)
    return Outing(gait, phase, heading, place)


@dataclass(frozen=True)
class CropOptions:
    """How the crops of a walk are made.

    Attributes
    ----------
    height, width, occlusion
        As in `csip.synthetic.world.SyntheticSpec`.
    badly_cut
        Shift and scale the boxes so that they miss much of the person.
    paint
        False leaves the crops out, which is much faster where only joints are wanted.
    """

    height: int = 128
    width: int = 64
    occlusion: float = 0.06
    badly_cut: bool = False
    paint: bool = True


def render_tracklet(
    identity: Identity,
    camera: Camera,
    outing: Outing,
    rng: np.random.Generator,
    options: CropOptions,
    camera_number: int = 1,
) -> RenderedTracklet:
    """Render one walk.

    Parameters
    ----------
    identity, camera, outing
        Who walks, what sees it, and how and where it goes this time.
    rng
        Everything else that differs between two tracklets: boxes, noise, what stands in front.
    options
        How crops are made.
    camera_number
        Only copied into the result.
    """
    height, width = options.height, options.width
    cv2.setNumThreads(1)  # workers share the processors already, and small pictures gain nothing by threads
    pose = walk(identity.body, outing.gait, outing.phase)
    mesh = build_mesh(identity.body, identity.clothing, pose)

    def to_camera(points: FloatArray) -> FloatArray:
        return camera.to_camera(outing.to_world(points))

    mesh = replace(mesh, vertices=to_camera(mesh.vertices), inside=to_camera(mesh.inside))
    image = camera.project(mesh.vertices)
    boxes = _boxes(image, width / height, rng, options.badly_cut)
    intrinsics = np.stack([_box_to_crop(box, width, height) @ camera.matrix for box in boxes])
    if options.paint:
        hidden_by = _occluder(image, rng) if rng.random() < options.occlusion else None
        shadow = camera.project(to_camera(shadow_outline(pose)))
        crops = _paint(camera, mesh, image, shadow, hidden_by, boxes, width, height)
        noise = rng.normal(scale=camera.noise, size=(len(crops), height, width, 1))
        noise = noise + rng.normal(scale=0.4 * camera.noise, size=(len(crops), height, width, 3))
        crops = np.clip(crops + noise, 0, 255).astype(np.uint8)
    else:
        crops = np.empty((0, height, width, 3), dtype=np.uint8)

    joints3d = to_camera(pose.stack(H36M_NAMES))
    return RenderedTracklet(
        key=identity.key,
        camera=camera_number,
        crops=crops,
        joints3d=joints3d.astype(np.float32),
        coco=project_to_crop(to_camera(pose.stack(COCO_NAMES)), intrinsics).astype(np.float32),
        h36m=project_to_crop(joints3d, intrinsics).astype(np.float32),
        intrinsics=intrinsics,
        boxes=boxes.astype(np.float32),
    )


def _paint(
    camera: Camera,
    mesh: Mesh,
    image: FloatArray,
    shadow: FloatArray,
    hidden_by: tuple[FloatArray, FloatArray] | None,
    boxes: FloatArray,
    width: int,
    height: int,
) -> NDArray[np.uint8]:
    """Draw what the boxes (F, 4) show of a mesh in camera axes, whose vertices lie at `image` in the picture."""
    up = camera.rotation @ np.array([0.0, 0.0, 1.0])
    colours, facing = shade(mesh, camera.rotation @ np.array(camera.sun), up, camera.ambient)
    colours = np.clip(colours * np.array(camera.tint) * camera.gain * 255, 0, 255)
    corners = image[:, mesh.quads]
    depth = np.linalg.norm(mesh.vertices, axis=-1)[:, mesh.quads].mean(axis=-1) - mesh.over
    crops = np.empty((len(boxes), height, width, 3), dtype=np.uint8)
    wide, tall = _SUPERSAMPLING * width, _SUPERSAMPLING * height
    for frame, box in enumerate(boxes):
        fine = _box_to_crop(box, wide, tall)
        canvas = cut_background(camera, box, wide, tall)
        _darken(canvas, _warp(fine, shadow[frame]), 0.5 * (1 - camera.ambient))
        seen = facing[frame]
        paint_mesh(canvas, _warp(fine, corners[frame, seen]), depth[frame, seen], colours[frame, seen])
        if hidden_by is not None:
            paint_mesh(canvas, _warp(fine, hidden_by[0])[None], np.zeros(1), hidden_by[1][None] * camera.gain)
        crop = cv2.resize(canvas, (width, height), interpolation=cv2.INTER_AREA)
        if camera.blur > 0.15:
            crop = cv2.GaussianBlur(crop, (0, 0), camera.blur * height / 128)
        crops[frame] = crop
    return crops


def render_walk(
    seed: int,
    key: int,
    camera: int,
    walk_number: int = 0,
    *,
    clothing_key: int | None = None,
    frames: int = 16,
    fps: float = 12.0,
    **options: Any,
) -> RenderedTracklet:
    """Render walk `walk_number` of person `key` past camera `camera` in the world `seed`.

    Parameters
    ----------
    seed, key, camera, walk_number
        They decide everything; the same numbers give the same pixels in every process.
    clothing_key
        Whose clothes the person wears; the person's own by default.
    frames, fps
        As in `csip.synthetic.world.SyntheticSpec`.
    **options
        Of `CropOptions`.
    """
    rng = walk_generator(seed, key, camera, walk_number)
    identity, seen_by = make_identity(seed, key, clothing_key), make_camera(seed, camera)
    outing = draw_outing(identity, seen_by, rng, frame_times(frames, fps))
    return render_tracklet(identity, seen_by, outing, rng, CropOptions(**options), camera)


def walk_generator(seed: int, key: int, camera: int, walk_number: int) -> np.random.Generator:
    """Return the random numbers of one walk of one person past one camera."""
    return np.random.default_rng([seed, _WALK, key, camera, walk_number])


def project_to_crop(points: FloatArray, intrinsics: FloatArray) -> FloatArray:
    """Crop pixels (F, J, 2) of points (F, J, 3) in camera axes, by the frames' (F, 3, 3) matrices."""
    image = np.einsum("fij,fkj->fki", intrinsics, points)
    return image[..., :2] / image[..., 2:]


def this_time(gait: Gait, rng: np.random.Generator) -> Gait:
    """Nobody walks twice quite the same."""
    return replace(
        gait,
        cadence=gait.cadence * rng.normal(1, 0.03),
        stride=gait.stride * rng.normal(1, 0.04),
        arm_swing=gait.arm_swing * rng.normal(1, 0.1),
        elbow=gait.elbow + np.deg2rad(rng.normal(0, 3)),
        lean=gait.lean + np.deg2rad(rng.normal(0, 1)),
        head_pitch=gait.head_pitch + np.deg2rad(rng.normal(0, 4)),
    )


def _path(camera: Camera, run: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Heading (F,) and ground position (F, 2) of somebody who has walked `run` metres (F,)."""
    direction = camera.heading + np.pi * rng.integers(2) + np.deg2rad(rng.normal(0, 18))
    middle = np.array([rng.uniform(-2, 2), camera.distance + rng.uniform(-1, 1)])
    bend = rng.normal(0, 0.06)
    if run[-1] - run[0] > 6:
        bend = 0.4 * rng.choice([-1, 1])  # long walks go in a circle, so as to stay in view
    heading = direction + bend * run
    steps = np.gradient(run)[:, None] if len(run) > 1 else np.zeros((1, 1))
    place = np.cumsum(steps * np.stack([np.cos(heading), np.sin(heading)], axis=-1), axis=0)
    return heading, place - place.mean(axis=0) + middle


def _boxes(image: FloatArray, aspect: float, rng: np.random.Generator, badly_cut: bool) -> FloatArray:
    """Draw a detector's boxes (F, 4) around the projected bodies (F, V, 2), of one aspect, trembling a little."""
    low, high = image.min(axis=1), image.max(axis=1)
    centre, size = (low + high) / 2, high - low
    # The stride would make the box breathe; a tracker's box is wide enough for most of the steps instead.
    wide = np.quantile(size[:, 0], 0.7)
    tall = np.maximum(size[:, 1], wide / aspect) * rng.uniform(1.04, 1.14)
    frames = len(image)
    centre = centre + tall[:, None] * (rng.normal(0, 0.012, (1, 2)) + rng.normal(0, 0.008, (frames, 2)))
    tall = tall * (1 + rng.normal(0, 0.015, frames))
    if badly_cut:
        angle = rng.uniform(0, 2 * np.pi)
        away = np.array([np.cos(angle) * aspect, np.sin(angle)]) * rng.uniform(0.35, 0.6)
        centre, tall = centre + tall[:, None] * away, tall * rng.uniform(0.45, 1.5)
    half = np.stack([tall * aspect, tall], axis=-1) / 2
    return np.concatenate([centre - half, centre + half], axis=-1)


def _box_to_crop(box: FloatArray, width: int, height: int) -> FloatArray:
    """(3, 3) camera picture to crop pixels; pixel centres are whole numbers."""
    across, down = width / (box[2] - box[0]), height / (box[3] - box[1])
    return np.array([[across, 0, -box[0] * across - 0.5], [0, down, -box[1] * down - 0.5], [0, 0, 1]])


def _warp(transform: FloatArray, points: FloatArray) -> FloatArray:
    return points * np.diag(transform)[:2] + transform[:2, 2]


def _occluder(image: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Put something before the walker, a post or a low thing: corners (4, 2) in the picture, and a colour."""
    frame = image[rng.integers(len(image))]
    (left, top), (right, bottom) = frame.min(axis=0), frame.max(axis=0)
    tall = bottom - top
    if rng.random() < 0.5:
        x0 = rng.uniform(left, right)
        x1, y0 = x0 + tall * rng.uniform(0.05, 0.16), top - 2 * tall
    else:
        x0, x1, y0 = left - 2 * tall, right + 2 * tall, bottom - tall * rng.uniform(0.12, 0.35)
        if rng.random() < 0.6:
            x0 = (left + right) / 2
    y1 = bottom + tall
    colour = rng.uniform(30, 190) * (1 + rng.uniform(-0.25, 0.25, 3))
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]]), colour


def shadow_outline(pose: Pose) -> FloatArray:
    """(F, 12, 3) outline of a soft shadow on the ground between the feet, body axes."""
    feet = (pose.points["left_ankle"] + pose.points["right_ankle"]) / 2
    gap = np.abs(pose.points["left_ankle"] - pose.points["right_ankle"])[:, :1]
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    x = feet[:, :1] + (0.22 + gap / 2) * np.cos(angle)
    y = feet[:, 1:2] + 0.22 * np.sin(angle)
    return np.stack([x, y, np.zeros_like(x)], axis=-1)


def _darken(canvas: NDArray[np.uint8], outline: FloatArray, strength: float) -> None:
    mask = np.zeros(canvas.shape[:2], dtype=np.uint8)
    cv2.fillConvexPoly(mask, np.round(outline).astype(np.int32), (255,))
    top = max(int(outline[:, 1].min()) - 8, 0)
    if top < len(canvas):
        soft = cv2.GaussianBlur(mask[top:], (0, 0), 3).astype(np.float32) * (strength / 255)
        canvas[top:] = canvas[top:] * (1 - soft[..., None])
