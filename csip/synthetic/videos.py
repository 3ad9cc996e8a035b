"""Rendered videos of people before fixed cameras, with true boxes.

The people, gaits, clothes, lights and backgrounds are drawn as those of `csip.synthetic.world` are, but the camera stands
nearer, so that a whole picture shows people at a size that detectors find. Everybody comes in at one side and leaves at the
other, once per visit; who is nearer hides who is farther. Every camera sees the same people, each in an order of its own.

    ROOT/videos/cam1.mp4      the pictures
    ROOT/gt/cam1.txt          MOTChallenge: frame, id, x, y, width, height, 1, 1, visibility; an id is the same person everywhere
    ROOT/det/cam1.txt         the same without ids (-1), as a fallible detector sees it: trembling, with misses and false boxes
    ROOT/scenes.json          what was rendered

Frames count from 1; the picture's upper left corner is (0, 0). Boxes hold what is inside the picture, hidden or not; the
visibility is the share of the person's pixels that the picture shows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import av
import cv2
import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray

from csip.errors import CsipError
from csip.files import whole_folder
from csip.monitor import Monitor, Silent
from csip.synthetic.body import FloatArray, Identity, make_identity, walk, walking_speed
from csip.synthetic.camera import IMAGE_HEIGHT, IMAGE_WIDTH, Camera, cut_background, make_camera
from csip.synthetic.mesh import build_mesh, paint_mesh, shade
from csip.synthetic.walks import shadow_outline, this_time

_WALK, _ORDER, _NOISE, _DETECTOR = 31, 32, 33, 34
# Neither people nor cameras are those of a data set of the same seed.
_PERSON_KEY, _CAMERA_KEY = 3_000_000, 100
_SUPERSAMPLING = 2
_STRIDE = 0.6  # metres that a body reaches to either side of its middle, at most
_HIDDEN = 0.3  # visibility below which a detector misses somebody


@dataclass(frozen=True)
class SceneSpec:
    """What to render.

    Attributes
    ----------
    seed
        The world. People, cameras and walks of different seeds are unrelated.
    people, cameras
        Everybody walks past every camera.
    visits
        Walks of one person past one camera, spread over the video.
    seconds, fps
        Length of each video, and frames a second.
    height
        Pixels of the picture, which is 16 : 9.
    person
        Height of somebody of 1.7 m in the middle of the walkway, as a share of the picture's.
    jitter
        Standard deviation of the detector's boxes, as a share of their height.
    missed, false
        Share of the visible people whom the detector misses, and false boxes a frame.
    """

    seed: int = 0
    people: int = 8
    cameras: int = 2
    visits: int = 1
    seconds: float = 20.0
    fps: int = 15
    height: int = 432
    person: float = 0.42
    jitter: float = 0.02
    missed: float = 0.1
    false: float = 0.05

    def __post_init__(self) -> None:
        limits = {
            "seed": (0, 2**31), "people": (1, 999), "cameras": (1, 99), "visits": (1, 99), "seconds": (0.5, 86400),
            "fps": (1, 120), "height": (64, 1080), "person": (0.1, 0.7), "jitter": (0, 0.3), "missed": (0, 1),
            "false": (0, 10),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise CsipError(f"{name}: expected {low} to {high}, got {getattr(self, name)}")

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the picture, both even, as video formats want it."""
        return 2 * round(self.height * IMAGE_WIDTH / IMAGE_HEIGHT / 2), 2 * (self.height // 2)

    @property
    def frames(self) -> int:
        """Frames of each video."""
        return max(round(self.seconds * self.fps), 1)


@dataclass(frozen=True)
class SceneFrame:
    """One picture and who is on it.

    Attributes
    ----------
    picture
        (H, W, 3) uint8, RGB.
    people
        (P,) int64, from 1.
    boxes
        (P, 4) x, y, width, height of what is inside the picture; the picture's upper left corner is (0, 0).
    visibility
        (P,) share of each person's pixels that the picture shows, in [0, 1].
    """

    picture: NDArray[np.uint8]
    people: NDArray[np.int64]
    boxes: NDArray[np.float64]
    visibility: NDArray[np.float64]


@dataclass(frozen=True)
class _Visit:
    """One walk through the picture: who, along which line on the ground, and in which frames."""

    person: int
    identity: Identity
    middle: FloatArray
    heading: float
    start: int
    distance: FloatArray  # (F,) metres from the middle of the line
    phase: FloatArray  # (F,) of the walking cycle

    @property
    def end(self) -> int:
        return self.start + len(self.distance)


@dataclass(frozen=True)
class _Layer:
    """What a visitor adds to a frame: colours times coverage, and coverage, in a part of the picture."""

    person: int
    depth: float
    box: FloatArray  # (4,) x0, y0, x1, y1, also outside the picture
    corner: tuple[int, int]  # x, y in the picture
    colours: NDArray[np.float32]  # (h, w, 3)
    cover: NDArray[np.float32]  # (h, w)
    shadow: FloatArray  # (12, 2)


def render_videos(
    root: Path, spec: SceneSpec, workers: int = 1, monitor: Monitor = Silent(), *, replace: bool = False
) -> None:
    """Render every camera's video and the truth.

    Everything is written into a sibling folder which takes the name `root` at the end, so a folder of that name is whole.

    Parameters
    ----------
    root
        The folder to make; it must not exist, or be empty, unless `replace` is set.
    spec
        What to render. The same spec gives the same pictures before they are compressed, whatever the number of workers.
    workers
        Processes; one does a camera at a time.
    monitor
        Hears how many videos are done.
    replace
        Remove what `root` holds once everything is rendered.

    Raises
    ------
    CsipError
        If `root` holds something already.
    """
    with whole_folder(Path(root), replace) as partial:
        for folder in ("videos", "gt", "det"):
            (partial / folder).mkdir()
        # Processes live longer than a call, and remember the working directory in which they were started.
        jobs = (delayed(_write_camera)(partial.absolute(), spec, camera) for camera in range(1, spec.cameras + 1))
        for done, _ in enumerate(Parallel(n_jobs=workers, return_as="generator")(jobs), start=1):
            monitor.progress("rendering videos", done, spec.cameras)
        (partial / "scenes.json").write_text(json.dumps(asdict(spec), indent=1) + "\n")


def render_scene(spec: SceneSpec, camera: int) -> Iterator[SceneFrame]:
    """Render the pictures of camera `camera` (from 1), one after the other; only who walks now is in memory."""
    cv2.setNumThreads(1)  # workers share the processors already
    view = scene_camera(spec, camera)
    width, height = spec.size
    scale = height / IMAGE_HEIGHT
    empty = cut_background(view, np.array([0.0, 0.0, IMAGE_WIDTH, IMAGE_HEIGHT]), width, height)
    rng = np.random.default_rng([spec.seed, _NOISE, camera])
    # A crop of a data set is 128 pixels high and shows the person at nine tenths of it.
    blur = view.blur * spec.person * height / 115
    waiting = sorted(_visits(spec, camera, view), key=lambda visit: visit.start)
    walking: list[tuple[_Visit, Iterator[_Layer]]] = []
    for frame in range(spec.frames):
        while waiting and waiting[0].start <= frame:
            visit = waiting.pop(0)
            walking.append((visit, _layers(visit, view, scale, (width, height), max(frame - visit.start, 0))))
        walking = [(visit, layers) for visit, layers in walking if frame < visit.end]
        picture, seen = _compose(empty, [next(layers) for _, layers in walking], 0.5 * (1 - view.ambient))
        if blur > 0.15:
            cv2.GaussianBlur(picture, (0, 0), blur, dst=picture)
        picture += view.noise * rng.standard_normal((height, width, 1), np.float32)
        picture += 0.4 * view.noise * rng.standard_normal((height, width, 3), np.float32)
        yield SceneFrame(np.clip(picture, 0, 255).astype(np.uint8), *_truth(seen, width, height))


def scene_camera(spec: SceneSpec, number: int) -> Camera:
    """Draw camera `number` as every data set's cameras are drawn, and put it where people have the size of the spec."""
    camera = make_camera(spec.seed, _CAMERA_KEY + number)
    return replace(camera, distance=1.7 * camera.focal / (spec.person * IMAGE_HEIGHT))


def detect_fallibly(frame: SceneFrame, spec: SceneSpec, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """Return boxes (D, 4) and scores (D,) as a fallible detector would: trembling, with misses and false boxes."""
    found = (frame.visibility > _HIDDEN) & (rng.random(len(frame.boxes)) >= spec.missed)
    boxes = frame.boxes[found] + spec.jitter * frame.boxes[found, 3:] * rng.normal(size=(found.sum(), 4))
    scores = np.clip(0.6 + 0.35 * frame.visibility[found] + rng.normal(0, 0.04, found.sum()), 0.3, 1)
    width, height = spec.size
    count = rng.poisson(spec.false)
    tall = spec.person * height * rng.uniform(0.7, 1.2, count)
    places = rng.uniform(0, 1, (count, 2)) * np.stack([width - 0.4 * tall, height - tall], axis=-1)
    strays = np.concatenate([places, np.stack([0.4 * tall, tall], axis=-1)], axis=-1)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], 2)
    return np.concatenate([boxes, strays]), np.concatenate([scores, rng.uniform(0.3, 0.6, count)])


# ---- who walks where -------------------------------------------------------------------------------------------------


def _visits(spec: SceneSpec, number: int, camera: Camera) -> list[_Visit]:
    """Draw the walks past one camera: their middles are spread over the video, in a random order of people."""
    rng = np.random.default_rng([spec.seed, _ORDER, number])
    turns = np.concatenate([rng.permutation(spec.people) + 1 for _ in range(spec.visits)])
    lanes = rng.permutation(len(turns))
    visits = []
    for turn, person in enumerate(turns.tolist()):
        visit_rng = np.random.default_rng([spec.seed, _WALK, number, turn, person])
        share = (turn + visit_rng.uniform(0.2, 0.8)) / len(turns)
        lane = camera.distance * (0.85 + 0.45 * (lanes[turn] + 0.5) / len(turns))
        visits.append(_visit(spec, camera, person, share * spec.frames, lane, visit_rng))
    return visits


def _visit(
    spec: SceneSpec, camera: Camera, person: int, mid_frame: float, lane: float, rng: np.random.Generator
) -> _Visit:
    """Draw a walk that is at the middle of its line, `lane` metres away, at `mid_frame`, and is outside at both ends."""
    identity = make_identity(spec.seed, _PERSON_KEY + person)
    identity = replace(identity, gait=this_time(identity.gait, rng))
    # Walkways lead to the sides, but lean towards or away from the camera as much as its own walkway does, within bounds.
    lean = np.clip(np.deg2rad(22) * np.sin(camera.heading) + np.deg2rad(rng.normal(0, 5)), -0.44, 0.44)
    side = rng.choice([-1.0, 1.0])
    heading = float(lean if side > 0 else lean + np.pi)
    middle = np.array([0.1 * lane * rng.uniform(-1, 1), lane])
    slope = IMAGE_WIDTH / 2 / camera.focal
    # Metres along the line to either edge of what the camera sees, and a stride on.
    edges = [
        (slope * lane - sign * middle[0] + _STRIDE) / (np.cos(lean) - sign * slope * np.sin(lean)) for sign in (1, -1)
    ]
    before, after = (edges[1], edges[0]) if side > 0 else (edges[0], edges[1])
    step = walking_speed(identity.body, identity.gait) / spec.fps
    start = int(np.floor(mid_frame - before / step))
    frames = np.arange(start, int(np.ceil(mid_frame + after / step)) + 1)
    distance = (frames - mid_frame) * step
    phase = rng.random() + 0.5 * identity.gait.cadence * (frames - mid_frame) / spec.fps
    return _Visit(person, identity, middle, heading, start, distance, phase)


# ---- pictures --------------------------------------------------------------------------------------------------------


def _layers(visit: _Visit, camera: Camera, scale: float, size: tuple[int, int], first: int) -> Iterator[_Layer]:
    """Paint a visitor frame by frame, from frame `first` of the walk on."""
    pose = walk(visit.identity.body, visit.identity.gait, visit.phase)
    mesh = build_mesh(visit.identity.body, visit.identity.clothing, pose)
    cos, sin = np.cos(visit.heading), np.sin(visit.heading)
    place = visit.middle + visit.distance[:, None] * np.array([cos, sin])

    def to_camera(points: FloatArray) -> FloatArray:
        x = cos * points[..., 0] - sin * points[..., 1] + place[:, :1]
        y = sin * points[..., 0] + cos * points[..., 1] + place[:, 1:]
        return camera.to_camera(np.stack([x, y, points[..., 2]], axis=-1))

    def to_picture(points: FloatArray) -> FloatArray:
        return camera.project(points) * scale - 0.5

    mesh = replace(mesh, vertices=to_camera(mesh.vertices), inside=to_camera(mesh.inside))
    up = camera.rotation @ np.array([0.0, 0.0, 1.0])
    colours, facing = shade(mesh, camera.rotation @ np.array(camera.sun), up, camera.ambient)
    colours = np.clip(colours * np.array(camera.tint) * camera.gain * 255, 0, 255)
    image = to_picture(mesh.vertices)
    shadow = to_picture(to_camera(shadow_outline(pose)))
    depth = np.linalg.norm(mesh.vertices, axis=-1)[:, mesh.quads].mean(axis=-1) - mesh.over
    for frame in range(first, len(visit.distance)):
        low, high = image[frame].min(axis=0), image[frame].max(axis=0)
        box = np.concatenate([low, high]) + 0.5
        corner = np.floor(low).astype(int) - 1
        wide, tall = (np.ceil(high).astype(int) + 2 - corner).tolist()
        # The fourth channel counts what is covered.
        canvas = np.zeros((tall * _SUPERSAMPLING, wide * _SUPERSAMPLING, 4), np.uint8)
        fine = (image[frame] - corner + 0.5) * _SUPERSAMPLING - 0.5
        seen = facing[frame]
        opaque = np.concatenate([colours[frame, seen], np.full((seen.sum(), 1), 255.0)], axis=-1)
        paint_mesh(canvas, fine[mesh.quads[seen]], depth[frame, seen], opaque)
        small = cv2.resize(canvas, (wide, tall), interpolation=cv2.INTER_AREA).astype(np.float32)
        nearness = float(np.linalg.norm(mesh.vertices[frame], axis=-1).mean())
        yield _Layer(
            visit.person,
            nearness,
            box,
            (int(corner[0]), int(corner[1])),
            small[..., :3],
            small[..., 3] / np.float32(255),
            shadow[frame],
        )


def _compose(
    empty: NDArray[np.uint8], layers: list[_Layer], darkness: float
) -> tuple[NDArray[np.float32], list[tuple[_Layer, float]]]:
    """Lay people over the empty picture, the farthest first; return it and each layer with its visibility."""
    picture = empty.astype(np.float32)
    height, width = picture.shape[:2]
    for layer in layers:
        mask = np.zeros((height, width), np.uint8)
        cv2.fillConvexPoly(mask, np.round(layer.shadow).astype(np.int32), (255,))
        top = max(int(layer.shadow[:, 1].min()) - 8, 0)
        if top < height:
            picture[top:] *= (
                1 - (darkness / 255) * cv2.GaussianBlur(mask[top:], (0, 0), 3).astype(np.float32)[..., None]
            )
    hidden = np.zeros((height, width), np.float32)
    shares = {}
    ordered = sorted(layers, key=lambda layer: layer.depth)
    for layer in ordered:
        inside, part = _overlap(layer, width, height)
        shown = layer.cover[part] * (1 - hidden[inside])
        shares[layer.person] = float(shown.sum() / max(layer.cover.sum(), 1e-6))
        hidden[inside] = np.maximum(hidden[inside], layer.cover[part])
    for layer in reversed(ordered):
        inside, part = _overlap(layer, width, height)
        picture[inside] = picture[inside] * (1 - layer.cover[part][..., None]) + layer.colours[part]
    return picture, [(layer, shares[layer.person]) for layer in layers]


def _overlap(layer: _Layer, width: int, height: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return where a layer lies in the picture, and which part of the layer that is; both may be empty."""
    (x, y), (tall, wide) = layer.corner, layer.cover.shape
    left, top = min(max(x, 0), width), min(max(y, 0), height)
    right, bottom = max(min(x + wide, width), left), max(min(y + tall, height), top)
    if right == left or bottom == top:
        return (slice(0, 0), slice(0, 0)), (slice(0, 0), slice(0, 0))
    return (slice(top, bottom), slice(left, right)), (slice(top - y, bottom - y), slice(left - x, right - x))


def _truth(
    seen: list[tuple[_Layer, float]], width: int, height: int
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    people, boxes, visibility = [], [], []
    for layer, share in seen:
        low = np.clip(layer.box[:2], 0, [width, height])
        size = np.clip(layer.box[2:], 0, [width, height]) - low
        if size.min() >= 1:
            people.append(layer.person)
            boxes.append(np.concatenate([low, size]))
            visibility.append(min(share, 1.0))
    return np.array(people, np.int64), np.array(boxes, np.float64).reshape(-1, 4), np.array(visibility, np.float64)


# ---- files -----------------------------------------------------------------------------------------------------------


def _write_camera(root: Path, spec: SceneSpec, camera: int) -> None:
    rng = np.random.default_rng([spec.seed, _DETECTOR, camera])
    truth, detections = [], []
    with av.open(str(root / "videos" / f"cam{camera}.mp4"), "w") as container:
        stream = container.add_stream("h264", rate=spec.fps)
        stream.width, stream.height = spec.size
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.options = {"crf": "20", "preset": "veryfast"}
        for number, frame in enumerate(render_scene(spec, camera), start=1):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.picture, format="rgb24")))
            for person, box, share in zip(frame.people, frame.boxes, frame.visibility, strict=True):
                truth.append(_line(number, int(person), box, f"1,1,{share:.3f}"))
            for box, score in zip(*detect_fallibly(frame, spec, rng), strict=True):
                detections.append(_line(number, -1, box, f"{score:.3f},-1,-1,-1"))
        container.mux(stream.encode())
    (root / "gt" / f"cam{camera}.txt").write_text("".join(truth))
    (root / "det" / f"cam{camera}.txt").write_text("".join(detections))


def _line(frame: int, person: int, box: FloatArray, rest: str) -> str:
    x, y, width, height = box
    return f"{frame},{person},{x:.2f},{y:.2f},{width:.2f},{height:.2f},{rest}\n"
