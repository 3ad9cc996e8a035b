"""The arithmetic of the demo, stage by stage: GFLOP of matrix products and convolutions, and what they would take at least.

    python tests/benchmarks/bench_demo.py [--quick] [SETTING=VALUE ...]

Each part of a stage is run once on few frames or clips of the demo's size, by the demo's settings or with those given, and
multiplied by how often the stage runs it. Rendering has none of this arithmetic. The floor is the GFLOP at the rate of torch's
own product of matrices on one thread; decoding, losses, optimisers and norms come on top.
"""

from __future__ import annotations

import argparse
import json
import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from bench_extract import mmposes_models
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from csip.config import Settings, load_settings
from csip.models.factory import build_model, empty_encoder
from csip.models.vision import create_vision
from csip.training.prediction import CLIPS, FRAMES, IDENTITIES
from csip.training.stage2 import loss_terms, total_loss
from pipelines.run_demo import PEOPLE
from pose_cache.estimator import demo
from pose_cache.joints import joint_set
from pose_cache.shipped import CONFIGS

MODELS = 4  # that the evaluation compares, the one that sees skeletons included
TRAINED = PEOPLE.train_ids * PEOPLE.cameras * PEOPLE.tracklets_per_camera
TESTED = PEOPLE.test_ids * PEOPLE.cameras * PEOPLE.tracklets_per_camera + PEOPLE.distractors


@dataclass(frozen=True)
class Part:
    """A part of a stage: GFLOP of one unit, and how many units the stage has."""

    stage: str
    name: str
    each: float
    units: int

    @property
    def gflop(self) -> float:
        return self.each * self.units


def counted(work: Callable[[], object]) -> float:
    """GFLOP of a call; attention in the form that the counter knows."""
    torch.backends.mha.set_fastpath_enabled(False)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops() / 1e9


def skeletons() -> list[Part]:
    """Extraction: the demo's detector and lifter, in windows of a tracklet."""
    pose2d, lifter = mmposes_models(demo(), "cpu")
    frames = PEOPLE.frames
    with torch.inference_mode():
        detect = counted(lambda: pose2d(torch.zeros(1, 3, 128, 64), None, mode="tensor"))
        lift = counted(lambda: lifter(torch.zeros(1, frames, 17, 3), None, mode="tensor")) / frames
    units = (TRAINED + TESTED) * frames
    return [Part("skeletons", "2D keypoints", detect, units), Part("skeletons", "lifting", lift, units)]


def training(settings: Settings) -> list[Part]:
    """Both stages and the evaluation, as the settings have them."""
    clips = settings.clips
    tracklets = PEOPLE.cameras * PEOPLE.tracklets_per_camera
    people = PEOPLE.train_ids - settings.dataset.val_ids
    batch = settings.stage2.ids_per_batch * settings.stage2.tracklets_per_id
    steps = people * math.ceil(tracklets / settings.stage2.tracklets_per_id) // settings.stage2.ids_per_batch
    vision = create_vision(settings.vision.model, None, (clips.height, clips.width))
    encoder = empty_encoder("h36m17", vision.embed_dim, settings).train()
    joints = torch.randn(batch, clips.frames, joint_set("h36m17").size, 3)
    valid = torch.ones(batch, clips.frames, dtype=torch.bool)
    images = torch.randn(batch, clips.frames, 3, clips.height, clips.width)

    with torch.no_grad():
        frame = counted(lambda: vision.eval()(images[0, :1]))
        skeleton = counted(lambda: encoder(joints[:1], valid[:1]))
    learn = counted(lambda: encoder(joints[:1], valid[:1]).sum().backward())
    model = build_model(encoder, 0.07, people, PEOPLE.cameras, settings)
    model.pfu.set_prototypes(*(torch.randn(people, vision.embed_dim) for _ in range(2)))
    labels, cameras = torch.arange(batch) // settings.stage2.tracklets_per_id, torch.zeros(batch, dtype=torch.int64)

    def step() -> None:
        output = model.train()(images, joints, valid, cameras)
        total_loss(loss_terms(output, labels, settings), settings).backward()

    update = counted(step)
    prediction = model.prediction
    assert prediction is not None
    reader = prediction.reader.requires_grad_(True)
    poses = torch.randn(IDENTITIES * CLIPS, clips.frames, len(reader.mean))
    read = counted(lambda: reader(poses).sum().backward())
    with torch.no_grad():
        pose = counted(lambda: prediction.poses(vision(images[0, :1]).tokens))
        embed = counted(lambda: model.eval().embed(images[:1], cameras[:1]))
    whole = math.ceil(PEOPLE.frames / clips.frames)
    held = settings.dataset.val_ids * tracklets * (settings.stage2.epochs // settings.stage2.val_every)
    models = MODELS if settings.evaluation.compare_untrained else 1
    return [
        Part("stage 1", "image features", frame, PEOPLE.train_ids * tracklets * PEOPLE.frames),
        Part("stage 1", "steps, per clip", learn, people * tracklets * settings.stage1.epochs),
        Part("stage 2", "skeleton prototypes", skeleton, people * tracklets * whole),
        Part("stage 2", f"steps of {batch} clips", update, steps * settings.stage2.epochs),
        Part("stage 2", "validation", embed, held),
        Part("stage 2", "tokens that poses fit", frame, min(FRAMES, people * tracklets * PEOPLE.frames)),
        Part("stage 2", "predicted poses", pose, people * tracklets * PEOPLE.frames),
        Part("stage 2", "steps of the reader", read, settings.stage2.reader_steps),
        Part("evaluate", "clips of all models", embed, TESTED * whole * models),
    ]


def product_rate() -> float:
    """GFLOP/s of torch's product of two matrices in float32 on one thread."""
    threads, size = torch.get_num_threads(), 768
    torch.set_num_threads(1)
    a = torch.randn(size, size)
    times = []
    for _ in range(5):
        started = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - started)
    torch.set_num_threads(threads)
    return 2 * size**3 / min(times) / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", help="e.g. stage2.epochs=4")
    parser.add_argument("--quick", action="store_true", help="without meaning here: it takes seconds")
    parser.add_argument("--device", help="without meaning here: work is counted, not measured")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rate = product_rate()
    parts = [*skeletons(), *training(load_settings(CONFIGS / "demo.yaml", arguments.settings))]
    print(f"{'':36}{'GFLOP each':>12}{'units':>9}{'GFLOP':>9}{'floor, s':>10}")
    stages: dict[str, float] = {}
    for part in parts:
        stages[part.stage] = stages.get(part.stage, 0) + part.gflop
        name = f"{part.stage}: {part.name}"
        print(f"{name:36}{part.each:>12.4f}{part.units:>9,}{part.gflop:>9,.0f}{part.gflop / rate:>10.1f}")
    for stage, gflop in (*stages.items(), ("all", sum(stages.values()))):
        print(f"{stage:57}{gflop:>9,.0f}{gflop / rate:>10.1f}")
    print(f"floor: at {rate:.0f} GFLOP/s, one thread")
    print(json.dumps({"gflop": stages, "product_gflops": rate}))


if __name__ == "__main__":
    main()
