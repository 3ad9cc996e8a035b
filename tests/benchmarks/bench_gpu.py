"""What a GPU is checked for and measured by, in one command: `make bench-gpu`.

    python tests/benchmarks/bench_gpu.py [--quick] [--device cpu] [--out FOLDER]

Checks come first: a forward pass of the test branch, a step of each trainer and the demo's pose estimator, against the CPU's
numbers in float32. Then the measurements, each side by side with the straightforward form where there is one. A line says
"skipped" and why where a package or a GPU is missing. Writes bench_gpu.json, and bench_gpu.md for docs/benchmarks.md. With
--quick every line runs in small, on a CPU too.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import bench_extract
import bench_metrics
import bench_train
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
from csip.retrieval.metrics import RankOptions, rank
from csip.runtime import autocast, loader_options, to_device
from csip.training.clip_arrays import TrainingArrays
from csip.training.stage2 import loss_terms, total_loss
from pose_cache.estimator import PoseEstimator, demo, human3d
from pose_cache.joints import joint_set

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
        tree["stage2"] = bench_train.WHOLE
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
        tree["runtime"] = {"workers": 0} if self.quick else {}
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


def measure_embedding(bench: Bench) -> dict[str, Any]:
    """Clips per second of the test branch, and the smallest cosine to float32, in each precision.

    Raises
    ------
    AssertionError
        A descriptor is further than 1e-3 from that in float32.
    """
    settings, device = bench.settings, bench.device
    count = 2 if bench.quick else 64
    images = clips_of(settings, count)[0].to(device)
    model = model_of(bench).to(device).eval()
    figures: dict[str, Any] = {}
    exact: torch.Tensor | None = None
    for name, precision, fast in (
        ("32-true", "32-true", False), ("tf32", "32-true", True), ("bf16-mixed", "bf16-mixed", False),
        ("16-mixed", "16-mixed", False),
    ):  # fmt: skip
        if device.type == "cpu" and name in ("tf32", "16-mixed"):
            continue

        def embed(precision: Any = precision) -> torch.Tensor:
            with torch.inference_mode(), autocast(precision, device):
                return model.embed(images).float()

        with tf32(fast):
            found = embed()
            exact = found if exact is None else exact
            figures[f"clips_per_second, {name}"] = count / bench.best(embed)
        figures[f"cosine, {name}"] = cosine = float((found * exact).sum(dim=1).min().cpu())
        assert cosine > 1 - 1e-3, f"descriptors in {name}: cosine {cosine:.6f} to float32, at least 0.999 expected"
    return figures


@contextlib.contextmanager
def tf32(on: bool) -> Iterator[None]:
    """Let products of matrices in float32 round their factors to TF32, for as long as it lasts."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if on else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def measure_stage2(bench: Bench) -> dict[str, Any]:
    """Seconds and peak memory of a step: the straightforward form in float32, ours, with recomputed activations, compiled."""
    sizes = bench_train.Sizes(4, 4, 8, 1, 32) if bench.quick else bench_train.Sizes(16, 8, 625, 3)
    plain = bench.settings
    recompute = plain.model_copy(update={"runtime": plain.runtime.model_copy(update={"recompute": True})})
    figures: dict[str, Any] = {}
    for case, settings in (("plain float32", plain), ("bf16", plain), ("bf16 recompute", recompute)):
        found = bench_train.run_stage2_as(case, settings, sizes, bench.device)
        figures[f"step_seconds, {case}"] = found["step"]
        if bench.device.type == "cuda":
            figures[f"gib, {case}"] = found["memory"]
    figures["ratio"] = figures["step_seconds, plain float32"] / figures["step_seconds, bf16"]
    return figures


def measure_compiled(bench: Bench) -> dict[str, Any]:
    """A step of stage 2 with the model compiled: its seconds, and what the first one takes."""
    if bench.device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise Skip("triton is not installed")
    sizes = bench_train.Sizes(4, 4, 8, 1, 32) if bench.quick else bench_train.Sizes(16, 8, 625, 3)
    backend = "aot_eager" if bench.quick else "inductor"  # in small: traced, but no code is generated
    started = time.perf_counter()
    found = bench_train.run_stage2(
        "bf16", bench.settings, sizes, bench.device, lambda model: torch.compile(model, backend=backend)
    )
    whole = time.perf_counter() - started
    steps = (sizes.repeat + 1) * (found["step"] + found["embed"])
    return {"step_seconds": found["step"], "compile_seconds": max(whole - steps, 0.0), "backend": backend}


def measure_ranking(bench: Bench) -> dict[str, Any]:
    """MARS's sizes, against a loop over queries on the processor."""
    queries, gallery, width = (60, 300, 64) if bench.quick else (1980, 11310, 2048)
    query, q_ids, q_cams, entries, g_ids, g_cams = bench_metrics.make(queries, gallery, width)
    labels = (q_ids, q_cams, g_ids, g_cams)
    found = [rank(query, q_ids, q_cams, entries, g_ids, g_cams, device=bench.device)]
    seconds = bench.best(lambda: found.append(rank(query, q_ids, q_cams, entries, g_ids, g_cams, device=bench.device)))
    squares, step = np.square(entries).sum(axis=1), 10
    asked = range(0, queries, step)
    loop, (mean, first) = bench_metrics.timed(
        lambda: bench_metrics.loop_over_queries(lambda i: squares - 2 * entries @ query[i], asked, *labels)
    )
    chosen = found[-1].subset(np.arange(queries) % step == 0)
    assert np.allclose((chosen.map, chosen.rank1), (mean, first), atol=1e-3), (chosen.map, chosen.rank1, mean, first)
    return {"seconds": seconds, "loop_seconds": step * loop, "ratio": step * loop / seconds, "map": found[-1].map}


def measure_large_ranking(bench: Bench) -> dict[str, Any]:
    """100,000 queries against 1,000,000 gallery tracklets in blocks, descriptors that a good model would give."""
    queries, gallery, each, width = (200, 2000, 20, 16) if bench.quick else (100_000, 1_000_000, 20, 128)
    rng = np.random.default_rng(0)
    people = rng.standard_normal((gallery // each, width), dtype=np.float32)

    def side(ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        features = people[ids] + 0.3 * rng.standard_normal((len(ids), width), dtype=np.float32)
        return features / np.linalg.norm(features, axis=1, keepdims=True), ids, rng.integers(0, 6, len(ids))

    entries = side(np.arange(gallery) % len(people))
    asked = side(rng.integers(0, len(people), queries))
    options = RankOptions() if bench.quick else RankOptions(chunk=4096, gallery_chunk=32_768)
    started = time.perf_counter()
    found = rank(*asked, *entries, options, bench.device)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "queries": queries, "gallery": gallery, "width": width, "map": found.map}


def needs_pose_models() -> None:
    for package in ("mmcv", "mmpose"):
        if importlib.util.find_spec(package) is None:
            raise Skip(f"{package} is not installed")


def check_extraction(bench: Bench) -> dict[str, Any]:
    """Keypoints and joints of the demo's models, in float32, against the CPU's."""
    needs_pose_models()
    rng = np.random.default_rng(0)
    crops = [rng.integers(0, 255, (128, 64, 3)).astype(np.uint8) for _ in range(4)]
    there, here = (
        PoseEstimator.load("demo", str(device)).estimate(crops) for device in (torch.device("cpu"), bench.device)
    )
    pixels = float(np.abs(there.keypoints2d[..., :2] - here.keypoints2d[..., :2]).max())
    metres = float(np.abs(there.joints - here.joints).max())
    assert pixels <= 0.5 and metres <= 0.01, f"{pixels:.3g} pixels and {metres:.3g} m from the CPU's"
    return {"pixels": pixels, "metres": metres}


def measure_extraction(bench: Bench) -> dict[str, Any]:
    """Frames per second from JPEG files to joints, against MMPose one frame at a time."""
    needs_pose_models()
    device, large = bench.device.type, not bench.quick and bench.device.type != "cpu"
    spec = replace(human3d(), pose2d_weights=None, lifter_weights=None) if large else demo()
    batch, repeated, rounds = (256, 64, 3) if large else (16, 1, 1)
    root = bench.folder / "people"
    people = bench_extract.render(root, 1, *([8] if bench.quick else []))
    paths = [root / frame for one in people for frame in one]
    peer = bench_extract.Peer(spec, device)
    peers = bench_extract.Times([], [])
    bench_extract.time_peer(peer, paths[:2], None)
    for _ in range(rounds):
        bench_extract.time_peer(peer, paths[: 4 if bench.quick else 32], peers)
    figures: dict[str, Any] = {"frames_per_second, one at a time": peers.rate()[2]}
    workers = bench.settings.runtime.decoders or 1
    for precision in ("32", "bf16", "16"):
        if bench.device.type == "cpu" and precision != "32":
            continue
        estimator, times = PoseEstimator(spec, device, False, precision), bench_extract.Times([], [])
        bench_extract.time_ours(estimator, root, people, batch, workers, None)
        for _ in range(rounds):
            bench_extract.time_ours(estimator, root, people * repeated, batch, workers, times)
        figures[f"frames_per_second, {precision}"] = times.rate()[2]
        both = [[a + b for a, b in zip(t.pose2d, t.lifting, strict=True)] for t in (peers, times)]
        figures[f"ratio, {precision}"] = statistics.median(a / b for a, b in zip(*both, strict=True))
    return figures


LINES: tuple[tuple[str, Callable[[Bench], dict[str, Any]]], ...] = (
    ("check: descriptors", check_forward),
    ("check: step of stage 1", check_stage1),
    ("check: step of stage 2", check_stage2),
    ("check: step on skeletons alone", check_skeletons),
    ("check: extraction", check_extraction),
    ("decoding into the device's memory", measure_decoding),
    ("extraction, side by side", measure_extraction),
    ("stage 1, an epoch at MARS's size", measure_stage1),
    ("stage 2, a step side by side", measure_stage2),
    ("stage 2, a compiled step", measure_compiled),
    ("embedding", measure_embedding),
    ("ranking at MARS's size", measure_ranking),
    ("ranking in blocks", measure_large_ranking),
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
    warnings.simplefilter("ignore")  # of the libraries that are measured
    missing = options.device == "cuda" and not torch.cuda.is_available()
    found: list[Line] = []
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(torch.device(options.device), options.quick, Path(folder))
        for name, compute in LINES:
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
