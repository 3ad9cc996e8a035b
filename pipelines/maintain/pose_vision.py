"""Pretrain an image encoder that sees poses, as CLIP's does and the demo's does not: the motion world needs one.

It starts as an encoder that knows clothing. Its people are twins of the motion world, of a seed that no data set
has, and clothing stays what tells them apart: walks of a pair are contrasted with those of other pairs, not with each other.
Beside that, heads on its tokens learn where the joints are in the picture (SimCC, as RTMPose has it: a distribution over columns
and one over rows) and where they are in space, turned to the front.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from csip.config import ClipSettings
from csip.data.clips import normalize
from csip.models.losses import LearnableTemperature, supervised_contrastive
from csip.models.skeleton_motion import across, face_front, torso
from csip.models.vision import VisionEncoder, create_vision
from csip.synthetic import motion
from csip.synthetic.camera import make_camera
from csip.synthetic.walks import CropOptions, frame_times, render_tracklet, walk_generator
from csip.training.schedules import cosine
from pipelines.maintain.demo_vision import Report
from pose_cache.joints import H36M17, mirror

SEED = 31_415
MODEL = "vision/small.json"
CLIPS = ClipSettings(height=128, width=64)
WALKS, FRAMES, FPS, CAMERAS = 2, 8, 1.6, 120
PAIRS = 32  # of walks in a batch
PAD = 6  # pixels that a crop is shifted by at most
LR = 1e-3
BINS = 2  # of the distributions, a pixel
SIGMA = 1.5  # of their targets, pixels
JOINTS_WEIGHT, CONTRAST_WEIGHT = 20.0, 0.3


@dataclass(frozen=True)
class Crops:
    """Rendered people: images (N, WALKS, FRAMES, H, W, 3), joints (..., 17, 3) root-centred, places (..., 17, 2) in pixels."""

    images: NDArray[np.uint8]
    joints: Tensor
    places: Tensor


def train_pose_vision(
    start: Path, out: Path, *, people: int = 6000, steps: int = 7100, workers: int = 2, report: Report
) -> dict[str, float]:
    """Train the encoder; write its weights (float16) to ``out`` and figures beside them (``.figures.json``).

    Parameters
    ----------
    start
        Weights of `MODEL` that know clothing, as `train_demo_vision` makes them without twins.

    Returns
    -------
    dict
        ``loss`` of the last tenth of the steps, ``seconds``.
    """
    started = time.monotonic()
    crops = render_crops(people, workers, report)
    torch.manual_seed(SEED)
    vision = create_vision(MODEL, str(start), (CLIPS.height, CLIPS.width)).train()
    losses = list(_train(vision, crops, steps, report))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.half().contiguous() for name, tensor in vision.visual.state_dict().items()}, out)
    figures = {"loss": float(np.mean(losses[-max(steps // 10, 1) :])), "seconds": time.monotonic() - started}
    recipe = {"seed": SEED, "people": people, "walks": WALKS, "frames": FRAMES, "steps": steps}
    out.with_suffix(".figures.json").write_text(json.dumps({**figures, **recipe}, indent=1) + "\n")
    return figures


def render_crops(people: int, workers: int, report: Report) -> Crops:
    """Render two walks of each person, past two cameras; people 0 and 1, 2 and 3, ... wear the same clothing."""
    walks = sorted(((n, walk) for n in range(people) for walk in range(WALKS)), key=lambda one: _camera(*one))
    images = np.empty((people, WALKS, FRAMES, CLIPS.height, CLIPS.width, 3), dtype=np.uint8)
    joints, places = np.empty((people, WALKS, FRAMES, 17, 3)), np.empty((people, WALKS, FRAMES, 17, 2))
    rendered = Parallel(n_jobs=workers, return_as="generator")(delayed(_render)(*walk) for walk in walks)
    for done, (walk, result) in enumerate(zip(walks, rendered, strict=True), start=1):
        images[walk], joints[walk], places[walk] = result
        report("rendering people", done, len(walks), "")
    return Crops(images, torch.from_numpy(joints).float(), torch.from_numpy(places).float())


def _camera(number: int, walk: int) -> int:
    return 1 + (number // 2 + walk * CAMERAS // WALKS) % CAMERAS


def _render(number: int, walk: int) -> tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.float32]]:
    camera_number = _camera(number, walk)
    person, camera = motion.make_twin(SEED, number, number + 1), make_camera(SEED, camera_number)
    rng = walk_generator(SEED, number, camera_number, walk)
    outing = motion.draw_outing(person, camera, rng, frame_times(FRAMES, FPS))
    walked = render_tracklet(person, camera, outing, rng, CropOptions(CLIPS.height, CLIPS.width), camera_number)
    crops = [cv2.imdecode(cv2.imencode(".jpg", crop, [cv2.IMWRITE_JPEG_QUALITY, 90])[1], 1) for crop in walked.crops]
    return np.stack(crops).astype(np.uint8), walked.joints3d - walked.joints3d[:, :1], walked.h36m


class PoseHeads(nn.Module):
    """What reads poses from the tokens: of each joint the column and the row; of all joints where they are in space."""

    def __init__(self, vision: VisionEncoder, hidden: int = 64) -> None:
        super().__init__()
        tokens = len(vision.visual.positional_embedding)
        self.norm, self.joints = nn.LayerNorm(vision.width), nn.Linear(vision.width, 17)
        self.mix = nn.Sequential(nn.Linear(tokens - 1, hidden), nn.GELU(), nn.Linear(hidden, hidden))
        self.columns, self.rows = nn.Linear(hidden, CLIPS.width * BINS), nn.Linear(hidden, CLIPS.height * BINS)
        self.space = nn.Linear(tokens * vision.width, 17 * 3 + 2)  # and the direction that the person faces
        nn.init.zeros_(self.space.weight)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits over columns and rows (B, 17, bins), and joints and direction in space (B, 53)."""
        each = self.mix(self.joints(self.norm(tokens[:, 1:])).transpose(1, 2))
        return self.columns(each), self.rows(each), self.space(tokens.flatten(1))


def _train(vision: VisionEncoder, crops: Crops, steps: int, report: Report) -> Iterator[float]:
    """Train for one cosine cycle; yield the loss of each step."""
    heads, temperature = PoseHeads(vision), LearnableTemperature()
    parameters = [*vision.parameters(), *heads.parameters(), *temperature.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.05)
    front = face_front(crops.joints, torso(H36M17)).flatten(0, 2)
    mean, spread = front.mean(dim=0), front.std(dim=0).square().mean(dim=1).sqrt().clamp(min=0.01)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LR * cosine(step, epochs=steps, warmup=min(200, steps // 2), floor=0.02)
        images, joints, places, labels = draw_batch(crops, np.random.default_rng((SEED, step)))
        seen = vision(images)
        columns, rows, space = heads(seen.tokens)
        inside = ((places > -0.5) & (places < torch.tensor([CLIPS.width, CLIPS.height]) - 0.5)).all(dim=-1)
        flat = distribution_loss(columns, places[..., 0]) + distribution_loss(rows, places[..., 1])
        true = face_front(joints, torso(H36M17))
        angle = across(joints, torso(H36M17))
        wanted = torch.cat(
            (((true - mean) / spread[:, None]).flatten(1), angle.cos()[:, None], angle.sin()[:, None]), 1
        )
        first, second = F.normalize(seen.projected, dim=1).chunk(2)
        loss = (
            (flat * inside).sum() / inside.sum().clamp(min=1)
            + JOINTS_WEIGHT * F.smooth_l1_loss(space, wanted, beta=0.5)
            + CONTRAST_WEIGHT * supervised_contrastive(first, second, labels, temperature.scale())
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        report("pretraining the image encoder", step + 1, steps, f"loss {loss.item():.3f}")
        yield loss.item()


def distribution_loss(logits: Tensor, place: Tensor) -> Tensor:
    """Cross-entropy of logits (B, 17, bins) to a Gaussian about each place (B, 17), pixels; (B, 17)."""
    bins = (torch.arange(logits.shape[-1]) + 0.5) / BINS - 0.5
    target = F.softmax(-(place[..., None] - bins).square() / (2 * SIGMA**2), dim=-1)
    return -(target * logits.log_softmax(dim=-1)).sum(dim=-1)


def draw_batch(crops: Crops, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Draw a frame of two walks in the same clothing, `PAIRS` times.

    Returns
    -------
    images : Tensor
        (2 PAIRS, 3, H, W), shifted, mirrored and lit by chance, normalised; the second half shows the pairs of the first again.
    joints, places : Tensor
        (2 PAIRS, 17, 3) and (2 PAIRS, 17, 2), to match.
    labels : Tensor
        (PAIRS,), who wears what.
    """
    pair = rng.choice(len(crops.images) // 2, size=min(PAIRS, len(crops.images) // 2), replace=False)
    walk = rng.integers(WALKS, size=len(pair))
    people = 2 * np.concatenate((pair, pair)) + rng.integers(2, size=2 * len(pair))
    chosen = people, np.concatenate((walk, 1 - walk)), rng.integers(FRAMES, size=2 * len(pair))
    images, joints, places = crops.images[chosen].transpose(0, 3, 1, 2), crops.joints[chosen], crops.places[chosen]
    padded = np.pad(images, ((0, 0), (0, 0), (PAD, PAD), (PAD, PAD)), mode="edge")
    shift = rng.integers(2 * PAD + 1, size=(len(images), 2))
    cut = [one[:, y : y + CLIPS.height, x : x + CLIPS.width] for one, (x, y) in zip(padded, shift, strict=True)]
    places = places + PAD - torch.from_numpy(shift).float()[:, None]
    turned = torch.from_numpy(rng.random(len(images)) < 0.5)
    pixels = normalize(torch.from_numpy(np.stack(cut)), CLIPS)
    pixels = torch.where(turned[:, None, None, None], pixels.flip(3), pixels)
    middle = (CLIPS.width - 1) / 2
    other_places = torch.from_numpy(mirror((places - torch.tensor([middle, 0.0])).numpy(), H36M17))
    places = torch.where(turned[:, None, None], other_places + torch.tensor([middle, 0.0]), places)
    joints = torch.where(turned[:, None, None], torch.from_numpy(mirror(joints.numpy(), H36M17)), joints)
    gain, light = torch.from_numpy(rng.normal(0, 0.15, (2, len(images), 3, 1, 1))).float()
    return pixels * (1 + gain) + light, joints, places, torch.from_numpy(pair)
