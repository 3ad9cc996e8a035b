"""How many clips a second the exported model describes on the CPU, against torch.

    python tests/benchmarks/bench_export.py [--quick] [--clips 2] [--frames 8] [--rounds 5]

A model of the size that MARS is trained at (ViT-B/16, crops of 256 x 128, 8 frames) with random weights, in float32; with
``--quick`` the demo's small one. Both start from the same uint8 pixels, have the same threads (``OMP_NUM_THREADS``), take
turns, and must agree. ``ratio`` is torch's time by the exported model's: above 1 the exported one is faster.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from csip.config import Settings
from csip.export.onnx_export import COSINE, DIFFERENCE, export_onnx, sample_pixels
from csip.export.onnx_model import OnnxDescription, OnnxModel
from csip.models.factory import build_model, empty_encoder
from csip.retrieval.embedding import PixelModel

CAMERAS = 6
DEMO = {"clips": {"height": 128, "width": 64}, "vision": {"model": "vision/demo.json", "pretrained": None}}
MARS = {"vision": {"model": "ViT-B-16-quickgelu", "pretrained": None}}


def build(quick: bool) -> tuple[PixelModel, OnnxDescription]:
    settings = Settings.model_validate({
        "dataset": {"name": "random"}, "skeleton_encoder": {"depth": 1, "temporal": False}, **(DEMO if quick else MARS)
    })  # fmt: skip
    width = 128 if quick else 512
    model = build_model(empty_encoder("h36m17", width, settings), 1.0, 16, CAMERAS, settings, load_vision=False)
    torch.nn.init.normal_(model.vision.camera_embedding, std=0.02)
    clips = settings.clips
    description = OnnxDescription(
        version="benchmark", model="random", dataset="random", vision=settings.vision.model, pretrained=None,
        cameras={camera: camera for camera in range(CAMERAS)}, frames=clips.frames, height=clips.height,
        width=clips.width, mean=clips.mean, std=clips.std, part_norm=True,
    )  # fmt: skip
    return PixelModel(model.eval(), clips), description


Result = TypeVar("Result")


def timed(run: Callable[[], Result]) -> tuple[float, Result]:
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the demo's small model: within 50 s")
    parser.add_argument("--clips", type=int, help="clips at once; 2, or 8 with --quick")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--rounds", type=int, help="5, or 15 with --quick")
    arguments = parser.parse_args()
    clips = arguments.clips or (8 if arguments.quick else 2)
    rounds = arguments.rounds or (15 if arguments.quick else 5)

    model, description = build(arguments.quick)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        export_seconds, comparisons = timed(lambda: export_onnx(model, path, description))
        size = path.stat().st_size / 1e6
        exported = OnnxModel(path)
    images = sample_pixels(clips, arguments.frames, description.height, description.width, seed=1)
    camera = torch.arange(clips) % (CAMERAS + 1) - 1

    def by_torch() -> Tensor:
        with torch.inference_mode():
            return model.embed_pixels(images, camera)

    runs = {"torch": by_torch, "onnx": lambda: exported.embed_pixels(images, camera)}
    found: dict[str, Tensor] = {}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for round_ in range(rounds + 1):
        for name in runs if round_ % 2 else reversed(runs):
            seconds, found[name] = timed(runs[name])
            if round_:  # the first of each reserves its memory
                times[name].append(seconds)
        difference = (found["onnx"] - found["torch"]).abs().max().item()
        cosine = (found["onnx"] * found["torch"]).sum(dim=1).min().item()
        assert difference <= DIFFERENCE and cosine >= COSINE, (difference, cosine)

    rate = {name: clips / statistics.median(values) for name, values in times.items()}
    ratio = rate["onnx"] / rate["torch"]
    print(
        f"{description.vision}, {clips} clips of {arguments.frames} frames at once, {description.height}x{description.width}, "
        f"float32, {torch.get_num_threads()} threads, median of {rounds}"
    )
    print(f"{'':12}{'clips/s':>10}{'frames/s':>10}")
    for name, clips_a_second in rate.items():
        print(f"{name:12}{clips_a_second:>10.2f}{clips_a_second * arguments.frames:>10.1f}")
    worst = max(c.difference for c in comparisons)
    print(
        f"exported and compared in {export_seconds:.0f} s, {size:.0f} MB, largest difference {max(worst, difference):.1e}, "
        f"onnx {ratio:.2f} times as fast"
    )
    print(
        json.dumps(
            {
                "model": description.vision,
                "threads": torch.get_num_threads(),
                "clips": clips,
                "frames": arguments.frames,
                "onnx_clips_per_s": rate["onnx"],
                "torch_clips_per_s": rate["torch"],
                "ratio": ratio,
                "difference": max(worst, difference),
                "cosine": cosine,
                "export_s": export_seconds,
                "file_mb": size,
            }
        )
    )


if __name__ == "__main__":
    main()
