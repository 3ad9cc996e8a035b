"""What a GPU is checked for and measured by, in one command: `make bench-gpu`.

    python tests/benchmarks/bench_gpu.py [--quick] [--device cpu] [--out FOLDER]

Checks come first: a forward pass of the test branch and a step of each trainer, against the CPU's numbers in float32. Then the
measurements, each side by side with the straightforward form where there is one. A line says "skipped" and why where a package or
a GPU is missing. Writes bench_gpu.json, and bench_gpu.md for docs/benchmarks.md. With --quick on a CPU every line runs in small.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from csip.config import ClipSettings, Settings
from csip.data.clips import FrameChunks, normalize
from csip.files import write_json, write_text
from csip.models.factory import build_model, empty_encoder
from csip.models.losses import LearnableTemperature, supervised_contrastive
from csip.models.reid import ReIDModel
from csip.models.skeleton_encoder import SkeletonGraphTransformer
from csip.models.skeleton_reid import GraphWindows, masked_reconstruction
from csip.runtime import autocast, loader_options, to_device
from csip.training.stage1 import TrainingArrays
from csip.training.stage2 import loss_terms, total_loss
from pose_cache.joints import joint_set

HERE = Path(__file__).parent
JOINTS = 17
TOLERANCE = {"32-true": 2e-3, "bf16-mixed": 5e-2, "16-mixed": 2e-2}  # relative, of losses and gradients


class Skip(Exception):
    """Why a line is not measured."""


@dataclass(frozen=True)
class Line:
    """One line of the table."""

    name: str
    result: str
    seconds: float
    figures: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """Where and how large."""

    device: torch.device
    quick: bool
    folder: Path

    @property
    def settings(self) -> Settings:
        tree: dict[str, Any] = {"dataset": {"name": "bench"}, "vision": {"model": "ViT-B-16", "pretrained": None}}
        if self.quick:
            tower = {"image_size": [64, 32], "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
            text = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
            model = self.folder / "tower.json"
            write_json(model, {"embed_dim": 32, "vision_cfg": tower, "text_cfg": text})
            tree |= {
                "vision": {"model": str(model), "pretrained": None},
                "clips": {"frames": 4, "height": 64, "width": 32},
                "skeleton_encoder": {"depth": 2, "heads": 2},
            }
        tree["skeleton_encoder"] = {**tree.get("skeleton_encoder", {}), "dropout": 0.0, "sign_flips": False}
        return Settings.model_validate(tree)

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def best(self, work: Callable[[], object], repeat: int = 5) -> float:
        """Seconds of the fastest of some calls after one to warm up."""
        times = []
        for _ in range(2 if self.quick else repeat + 1):
            self.wait()
            started = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - started)
        return min(times[1:])


# ---- checks against the CPU ------------------------------------------------------------------------------------------


def model_of(bench: Bench) -> ReIDModel:
    settings = bench.settings
    width = width_of(settings)
    torch.manual_seed(0)
    model = build_model(empty_encoder("h36m17", width, settings), 0.07, 8, 2, settings)
    generator = torch.Generator().manual_seed(1)
    model.pfu.set_prototypes(*(torch.randn(8, width, generator=generator) for _ in range(2)))
    return model


def width_of(settings: Settings) -> int:
    return 32 if settings.vision.model.endswith("tower.json") else 512


def clips_of(settings: Settings, count: int) -> tuple[torch.Tensor, ...]:
    generator, clips = torch.Generator().manual_seed(0), settings.clips
    images = torch.randn(count, clips.frames, 3, clips.height, clips.width, generator=generator)
    joints = 0.4 * torch.randn(count, clips.frames, JOINTS, 3, generator=generator)
    return images, joints, torch.ones(count, clips.frames, dtype=torch.bool), torch.arange(count) // 2


def compared(bench: Bench, compute: Callable[[torch.device, Any], dict[str, torch.Tensor]]) -> dict[str, Any]:
    """Compute on the CPU in float32 and on the device in each precision; return the largest relative differences.

    Raises
    ------
    AssertionError
        One is larger than `TOLERANCE`.
    """
    truth = compute(torch.device("cpu"), "32-true")
    figures = {}
    for precision, tolerance in TOLERANCE.items():
        if bench.device.type == "cpu" and precision == "16-mixed":
            continue
        found = compute(bench.device, precision)
        for name, value in truth.items():
            far = float((found[name].double().cpu() - value.double()).norm() / value.double().norm().clamp(min=1e-12))
            figures[f"{name}, {precision}"] = far
            assert far <= tolerance, (
                f"{name} in {precision}: {far:.2g} from the CPU's, at most {tolerance:.2g} expected"
            )
    return figures


def check_forward(bench: Bench) -> dict[str, Any]:
    images = clips_of(bench.settings, 2)[0]

    @torch.inference_mode()
    def compute(device: torch.device, precision: Any) -> dict[str, torch.Tensor]:
        model = model_of(bench).to(device).eval()
        with autocast(precision, device):
            return {"descriptors": model.embed(images.to(device)).float()}

    return compared(bench, compute)


def check_stage2(bench: Bench) -> dict[str, Any]:
    settings = bench.settings
    images, joints, valid, labels = clips_of(settings, 4)

    def compute(device: torch.device, precision: Any) -> dict[str, torch.Tensor]:
        model = model_of(bench).to(device).train()
        with autocast(precision, device):
            output = model(*(part.to(device) for part in (images, joints, valid)))
        loss = total_loss(loss_terms(output, labels.to(device), settings), settings)
        loss.backward()
        return {"loss": loss.detach()[None], "gradient": model.heads[0].classifier.weight.grad}

    return compared(bench, compute)


def check_stage1(bench: Bench) -> dict[str, Any]:
    settings = bench.settings
    _, joints, valid, labels = clips_of(settings, 8)
    width = width_of(settings)
    looks = F.normalize(torch.randn(8, width, generator=torch.Generator().manual_seed(2)), dim=1)

    def compute(device: torch.device, precision: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        encoder = empty_encoder("h36m17", width, settings).to(device).train()
        with autocast(precision, device):
            bodies = SkeletonGraphTransformer.pool(encoder(joints.to(device), valid.to(device)), valid.to(device))
        scale = LearnableTemperature().to(device).scale()
        loss = supervised_contrastive(looks.to(device), F.normalize(bodies, dim=1), labels.to(device), scale)
        loss.backward()
        return {"loss": loss.detach()[None], "gradient": encoder.embed[0].weight.grad}

    return compared(bench, compute)


def check_skeletons(bench: Bench) -> dict[str, Any]:
    settings = bench.settings
    joints = clips_of(settings, 8)[1]
    chosen = settings.skeleton_training.model_copy(update={"mask_frames": 0, "mask_joints": 0.999})

    def compute(device: torch.device, precision: Any) -> dict[str, torch.Tensor]:
        torch.manual_seed(0)
        model = GraphWindows(empty_encoder("h36m17", 32, settings), 16).to(device).train()
        with autocast(precision, device):
            loss = masked_reconstruction(model, joints.to(device), chosen)
        loss.backward()
        return {"loss": loss.detach()[None], "gradient": model.from_joints[0].weight.grad}

    return compared(bench, compute)


# ---- measurements ----------------------------------------------------------------------------------------------------


def measure_decoding(bench: Bench) -> dict[str, Any]:
    """Frames per second that the loader's processes decode and bring to the device."""
    count = 256 if bench.quick else 8192
    rng = np.random.default_rng(0)
    names = []
    for number in range(32):
        names.append(f"{number}.jpg")
        cv2.imwrite(str(bench.folder / names[-1]), rng.integers(0, 255, (256, 128, 3)).astype(np.uint8))
    frames = [names[i % len(names)] for i in range(count)]
    settings = bench.settings
    loader = DataLoader(
        FrameChunks(bench.folder, frames, ClipSettings(), 128),
        batch_size=None,
        **loader_options(settings.runtime, bench.device),
    )

    def run() -> None:
        for _, images in loader:
            normalize(to_device(images, bench.device), settings.clips)

    seconds = bench.best(run, repeat=1)
    return {"frames_per_second": count / seconds, "workers": settings.runtime.decoders}


def measure_stage1(bench: Bench) -> dict[str, Any]:
    """An epoch of stage 1 at MARS's size, from made-up features: 8,298 tracklets, 509,914 frames."""
    tracklets, frames = (200, 10) if bench.quick else (8298, 61)
    settings, device, rng = bench.settings, bench.device, np.random.default_rng(0)
    width, total = width_of(settings), tracklets * frames
    arrays = TrainingArrays(
        torch.randn(total, width, device=device),
        0.4 * torch.randn(total, JOINTS, 3, device=device),
        torch.ones(total, dtype=torch.bool, device=device),
        np.ones(total, bool),
        np.arange(tracklets) * frames,
        np.full(tracklets, frames),
        rng.integers(0, max(tracklets // 13, 2), tracklets),
        rng.integers(1, 7, tracklets),
    )
    encoder, temperature = (
        empty_encoder("h36m17", width, settings).to(device).train(),
        LearnableTemperature().to(device),
    )
    optimizer = torch.optim.Adam([*encoder.parameters(), *temperature.parameters()], fused=True)
    precision: Any = "bf16-mixed" if device.type == "cuda" else "32-true"

    def epoch() -> None:
        for rows, labels in arrays.draw(settings, 0):
            image, joints, valid = arrays.read(rows, device)
            with autocast(precision, device):
                bodies = SkeletonGraphTransformer.pool(encoder(joints, valid), valid)
            looks = F.normalize(image, dim=1)
            loss = supervised_contrastive(
                looks, F.normalize(bodies, dim=1), to_device(labels, device), temperature.scale()
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return {"epoch_seconds": bench.best(epoch, repeat=1), "tracklets": tracklets, "frames": total}


def measure_by(script: str, bench: Bench, needs: tuple[str, ...] = (), *, small: bool = False) -> dict[str, Any]:
    """Run another benchmark on the device; its last line of JSON is what it has found."""
    for package in needs:
        if importlib.util.find_spec(package) is None:
            raise Skip(f"{package} is not installed")
    command = [sys.executable, str(HERE / script), "--device", bench.device.type]
    command += ["--quick"] if bench.quick or small else []
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(
            done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return json.loads(lines[-1]) if lines else {"output": done.stdout}


def lines() -> Iterator[tuple[str, Callable[[Bench], dict[str, Any]]]]:
    """Yield every line's name and what computes it; the checks first."""
    yield "check: descriptors", check_forward
    yield "check: step of stage 1", check_stage1
    yield "check: step of stage 2", check_stage2
    yield "check: step on skeletons alone", check_skeletons
    yield "decoding into the device's memory", measure_decoding
    yield "stage 1, an epoch at MARS's size", measure_stage1
    yield "stage 2 and embedding, side by side", lambda bench: measure_by("bench_train.py", bench)
    yield "ranking, side by side", lambda bench: measure_by("bench_metrics.py", bench)
    yield (
        "extraction, side by side",
        lambda bench: measure_by("bench_extract.py", bench, ("mmcv", "mmpose"), small=bench.device.type == "cpu"),
    )


def brief(figures: dict[str, Any]) -> str:
    """Return the figures that are numbers, on one line."""
    numbers = {name: value for name, value in figures.items() if isinstance(value, int | float)}
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small models and data")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--only", help="lines whose name holds this text")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    missing = options.device == "cuda" and not torch.cuda.is_available()
    found: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(torch.device(options.device), options.quick, Path(folder))
        for name, compute in lines():
            if options.only and options.only not in name:
                continue
            started = time.perf_counter()
            figures: dict[str, Any] = {}
            try:
                if missing:
                    raise Skip("torch sees no GPU; --device cpu --quick runs it in small")
                figures = compute(bench)
                result = "ok" if name.startswith("check") else "measured"
            except Skip as reason:
                result = f"skipped: {reason}"
            except Exception as error:
                result = f"FAILED: {type(error).__name__}: {error}"
            found.append(Line(name, result, time.perf_counter() - started, figures))
            print(f"{name:40} {result:10} {found[-1].seconds:7.1f} s  {brief(figures)}", flush=True)
    where = torch.cuda.get_device_name() if options.device == "cuda" and not missing else options.device
    joints = joint_set("h36m17").name
    about = {"device": where, "torch": torch.__version__, "quick": options.quick, "joint_set": joints}
    write_json(options.out / "bench_gpu.json", {**about, "lines": [asdict(line) for line in found]})
    rows = [f"| {line.name} | {line.result} | {brief(line.figures)} |" for line in found]
    table = "\n".join([f"{where}, torch {torch.__version__}", "", "| | | |", "|---|---|---|", *rows, ""])
    write_text(options.out / "bench_gpu.md", table)
    sys.exit(any(line.result.startswith("FAILED") for line in found))


if __name__ == "__main__":
    main()
