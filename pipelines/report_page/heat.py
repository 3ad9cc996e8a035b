"""Where the image encoder looks: attention rollout over the patches of chosen tracklets."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from csip.config import Settings
from csip.data.clips import normalize, read_frames
from csip.data.dataset import Tracklet
from csip.errors import CsipError
from csip.models.reid import ReIDModel
from csip.models.rollout import attention_rollout
from csip.retrieval.ranked_lists import RankedList
from pipelines.report_page.strips import encode, fit, spread_rows
from pose_cache.images import read_frame

FRAMES = 3
CELL = (96, 192)


@dataclass(frozen=True)
class Looked:
    """A frame and what the encoder looks at in it.

    Attributes
    ----------
    image
        Data URI of the frame.
    heat
        Data URI of a picture of one pixel a patch, transparent where the encoder does not look.
    left, top, width, height
        Where the picture lies in the frame's cell, per cent.
    """

    image: str
    heat: str
    left: float
    top: float
    width: float
    height: float


def choose(lists: Sequence[RankedList], pids: np.ndarray) -> list[RankedList]:
    """Choose what to look at: up to four of the worst queries, each of another person, and two of the best."""
    chosen: list[RankedList] = []
    scored = [one for one in lists if one.average_precision is not None] or list(lists)
    for order, count in ((scored, 4), (scored[::-1], 6)):
        for one in order:
            known = {int(pids[c.query]) for c in chosen} - {0}
            if len(chosen) >= count:
                break
            if len(one.found) and int(pids[one.query]) not in known and one not in chosen:
                chosen.append(one)
    return chosen


def look(
    model: ReIDModel, settings: Settings, camera_rows: dict[int, int], root: Path, tracklet: Tracklet | None
) -> tuple[Looked, ...]:
    """Roll out attention over some frames of a tracklet; nothing where they cannot be read."""
    if tracklet is None:
        return ()
    frames = [tracklet.frames[row] for row in spread_rows(len(tracklet.frames), FRAMES)]
    try:
        images = torch.from_numpy(read_frames(root, frames, settings.clips))
    except CsipError:
        return ()
    camera = torch.full((len(frames),), camera_rows.get(tracklet.camera, -1))
    shares = attention_rollout(model.vision, normalize(images, settings.clips), camera).numpy()
    return tuple(_looked(root / frame, share) for frame, share in zip(frames, shares, strict=True))


def _looked(path: Path, share: np.ndarray) -> Looked:
    image = read_frame(path)
    assert image is not None  # it was read a moment ago
    picture, scale, left, top = fit(image, CELL)
    width, height = image.shape[1] * scale, image.shape[0] * scale
    across, down = 100 / CELL[0], 100 / CELL[1]
    return Looked(encode(picture), _heat(share), left * across, top * down, width * across, height * down)


def _heat(share: np.ndarray) -> str:
    """Colour the patches' shares (rows, columns) from their least to their largest."""
    span = float(share.max() - share.min())
    level = (share - share.min()) / span if span > 0 else np.zeros_like(share)
    colour = cv2.cvtColor(cv2.applyColorMap((255 * level).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    opacity = (255 * np.clip(0.15 + 0.85 * level, 0, 1)).astype(np.uint8)
    buffer = BytesIO()
    Image.fromarray(np.dstack([colour, opacity])).save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
