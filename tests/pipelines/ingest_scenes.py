"""Videos of rectangles that walk, with the files of their boxes."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np


def write_video(path: Path, images: list[np.ndarray], rate: int = 10) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuv420p", 3_000_000
        for image in images:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))


def walk(number: int, frame: int) -> tuple[int, int, int, int]:
    """Left, top, width, height of a rectangle that walks; 1 goes right, 2 left, and they cross."""
    return (5 + 6 * frame, 20, 24, 60) if number == 1 else (165 - 6 * frame, 30, 24, 60)


COLOURS = {1: (40, 40, 220), 2: (220, 60, 40)}
FRAMES = 24


def make_scene(path: Path, ids: bool = True, seed: int = 0) -> None:
    """A video of two rectangles that walk past each other, and the file of their boxes beside it."""
    background = np.random.default_rng(seed).integers(90, 140, (100, 200, 3), np.uint8)
    images, lines = [], []
    for frame in range(FRAMES):
        image = background.copy()
        for number, colour in COLOURS.items():
            left, top, width, height = walk(number, frame)
            image[top : top + height, left : left + width] = colour
            lines.append(f"{frame + 1},{number if ids else -1},{left},{top},{width},{height},1,-1,-1,-1")
        images.append(image)
    write_video(path, images)
    path.with_suffix(".txt").write_text("\n".join(lines) + "\n")
