"""Rendered people walking: a data set without a download, with true joints.

`render_mars` writes MARS's own layout, so that whatever reads MARS reads this; `csip.synthetic.walks` gives the
same crops as arrays. Identity is body, gait and clothing; some identities are lookalikes, pairs in the same clothing
with unrelated bodies and gaits, whom only body and motion tell apart. In the motion world (`csip.synthetic.motion`)
everybody has a twin in the same clothing, who differs in one trait alone.

Beside MARS's files lie `truth.npz` (the joints of every frame, read by `load_truth`), `identities.json` (what was
rendered and each pid's parameters), `lookalikes.json` (the pairs of pids in the same clothing) and, of the motion world,
`strata.json` (read by `load_strata`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import scipy.io
from joblib import Parallel, delayed
from numpy.typing import NDArray

from csip.errors import CsipError
from csip.files import whole_folder
from csip.monitor import Monitor, Silent
from csip.synthetic import motion
from csip.synthetic.body import Identity, make_identity
from csip.synthetic.camera import make_camera
from csip.synthetic.walks import (
    CropOptions,
    RenderedTracklet,
    draw_outing,
    frame_times,
    render_tracklet,
    walk_generator,
)

# Keys of people who are nobody's identity; real identities count from 1.
_DISTRACTOR_KEY, _JUNK_KEY = 1_000_000, 2_000_000

# The motion world's people of one seed: those who train, those whom choices are made on, those for the last word.
_PART_SEEDS = {"train": 0, "validation": 1_000_000, "test": 2_000_000}


@dataclass(frozen=True)
class SyntheticSpec:
    """What to render.

    Attributes
    ----------
    seed
        The world. People, cameras and walks of different seeds are unrelated.
    train_ids, test_ids
        Numbers of identities; training pids are 1 ..., test pids follow.
    cameras
        Every identity is seen by every camera.
    tracklets_per_camera
        Walks of one identity past one camera; the first one of a test identity is a query.
    frames
        Frames a tracklet.
    height, width
        Pixels of a crop.
    twin_share
        Share of the identities of each split that are lookalikes, in [0, 1].
    distractors, junk
        Test tracklets of people without identity (pid 0) and of badly cut boxes (pid -1).
    fps
        Frames a second: how far a walk gets between two frames.
    occlusion
        Share of tracklets with something standing in front.
    quality
        JPEG quality.
    world
        "walkers", or "motion": strata of twins, see `csip.synthetic.motion`; `twin_share` is 1 there.
    part
        Motion world: who the test identities are. The people of "validation" and of "test" are as unrelated to each other
        as to those who train; the cameras are the same.
    """

    seed: int = 0
    train_ids: int = 60
    test_ids: int = 40
    cameras: int = 4
    tracklets_per_camera: int = 2
    frames: int = 16
    height: int = 128
    width: int = 64
    twin_share: float = 0.5
    distractors: int = 16
    junk: int = 8
    fps: float = 12.0
    occlusion: float = 0.06
    quality: int = 90
    world: Literal["walkers", "motion"] = "walkers"
    part: Literal["validation", "test"] = "validation"

    def __post_init__(self) -> None:
        limits = {
            "seed": (0, 2**31), "train_ids": (1, 4999), "test_ids": (1, 4999), "cameras": (2, 9),
            "tracklets_per_camera": (1, 999), "frames": (1, 999), "height": (16, 1024), "width": (8, 1024),
            "twin_share": (0, 1), "distractors": (0, 999), "junk": (0, 999), "fps": (0.1, 1000),
            "occlusion": (0, 1), "quality": (1, 100),
        }  # fmt: skip
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise CsipError(f"{name}: expected {low} to {high}, got {getattr(self, name)}")
        if self.world == "motion":
            self._check_motion()
        elif self.part != "validation":
            raise CsipError(f"part: {self.part!r} is for the motion world; the people of other worlds differ by seed")

    def _check_motion(self) -> None:
        whole = 2 * len(motion.STRATA)
        for name in ("train_ids", "test_ids"):
            if getattr(self, name) % whole:
                raise CsipError(
                    f"{name}: expected a multiple of {whole} in the motion world (pairs of twins in {len(motion.STRATA)} "
                    f"strata), got {getattr(self, name)}"
                )
        if self.twin_share != 1:
            raise CsipError(f"twin_share: everybody has a twin in the motion world: expected 1, got {self.twin_share}")
        if self.cameras < 3:
            raise CsipError(f"cameras: expected 3 or more in the motion world, got {self.cameras}")
        if self.seed >= _PART_SEEDS["validation"]:
            raise CsipError(
                f"seed: expected less than {_PART_SEEDS['validation']} in the motion world, got {self.seed}"
            )


@dataclass(frozen=True)
class TrackletTruth:
    """The joints of one rendered tracklet.

    Attributes
    ----------
    name
        As the MARS reader names it: "train/0001C1T0001".
    frames
        (F,) paths relative to the data set's root.
    joints3d
        (F, 17, 3) Human3.6M joints, metres, camera axes (x right, y down, z forward), from the camera.
    coco, h36m
        (F, 17, 2) joints in crop pixels; (0, 0) is the centre of the first pixel.
    intrinsics
        (F, 3, 3) camera axes to crop pixels.
    """

    name: str
    frames: tuple[str, ...]
    joints3d: NDArray[np.float32]
    coco: NDArray[np.float32]
    h36m: NDArray[np.float32]
    intrinsics: NDArray[np.float64]


Pairs = dict[str, list[list[int]]]
"""By stratum, the pids who are twins."""


@dataclass(frozen=True)
class Strata:
    """Who are twins in a motion world, and which world it is.

    Attributes
    ----------
    part
        Who the test identities are: "validation" or "test".
    seeds
        By split ("train", "test"): people of different seeds are unrelated.
    fps
        Frames a second.
    train, test
        The twins of each split.
    """

    part: str
    seeds: dict[str, int]
    fps: float
    train: Pairs
    test: Pairs


@dataclass(frozen=True)
class _Walk:
    """One tracklet to render: who, where, and under which name it is stored."""

    folder: str
    label: str
    pid: int
    key: int
    camera: int
    number: int

    @property
    def stem(self) -> str:
        return f"{self.label}C{self.camera}T{self.number:04d}"

    def frame(self, index: int) -> str:
        return f"{self.stem}F{index + 1:03d}.jpg"


def render_mars(
    root: Path, spec: SyntheticSpec, workers: int = 1, monitor: Monitor = Silent(), *, replace: bool = False
) -> None:
    """Render a data set in MARS's layout.

    Everything is written into a sibling folder which takes the name `root` at the end, so a folder of that name is
    always a whole data set.

    Parameters
    ----------
    root
        The folder to make; it must not exist, or be empty, unless `replace` is set.
    spec
        What to render. The same spec gives the same bytes, whatever the number of workers.
    workers
        Processes.
    monitor
        Hears how many frames are done.
    replace
        Remove what `root` holds once the new data set is whole.

    Raises
    ------
    CsipError
        If `root` holds something already.
    """
    with whole_folder(Path(root), replace) as partial:
        train, test = _plan(spec)
        for walk in train + test:
            (partial / walk.folder).mkdir(parents=True, exist_ok=True)
        # Processes live longer than a call, and remember the working directory in which they were started.
        jobs = (delayed(_render_files)(partial.absolute(), spec, walk) for walk in train + test)
        rendered = []
        for done, tracklet in enumerate(Parallel(n_jobs=workers, return_as="generator")(jobs), start=1):
            rendered.append(tracklet)
            monitor.progress("rendering frames", done * spec.frames, len(train + test) * spec.frames)
        _write_info(partial / "info", spec, train, test)
        _write_truth(partial, spec, train + test, rendered)
        _write_identities(partial, spec)


def load_truth(root: Path) -> Iterator[TrackletTruth]:
    """Read the joints that were rendered, tracklet by tracklet.

    Parameters
    ----------
    root
        A folder that `render_mars` made.

    Raises
    ------
    CsipError
        If there is no truth there.
    """
    path = Path(root) / "truth.npz"
    if not path.is_file():
        raise CsipError(f"{path}: no such file; only rendered data sets have their true joints beside them")
    with np.load(path) as file:
        stored = {name: file[name] for name in file.files}
    frames = stored["frames"].tolist()
    for name, start, length in zip(stored["names"], stored["starts"], stored["lengths"], strict=True):
        part = slice(int(start), int(start + length))
        yield TrackletTruth(
            name=str(name),
            frames=tuple(frames[part]),
            joints3d=stored["joints3d"][part],
            coco=stored["coco"][part],
            h36m=stored["h36m"][part],
            intrinsics=stored["intrinsics"][part],
        )


def lookalikes(spec: SyntheticSpec) -> list[list[int]]:
    """Pairs of pids that wear the same clothing, hair and skin; never across train and test."""
    groups: dict[int, list[int]] = {}
    for pid in range(1, spec.train_ids + spec.test_ids + 1):
        groups.setdefault(_clothing_key(spec, pid), []).append(pid)
    return [group for group in groups.values() if len(group) > 1]


def identity(spec: SyntheticSpec, pid: int) -> Identity:
    """Draw the person whom a data set calls `pid` (from 1)."""
    if spec.world == "motion":
        return motion.make_twin(*_seed_and_number(spec, pid), key=pid)
    return make_identity(spec.seed, pid, _clothing_key(spec, pid))


def strata(spec: SyntheticSpec) -> Strata:
    """Sort the twins of a motion world by the trait that they differ in."""
    found: dict[str, Pairs] = {split: {name: [] for name in motion.STRATA} for split in ("train", "test")}
    for pair in lookalikes(spec):
        split = "train" if pair[0] <= spec.train_ids else "test"
        found[split][motion.stratum(_seed_and_number(spec, pair[0])[1])].append(pair)
    seeds = {split: spec.seed + _PART_SEEDS[part] for split, part in (("train", "train"), ("test", spec.part))}
    return Strata(spec.part, seeds, spec.fps, found["train"], found["test"])


def load_strata(root: Path) -> Strata:
    """Read the strata of twins of a rendered motion world.

    Raises
    ------
    CsipError
        If the folder holds no motion world.
    """
    path = Path(root) / "strata.json"
    if not path.is_file():
        raise CsipError(f"{path}: no such file; only data sets of the motion world have strata of twins")
    try:
        return Strata(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise CsipError(f"{path}: damaged ({error}); render the data set again") from error


def _seed_and_number(spec: SyntheticSpec, key: int) -> tuple[int, int]:
    """Say of which seed the motion world's person `key` is, and which of its people (from 0).

    A person is the same however many train. Strangers come far behind the identities, and have no twin among them.
    """
    if key <= spec.train_ids:
        return spec.seed + _PART_SEEDS["train"], key - 1
    number = key - 1 - spec.train_ids if key <= spec.train_ids + spec.test_ids else 2 * key
    return spec.seed + _PART_SEEDS[spec.part], number


def _clothing_key(spec: SyntheticSpec, pid: int) -> int:
    """Say whose clothes `pid` wears.

    Neighbours of a split are pairs; evenly spread among them, a share of the pairs wears its first member's clothes.
    """
    if pid > spec.train_ids + spec.test_ids:
        return pid
    first, count = (1, spec.train_ids) if pid <= spec.train_ids else (spec.train_ids + 1, spec.test_ids)
    pair = (pid - first) // 2
    whole = 2 * pair + 1 < count
    twins = int((pair + 1) * spec.twin_share + 1e-9) > int(pair * spec.twin_share + 1e-9)
    return first + 2 * pair if whole and twins else pid


def _plan(spec: SyntheticSpec) -> tuple[list[_Walk], list[_Walk]]:
    """Tracklets of both splits, in MARS's order: junk, distractors, then identities by camera."""

    def known(pid: int, split: str) -> Iterator[_Walk]:
        for camera in range(1, spec.cameras + 1):
            for number in range(1, spec.tracklets_per_camera + 1):
                yield _Walk(f"{split}/{pid:04d}", f"{pid:04d}", pid, pid, camera, number)

    test = []
    for pid, label, count, key in ((-1, "00-1", spec.junk, _JUNK_KEY), (0, "0000", spec.distractors, _DISTRACTOR_KEY)):
        strangers = [(index % spec.cameras + 1, index // spec.cameras + 1, index) for index in range(count)]
        for camera, number, index in sorted(strangers):
            test.append(_Walk(f"bbox_test/{label}", label, pid, key + index, camera, number))
    train = [walk for pid in range(1, spec.train_ids + 1) for walk in known(pid, "bbox_train")]
    last = spec.train_ids + spec.test_ids
    test += [walk for pid in range(spec.train_ids + 1, last + 1) for walk in known(pid, "bbox_test")]
    return train, test


def _render_files(root: Path, spec: SyntheticSpec, walk: _Walk) -> RenderedTracklet:
    """Render one tracklet and write its pictures; what comes back holds no crops."""
    person, camera = identity(spec, walk.key), make_camera(spec.seed, walk.camera)
    seed, number = _seed_and_number(spec, walk.key) if spec.world == "motion" else (spec.seed, walk.key)
    draw = motion.draw_outing if spec.world == "motion" else draw_outing
    rng = walk_generator(seed, number, walk.camera, walk.number - 1)
    rendered = render_tracklet(
        person,
        camera,
        draw(person, camera, rng, frame_times(spec.frames, spec.fps)),
        rng,
        CropOptions(spec.height, spec.width, spec.occlusion, badly_cut=walk.pid < 0),
        walk.camera,
    )
    for index, crop in enumerate(rendered.crops):
        path = root / walk.folder / walk.frame(index)
        written, data = cv2.imencode(".jpg", crop[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, spec.quality])
        if not written:
            raise CsipError(f"{path}: OpenCV could not encode the picture")
        path.write_bytes(data.tobytes())
    return rendered.without_crops()


def _write_info(folder: Path, spec: SyntheticSpec, train: list[_Walk], test: list[_Walk]) -> None:
    folder.mkdir()
    for split, walks in (("train", train), ("test", test)):
        names = [walk.frame(index) for walk in walks for index in range(spec.frames)]
        (folder / f"{split}_name.txt").write_text("\n".join(names) + "\n")
        first = 1 + spec.frames * np.arange(len(walks))
        rows = [first, first + spec.frames - 1, [walk.pid for walk in walks], [walk.camera for walk in walks]]
        table = np.stack([np.asarray(column, dtype=np.int32) for column in rows], axis=1)
        _write_mat(folder / f"tracks_{split}_info.mat", f"track_{split}_info", table)
    queries = [index + 1 for index, walk in enumerate(test) if walk.pid > 0 and walk.number == 1]
    _write_mat(folder / "query_IDX.mat", "query_IDX", np.array([queries], dtype=np.int32))


def _write_mat(path: Path, name: str, values: NDArray[np.int32]) -> None:
    scipy.io.savemat(str(path), {name: values})
    # The first 116 bytes are free text, in which scipy writes the date: the same spec must give the same bytes.
    with path.open("r+b") as file:
        file.write(b"MATLAB 5.0 MAT-file, written by csip".ljust(116))


def _write_truth(root: Path, spec: SyntheticSpec, walks: list[_Walk], rendered: list[RenderedTracklet]) -> None:
    lengths = np.full(len(walks), spec.frames)
    splits = [walk.folder.split("/")[0].removeprefix("bbox_") for walk in walks]
    np.savez_compressed(
        root / "truth.npz",
        names=np.array([f"{split}/{walk.stem}" for split, walk in zip(splits, walks, strict=True)]),
        starts=np.cumsum(lengths) - lengths,
        lengths=lengths,
        frames=np.array([f"{walk.folder}/{walk.frame(index)}" for walk in walks for index in range(spec.frames)]),
        joints3d=np.concatenate([tracklet.joints3d for tracklet in rendered]),
        coco=np.concatenate([tracklet.coco for tracklet in rendered]),
        h36m=np.concatenate([tracklet.h36m for tracklet in rendered]),
        intrinsics=np.concatenate([tracklet.intrinsics for tracklet in rendered]),
    )


def _write_identities(root: Path, spec: SyntheticSpec) -> None:
    people = {str(pid): asdict(identity(spec, pid)) for pid in range(1, spec.train_ids + spec.test_ids + 1)}
    text = json.dumps({"spec": asdict(spec), "identities": people}, indent=1)
    (root / "identities.json").write_text(text + "\n")
    (root / "lookalikes.json").write_text(json.dumps(lookalikes(spec)) + "\n")
    if spec.world == "motion":
        (root / "strata.json").write_text(json.dumps(asdict(strata(spec))) + "\n")
