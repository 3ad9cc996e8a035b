"""A data set of tracklets whose people have a colour each, with descriptors that are sometimes misleading."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from csip.config import Settings
from csip.data.csv_table import format_rows
from csip.retrieval.descriptors import Descriptors, write_descriptors
from pipelines import paths

NAME = "hall"
FRAMES = 3


@dataclass(frozen=True)
class Hall:
    """Where it is, and who is who: `people` by the name of a tracklet."""

    root: Path
    run: Path
    people: dict[str, int]
    settings: Settings


def make_hall(
    folder: Path, people: int = 5, cameras: int = 2, each: int = 2, noise: float = 0.45, seed: int = 0
) -> Hall:
    """Make a data set: everybody passes every camera `each` times."""
    root, run = folder / "data" / NAME, folder / "runs" / NAME
    rng = np.random.default_rng(seed)
    centres, offsets = rng.standard_normal((people, 12)), 0.3 * rng.standard_normal((cameras, 12))
    lines, truth, features, camera_of = [], {}, [], []
    for camera in range(1, cameras + 1):
        clock = 0
        for turn in range(each):
            for person in rng.permutation(people).tolist():
                name = f"cam{camera}/cam{camera}-{turn * people + person + 1:04d}"
                truth[name] = person
                features.append(centres[person] + offsets[camera - 1] + noise * rng.standard_normal(12))
                camera_of.append(camera)
                paint(root / "crops" / name, person, rng)
                for frame in range(FRAMES):
                    # The next one comes into sight before this one leaves.
                    lines.append(
                        (
                            name,
                            "",
                            f"cam{camera}",
                            f"crops/{name}/{frame:03d}.jpg",
                            "",
                            f"cam{camera}.mp4",
                            clock + frame,
                            20 * person + frame,
                            5,
                            12,
                            30,
                        )
                    )
                clock += FRAMES - 1
            clock += FRAMES  # nobody is in sight together with themselves
    head = (*("tracklet", "person", "camera", "frame", "part", "video", "number"), *("x", "y", "width", "height"))
    root.mkdir(parents=True, exist_ok=True)
    (root / "tracklets.csv").write_text(format_rows([head, *lines]))
    rows = np.array(features, np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    count = len(rows)
    flags = np.ones(count, bool)
    described = Descriptors(
        rows, tuple(truth), np.zeros(count, np.int64), np.array(camera_of), flags, flags, NAME, "0123456789abcdef"
    )
    run.mkdir(parents=True, exist_ok=True)
    write_descriptors(run / "descriptors.h5", described)
    return Hall(root, run, truth, paths.settings_for(NAME, None, root, []))


def paint(folder: Path, person: int, rng: np.random.Generator) -> None:
    """Write the frames of a tracklet: a coat of the person's colour."""
    folder.mkdir(parents=True)
    colour = np.array([(person * 67) % 200 + 40, (person * 131) % 200 + 40, (person * 29) % 200 + 40])
    for frame in range(FRAMES):
        image = np.full((64, 32, 3), 90, np.uint8)
        image[4:16, 11 + frame : 21 + frame] = (150, 170, 210)
        image[16:44, 8 + frame : 24 + frame] = colour
        image[44:62, 10 + frame : 22 + frame] = colour // 2
        cv2.imwrite(
            str(folder / f"{frame:03d}.jpg"),
            np.clip(image + rng.normal(0, 4, image.shape), 0, 255).round().astype(np.uint8),
        )
