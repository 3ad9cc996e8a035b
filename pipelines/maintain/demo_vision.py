"""Pretrain the demo's image encoder, a small CLIP-shaped tower that knows only the rendered world.

CLIP's own weights come from pictures and captions; a tower that a laptop trains in minutes cannot. This one is
pretrained by supervised contrast between two walks of the same rendered person past different cameras, frame by
frame, without text or skeletons. People, cameras and walks are those of a world (`SEED`) that no data set of this
project shows. Without twins it learns clothing alone, as CLIP does from captions. With twins all people come in pairs
who wear the same clothing and pass the same cameras. In a batch a twin is met where the other one just was, among others
who pass the same few cameras: what the camera and the clothing look like then speaks for the wrong person, and only the
body is left to tell them apart. A second term is the same contrast within each pair alone.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from joblib import Parallel, delayed
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from csip.config import ClipSettings
from csip.data.clips import Changes, normalize
from csip.models.losses import LearnableTemperature, supervised_contrastive
from csip.models.vision import VisionEncoder, create_vision
from csip.synthetic.walks import render_walk
from csip.training.schedules import cosine

SEED = 31_415
CLIPS = ClipSettings(height=128, width=64, pad=4, erase=0.2)
FRAMES = 4  # of a walk, a third of a second apart
PAIRS = 32  # of twins in a batch
PLACES = 4  # pairs who pass the same cameras are drawn together, this many such groups a batch
CAMERAS = 60
LR = 1e-3

Report = Callable[[str, int, int, str], None]


def train_demo_vision(
    out: Path,
    *,
    model: str = "vision/demo.json",
    people: int = 2000,
    walks: int = 4,
    steps: int = 8000,
    seed: int = SEED,
    twins: bool = True,
    workers: int = 2,
    report: Report,
) -> dict[str, float]:
    """Train the tower from nothing; write its weights (float16) to ``out`` and figures beside them (``.figures.json``).

    Parameters
    ----------
    model
        The tower's OpenCLIP model file.
    people, walks
        Identities, and walks of each, every walk past a camera of its own.
    steps
        Optimiser steps, of 2 x 2 x `PAIRS` walks' frames.
    seed
        The world, and the random numbers of training.
    twins
        Whether people come in pairs in the same clothing.

    Returns
    -------
    dict
        ``loss`` of the last tenth of the steps, ``seconds``.
    """
    started = time.monotonic()
    crops = render_people(people, walks, seed, twins, workers, report)
    torch.manual_seed(seed)
    vision = create_vision(model, None, (CLIPS.height, CLIPS.width)).train()
    losses = list(_train(vision, crops, steps, seed, report))
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.half().contiguous() for name, tensor in vision.visual.state_dict().items()}, out)
    figures = {"loss": float(np.mean(losses[-max(steps // 10, 1) :])), "seconds": time.monotonic() - started}
    recipe = {"seed": seed, "twins": twins, "people": people, "walks": walks, "frames": FRAMES, "steps": steps}
    out.with_suffix(".figures.json").write_text(json.dumps({**figures, **recipe}, indent=1) + "\n")
    return figures


def _train(vision: VisionEncoder, crops: NDArray[np.uint8], steps: int, seed: int, report: Report) -> Iterator[float]:
    """Train for one cosine cycle; yield the loss of each step."""
    temperature = LearnableTemperature()
    parameters = [*vision.parameters(), *temperature.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.05)
    recent: deque[float] = deque(maxlen=50)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = LR * cosine(step, epochs=steps, warmup=steps // 20, floor=0.01)
        first, second, labels = draw_batch(crops, np.random.default_rng((seed, step)))
        first, second = embed(vision, first), embed(vision, second)
        loss = supervised_contrastive(first, second, labels, temperature.scale())
        loss = loss + contrast_twins(first, second, temperature.scale())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        recent.append(loss.item())
        report("pretraining the image encoder", step + 1, steps, f"loss {np.mean(recent):.3f}")
        yield loss.item()


def render_people(people: int, walks: int, seed: int, twins: bool, workers: int, report: Report) -> NDArray[np.uint8]:
    """Render (people, walks, FRAMES, H, W, 3) RGB crops; people 0 and 1, 2 and 3, ... are twins, or at least neighbours."""
    views = [(person, walk) for person in range(people) for walk in range(walks)]
    # Camera by camera, since a renderer paints a camera's surroundings once.
    views.sort(key=lambda view: _camera(view[0], view[1], walks))
    jobs = (
        delayed(render_walk)(
            seed, 1 + person, _camera(person, walk, walks), walk,
            clothing_key=1 + (person // 2 * 2 if twins else person),
            frames=FRAMES, height=CLIPS.height, width=CLIPS.width, fps=3.0,
        )
        for person, walk in views
    )  # fmt: skip
    crops = np.empty((people, walks, FRAMES, CLIPS.height, CLIPS.width, 3), dtype=np.uint8)
    rendered = Parallel(n_jobs=workers, return_as="generator")(jobs)
    for done, ((person, walk), result) in enumerate(zip(views, rendered, strict=True), start=1):
        crops[person, walk] = result.crops
        report("rendering people", done, len(views), "")
    return crops


def _camera(person: int, walk: int, walks: int) -> int:
    """Each walk of a person passes another of the `CAMERAS`, the twin's walk of the same number the same one."""
    return 1 + (person // 2 + walk * (CAMERAS // walks)) % CAMERAS


def draw_batch(crops: NDArray[np.uint8], rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Draw frames of two walks of each of 2 `PAIRS` people: walks a and b of one twin, b and a of the other.

    Returns
    -------
    first, second : Tensor
        (2 PAIRS, 3, H, W), augmented and normalised.
    labels : Tensor
        (2 PAIRS,).
    """
    people: list[int] = []
    views: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    walks = rng.choice(crops.shape[1], size=2, replace=False)
    for pair in _draw_pairs(len(crops) // 2, rng):
        for person, order in ((2 * pair, walks), (2 * pair + 1, walks[::-1])):
            people.append(person)
            for view, walk in zip(views, order, strict=True):
                frame = crops[person, walk, rng.integers(FRAMES)].transpose(2, 0, 1)[None]
                view.append(Changes.draw(frame, CLIPS, rng).images(frame, CLIPS)[0])
    first, second = (normalize(torch.from_numpy(np.stack(view)), CLIPS) for view in views)
    return first, second, torch.tensor(people)


def _draw_pairs(pairs: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw `PAIRS` pairs of `PLACES` groups; where there are too few pairs for that, of all."""
    group = np.arange(pairs) % CAMERAS
    places = rng.choice(min(CAMERAS, pairs), size=min(PLACES, pairs), replace=False)
    near = np.flatnonzero(np.isin(group, places))
    return rng.choice(near if len(near) >= PAIRS else pairs, size=min(PAIRS, pairs), replace=False)


def embed(vision: VisionEncoder, images: Tensor) -> Tensor:
    """Return unit features (B, C) in float32."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        projected = vision(images).projected
    return F.normalize(projected.float(), dim=1)


def contrast_twins(first: Tensor, second: Tensor, scale: Tensor) -> Tensor:
    """Return the contrast, both ways, between the two views (B, C) of a person and of the twin, rows 2i and 2i + 1."""
    one, two = first.unflatten(0, (-1, 2)), second.unflatten(0, (-1, 2))
    logits = scale * one @ two.transpose(1, 2)  # (pairs, 2, 2): who of the two is it
    target = torch.arange(2, device=first.device).expand(len(logits), 2)
    return F.cross_entropy(logits.transpose(1, 2), target) + F.cross_entropy(logits, target)
