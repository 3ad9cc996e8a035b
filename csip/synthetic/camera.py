"""Cameras of the rendered world: position, background and colours."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray

from csip.synthetic.body import FloatArray

_CAMERA, _SCENE = 11, 12
IMAGE_WIDTH, IMAGE_HEIGHT = 1920, 1080
_SCENE_SCALE = 0.5  # the background is painted at half size: it is out of focus anyway


@dataclass(frozen=True)
class Camera:
    """A camera that looks at a stretch of ground.

    World axes: x right of the camera, y away from it, z up; the origin is on the ground below the camera.

    Attributes
    ----------
    focal
        Pixels, of a 1920 x 1080 image.
    elevation
        Radians that the camera looks down.
    distance
        Metres to the middle of the walkway.
    heading
        Radians: the walkway's direction in the world's x, y (-pi / 2 comes towards the camera).
    sun
        Unit vector towards the light, world axes.
    ambient
        Share of light from everywhere.
    tint, gain
        RGB factors and exposure of the camera.
    blur, noise
        Gaussian blur in pixels of a 128-pixel-high crop, and noise in grey levels.
    scene
        Seed of the background.
    """

    focal: float
    elevation: float
    distance: float
    heading: float
    sun: tuple[float, float, float]
    ambient: float
    tint: tuple[float, float, float]
    gain: float
    blur: float
    noise: float
    scene: int

    @property
    def matrix(self) -> FloatArray:
        """(3, 3) intrinsics."""
        return np.array([[self.focal, 0, IMAGE_WIDTH / 2], [0, self.focal, IMAGE_HEIGHT / 2], [0, 0, 1.0]])

    @property
    def rotation(self) -> FloatArray:
        """(3, 3) world axes to camera axes (x right, y down, z forward)."""
        sin, cos = np.sin(self.elevation), np.cos(self.elevation)
        return np.array([[1, 0, 0], [0, -sin, -cos], [0, cos, -sin]])

    @property
    def position(self) -> FloatArray:
        """(3,) place in the world, chosen so that the camera looks at chest height on the walkway."""
        return np.array([0.0, 0.0, 1.0 + self.distance * np.tan(self.elevation)])

    def to_camera(self, points: FloatArray) -> FloatArray:
        """World points (..., 3) in camera axes, metres."""
        return (points - self.position) @ self.rotation.T

    def project(self, points: FloatArray) -> FloatArray:
        """Image positions (..., 2), in pixels, of points (..., 3) in camera axes."""
        image = points @ self.matrix.T
        return image[..., :2] / image[..., 2:]


def make_camera(seed: int, number: int) -> Camera:
    """Draw camera `number` of the world `seed`; the walkway's directions of successive cameras differ widely."""
    rng = np.random.default_rng([seed, _CAMERA, number])
    # Golden-angle steps keep the views of a few cameras well apart.
    heading = 2 * np.pi * ((0.61803 * number + np.random.default_rng([seed, _CAMERA]).random()) % 1.0)
    height = rng.uniform(0.35, 1.1)
    turn = rng.uniform(0, 2 * np.pi)
    sun = np.array([np.cos(turn) * np.cos(height), np.sin(turn) * np.cos(height) - 0.5, np.sin(height)])
    warm = rng.uniform(-1, 1)
    tint = np.array([1 + 0.09 * warm, 1.0, 1 - 0.09 * warm]) * rng.uniform(0.97, 1.03, 3)
    elevation = np.deg2rad(rng.uniform(2, 22))
    return Camera(
        focal=float(rng.uniform(1100, 2200)),
        elevation=float(elevation),
        distance=float(rng.uniform(7.0, 13.0)),
        heading=float(heading),
        sun=tuple(float(x) for x in sun / np.linalg.norm(sun)),  # type: ignore[arg-type]
        ambient=float(rng.uniform(0.5, 0.85)),
        tint=tuple(float(x) for x in tint),  # type: ignore[arg-type]
        gain=float(rng.uniform(0.9, 1.2)),
        blur=float(rng.uniform(0.0, 0.7)),
        noise=float(rng.uniform(1.0, 5.0)),
        scene=int(rng.integers(2**31)),
    )


@lru_cache(maxsize=8)
def paint_scene(camera: Camera) -> NDArray[np.uint8]:
    """Paint the camera's empty picture, RGB, (540, 960, 3): wall or street above the horizon, ground below."""
    rng = np.random.default_rng([camera.scene, _SCENE])
    height, width = int(IMAGE_HEIGHT * _SCENE_SCALE), int(IMAGE_WIDTH * _SCENE_SCALE)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) / _SCENE_SCALE
    rays = np.stack([(columns - IMAGE_WIDTH / 2), rows - IMAGE_HEIGHT / 2, np.full_like(rows, camera.focal)], axis=-1)
    rays = rays @ camera.rotation.astype(np.float32)  # camera to world
    down = np.minimum(rays[..., 2], -1e-3)
    ground = rays[..., :2] * (camera.position[2] / -down)[..., None]  # x, y in metres
    far = camera.distance + rng.uniform(3.0, 14.0)  # where a wall stands
    wall_foot = (rays[..., 2] >= 0) | (ground[..., 1] > far)

    base = np.array(rng.choice(np.array([[0.5, 0.5, 0.5], [0.6, 0.56, 0.5], [0.42, 0.45, 0.4], [0.68, 0.67, 0.64]])))
    base = base * rng.uniform(0.75, 1.15)
    tile = rng.uniform(0.5, 2.0)
    checks = (np.floor(ground[..., 0] / tile) + np.floor(ground[..., 1] / tile)) % 2
    seams = np.minimum((ground / tile) % 1.0, 1 - (ground / tile) % 1.0).min(axis=-1) < 0.03
    floor = base.astype(np.float32) * (1 + rng.uniform(0, 0.12) * (checks - 0.5) - 0.2 * seams)[..., None]
    floor *= (0.85 + 0.3 * (rows / IMAGE_HEIGHT))[..., None]

    wall = _paint_wall(rng, camera, rows, rays, far)
    picture = np.where(wall_foot[..., None], wall, floor)
    picture += _cloudy(rng, height, width, 0.05)[..., None]
    picture = _paint_props(rng, picture)
    picture = picture * (255 * camera.gain * np.array(camera.tint)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(picture, (0, 0), 1.2), 0, 255).astype(np.uint8)


def _paint_wall(rng: np.random.Generator, camera: Camera, rows: FloatArray, rays: FloatArray, far: float) -> FloatArray:
    """Paint what stands behind the ground: buildings with windows under a sky."""
    scale = far / np.maximum(rays[..., 1], 1e-3)
    across, above = rays[..., 0] * scale, camera.position[2] + rays[..., 2] * scale
    edges = np.cumsum(rng.uniform(2.0, 9.0, 24)) - 60.0
    count = len(edges) + 1
    house = np.searchsorted(edges, across)
    colour = rng.uniform(0.25, 0.8, (count, 1)) * (1 + rng.uniform(-0.1, 0.1, (count, 3)))
    glass = colour * rng.uniform(0.45, 1.35, (count, 1))
    tall, pitch = rng.uniform(2.5, 12.0, count)[house], rng.uniform(1.2, 3.0, count)[house]
    window = ((across / pitch) % 1.0 > 0.45) & ((above / (pitch * 1.2)) % 1.0 > 0.5)
    sky = np.array([0.62, 0.72, 0.85]) * rng.uniform(0.8, 1.1) * (1.05 - 0.2 * rows / IMAGE_HEIGHT)[..., None]
    picture = np.concatenate([colour, glass]).astype(np.float32)[house + count * window]
    return np.where((above < tall)[..., None], picture, sky.astype(np.float32))


def _paint_props(rng: np.random.Generator, picture: FloatArray) -> FloatArray:
    """Bushes, posts and boxes here and there."""
    height, width = picture.shape[:2]
    canvas = np.ascontiguousarray(picture, dtype=np.float32)
    for _ in range(int(rng.integers(3, 9))):
        x, y = rng.integers(0, width), int(height * rng.uniform(0.25, 0.75))
        kind = rng.integers(3)
        colour = tuple(float(c) for c in rng.uniform(0.12, 0.75) * (1 + rng.uniform(-0.3, 0.3, 3)))
        if kind == 0:
            for _ in range(40):
                green = rng.uniform(0.6, 1.3)
                centre = (int(x + rng.normal() * 25), int(y + rng.normal() * 16))
                cv2.circle(canvas, centre, int(rng.integers(5, 14)), (0.2 * green, 0.34 * green, 0.16 * green), -1)
        elif kind == 1:
            cv2.rectangle(canvas, (int(x), y - 150), (int(x) + int(rng.integers(3, 12)), y + 60), colour, -1)
        else:
            size = rng.integers(15, 90, 2)
            cv2.rectangle(canvas, (int(x), y), (int(x + size[0]), int(y + size[1])), colour, -1)
    return canvas


def _cloudy(rng: np.random.Generator, height: int, width: int, strength: float) -> FloatArray:
    """Smooth noise of several scales, about zero."""
    total = np.zeros((height, width), dtype=np.float32)
    for cells in (6, 24, 96):
        coarse = rng.normal(size=(cells, cells * 2)).astype(np.float32)
        total += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    total += 0.5 * rng.normal(size=total.shape).astype(np.float32)
    return strength * total / 2


def cut_background(camera: Camera, box: FloatArray, width: int, height: int) -> NDArray[np.uint8]:
    """Cut the empty picture inside `box` (x0, y0, x1, y1; image pixels), resized to (height, width, 3) RGB."""
    scene = paint_scene(camera)
    across, down = width / (box[2] - box[0]), height / (box[3] - box[1])
    # Pixel centres: scene (u + .5) / scale = image x, crop (v + .5) = (x - x0) * across.
    transform = np.array(
        [
            [across / _SCENE_SCALE, 0, (0.5 / _SCENE_SCALE - box[0]) * across - 0.5],
            [0, down / _SCENE_SCALE, (0.5 / _SCENE_SCALE - box[1]) * down - 0.5],
        ]
    )
    size, border = (width, height), cv2.BORDER_REFLECT
    picture = cv2.warpAffine(scene, transform, size, flags=cv2.INTER_LINEAR, borderMode=border)
    return picture.astype(np.uint8, copy=False)
