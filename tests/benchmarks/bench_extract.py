"""Frames a second of skeleton extraction, against MMPose's functions that take one frame at a time.

    python tests/benchmarks/bench_extract.py [--quick] [--device cuda] [--threads N] [--batch N] [--clock cpu]

Both sides have the models of `human3d` (RTMPose-m and MotionBERT) with the same random weights, read the same JPEG
files of rendered people, 128 x 256 pixels, and work without the flip test. The peer does what MMPose's Pose3DInferencer
does to an image whose only person fills it: `inference_topdown`, conversion of the keypoints, and the lifter with a
sequence of one frame. It is spared the detector, the tracking and the drawing. Rounds are interleaved and medians taken.

On a machine that others use at the same time, `--threads 1 --clock cpu` counts the time that the processor spent on this
process, not what passed: more threads than free cores wait for each other, and the side with more layers waits more.

In the first round, ours is compared with the peer: 2D keypoints in float32 must be equal.

The floor is what the multiplications of the models would take at the rate of torch's own matrix product of that type, with
as many threads. In float32 that product can be slower than the layers: torch gives it to MKL, and most of the layers to
oneDNN. So the rate of oneDNN's linear layer is measured too, and the faster of the two is the floor.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from csip.synthetic.world import SyntheticSpec, render_mars
from pose_cache.compat import guard_torchvision
from pose_cache.decode import decode_ahead
from pose_cache.estimator import EstimatorSpec, PoseEstimator, Precision, demo, human3d
from pose_cache.images import read_frame
from pose_cache.processor import has_bf16, usable_processors

LENGTHS = (60, 41, 60, 23, 56)  # of tracklets: about MARS's mean
BODY = 1.72  # metres: what the estimators take a crop's longer side for


clock: Callable[[], float] = time.perf_counter


@dataclass
class Times:
    """Seconds a frame of every round."""

    pose2d: list[float]
    lifting: list[float]

    def rate(self) -> tuple[float, float, float]:
        """Frames a second: 2D, lifting, both."""
        both = [a + b for a, b in zip(self.pose2d, self.lifting, strict=True)]
        return tuple(1 / statistics.median(times) for times in (self.pose2d, self.lifting, both))


def render(root: Path, tracklets: int, longest: int = max(LENGTHS)) -> list[list[str]]:
    """Render people; returns the frames of each tracklet, relative to the root, at most `longest`."""
    spec = SyntheticSpec(
        train_ids=-(-tracklets // 2), test_ids=1, cameras=2, tracklets_per_camera=1, frames=longest,
        height=256, width=128, distractors=0, junk=0,
    )  # fmt: skip
    render_mars(root, spec, workers=1)
    found: dict[str, list[str]] = {}
    for file in sorted((root / "bbox_train").rglob("*.jpg")):
        found.setdefault(file.name[:11], []).append(str(file.relative_to(root)))
    lengths = [LENGTHS[index % len(LENGTHS)] for index in range(tracklets)]
    return [frames[:length] for frames, length in zip(found.values(), lengths, strict=False)]


def mmposes_models(spec: EstimatorSpec, device: str) -> tuple[Any, Any]:
    """The models that an estimator without weights has, as MMPose makes them."""
    guard_torchvision()
    from mmengine.config import Config
    from mmpose.apis import init_model

    models = []
    for config in (spec.pose2d_config, spec.lifter_config):
        torch.manual_seed(0)
        model = init_model(Config.fromfile(config), None, "cpu").to(device)
        model.test_cfg["flip_test"] = False
        models.append(model)
    return models[0], models[1]


class Peer:
    """One frame at a time through MMPose's inference functions."""

    def __init__(self, spec: EstimatorSpec, device: str) -> None:
        self.pose2d, self.lifter = mmposes_models(spec, device)

    def detect(self, path: Path) -> Any:
        from mmpose.apis import inference_topdown

        return inference_topdown(self.pose2d, read_frame(path))[0]

    def lift(self, found: Any) -> np.ndarray:
        from mmengine.structures import InstanceData
        from mmpose.apis import convert_keypoint_definition, inference_pose_lifter_model
        from mmpose.structures import PoseDataSample

        sample = PoseDataSample()
        keypoints = convert_keypoint_definition(found.pred_instances.keypoints, "coco", "h36m")
        sample.pred_instances = InstanceData(keypoints=keypoints, bboxes=found.pred_instances.bboxes)
        sample.gt_instances = InstanceData()
        sample.track_id = 0
        height, width = found.ori_shape
        (lifted,) = inference_pose_lifter_model(self.lifter, [[sample]], image_size=(height, width))
        return lifted.pred_instances.keypoints


def time_ours(
    estimator: PoseEstimator, root: Path, tracklets: list[list[str]], batch: int, workers: int, times: Times | None
) -> tuple[np.ndarray, np.ndarray]:
    """Extract all tracklets as `pose_cache.extract` does, but without writing; returns keypoints and joints."""
    frames = [frame for one in tracklets for frame in one]
    start = clock()
    keypoints, sizes = [], []
    for decoded in decode_ahead([frames], root, estimator.prepare, estimator.input_shape, batch, workers):
        keypoints.append(estimator.detect_prepared(decoded.inputs, decoded.sizes))
        sizes.append(decoded.sizes)
    middle = clock()
    ends = np.cumsum([len(one) for one in tracklets])[:-1]
    whole, shapes = np.concatenate(keypoints), np.concatenate(sizes)
    joints = estimator.lift(list(zip(np.split(whole, ends), np.split(shapes, ends), strict=True)))
    end = clock()
    if times is not None:
        times.pose2d.append((middle - start) / len(frames))
        times.lifting.append((end - middle) / len(frames))
    return whole, np.concatenate(joints)


def time_peer(peer: Peer, paths: list[Path], times: Times | None) -> np.ndarray:
    """Extract frames one by one; returns the keypoints."""
    start = clock()
    found = [peer.detect(path) for path in paths]
    middle = clock()
    for one in found:
        peer.lift(one)
    end = clock()
    if times is not None:
        times.pose2d.append((middle - start) / len(paths))
        times.lifting.append((end - middle) / len(paths))
    return np.concatenate([one.pred_instances.keypoints for one in found])


def product_rate(product: Callable[[], Any], flops: float, device: str) -> float:
    """Operations a second of a matrix product, the best of several."""

    def once() -> float:
        if device != "cpu":
            torch.cuda.synchronize()
        start = clock()
        product()
        if device != "cpu":
            torch.cuda.synchronize()
        return clock() - start

    once()
    return flops / min(once() for _ in range(4))


def matmul_rates(kind: torch.dtype, device: str) -> tuple[float, float]:
    """Operations a second of torch's matrix product, and of oneDNN's linear layer (0 where there is none)."""
    size = 1024 if device == "cpu" else 8192
    a, b = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    plain = product_rate(lambda: a @ b, 2 * size**3, device)
    if device != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
        return plain, 0.0
    packed = torch.ops.mkldnn._reorder_linear_weight(b, None)
    linear = product_rate(
        lambda: torch.ops.mkldnn._linear_pointwise(a, packed, None, "none", [], ""), 2 * size**3, device
    )
    return plain, linear


def count_flops(peer: Peer, device: str) -> tuple[float, float]:
    """Floating point operations a frame of the 2D model and of the lifter, in windows of the mean length."""
    frames = round(statistics.mean(LENGTHS))
    with torch.inference_mode():
        with FlopCounterMode(display=False) as pose2d:
            peer.pose2d(torch.zeros(1, 3, 256, 192, device=device), None, mode="tensor")
        with FlopCounterMode(display=False) as lifting:
            peer.lifter(torch.zeros(1, frames, 17, 3, device=device), None, mode="tensor")
    return float(pose2d.get_total_flops()), lifting.get_total_flops() / frames


def decode_rate(paths: list[Path], workers: int) -> float:
    """Frames a second of decoding alone, in as many threads as extraction has."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(workers) as pool:
        start = clock()
        for _ in pool.map(read_frame, paths):
            pass
        return len(paths) / (clock() - start)


def drift(exact: tuple[np.ndarray, np.ndarray], rough: tuple[np.ndarray, np.ndarray]) -> dict[str, float]:
    """How far joints are from those in float32, on average: pixels of the crop, and per cent of the body's height."""
    pixels = np.linalg.norm(exact[0][..., :2] - rough[0][..., :2], axis=-1)
    metres = np.linalg.norm(exact[1] - rough[1], axis=-1)
    return {
        "px_mean": float(pixels.mean()), "px_median": float(np.median(pixels)),
        "body_percent_mean": float(100 * metres.mean() / BODY),
    }  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What was measured, by precision where it is a dictionary."""

    frames: int
    rounds: int
    batch: int
    peers: Times
    ours: dict[Precision, Times]
    rates: dict[Precision, list[tuple[float, float]]]
    random: dict[Precision, Any]
    trained: dict[Precision, Any]
    flops: Sequence[float]
    decoding: list[float]
    apart: float


def measure(device: str, threads: int, batch: int, quick: bool) -> Measured:
    """Time ours and MMPose in turns, on the same crops."""
    gpu = device != "cpu"
    rounds, tracklets, peer_frames = (2, 1, 8) if quick else (7, 5, 48)
    spec = replace(human3d(), pose2d_weights=None, lifter_weights=None)
    # A processor without units for bf16 emulates it, which takes many times as long and says nothing.
    precisions: list[Precision] = ["32", "bf16", "16"] if gpu else ["32", "bf16"] if has_bf16("cpu") else ["32"]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        people = render(root, tracklets)
        paths = [root / frame for one in people for frame in one]
        repeated = people * (64 if gpu else 1)  # enough that a GPU is measured, and not its start
        peer = Peer(spec, device)
        ours = {one: PoseEstimator(spec, device, False, one) for one in precisions}
        times = {one: Times([], []) for one in precisions}
        peers = Times([], [])
        rates: dict[str, list[tuple[float, float]]] = {one: [] for one in precisions}
        found = {one: time_ours(ours[one], root, people, batch, threads, None) for one in precisions}
        theirs = time_peer(peer, paths[:4], None)
        apart = float(np.abs(theirs - found["32"][0][:4, :, :2]).max())
        decoding = []
        kinds = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
        for turn in range(rounds):
            for one in precisions:
                time_ours(ours[one], root, repeated, batch, threads, times[one])
                rates[one].append(matmul_rates(kinds[one], device))
            some = [paths[(turn * peer_frames + index) % len(paths)] for index in range(peer_frames)]
            time_peer(peer, some, peers)
            decoding.append(decode_rate(paths, threads))
        trained = {one: PoseEstimator(demo(), device, False, one) for one in precisions}
        known = {one: time_ours(trained[one], root, people, batch, threads, None) for one in precisions}
        flops = count_flops(peer, device)
    return Measured(len(paths), rounds, batch, peers, times, rates, found, known, flops, decoding, apart)


def print_rates(measured: Measured, threads: int) -> dict[str, Any]:
    """Print frames per second, their ratio to MMPose's and the floor that the processor sets; return them."""
    print(f"{'frames a second':<34}{'2D':>9}{'lifting':>9}{'both':>9}{'ratio':>8}")
    theirs = measured.peers.rate()
    print(f"{'MMPose, one frame at a time':<34}" + "".join(f"{rate:>9.1f}" for rate in theirs) + f"{1:>8.2f}")
    result: dict[str, Any] = {"peer_fps": round(theirs[2], 2)}
    result["peer_fps_2d"], result["peer_fps_lifting"] = round(theirs[0], 2), round(theirs[1], 2)
    flops = measured.flops
    for one, times in measured.ours.items():
        label = {"32": "float32", "bf16": "bf16", "16": "fp16"}[one]
        end = {"32": "", "bf16": "_bf16", "16": "_fp16"}[one]
        rate = times.rate()
        plain, linear = (statistics.median(column) for column in zip(*measured.rates[one], strict=True))
        top = max(plain, linear)
        floors = [top / flops[0], top / flops[1], top / sum(flops)]
        # The ratio of rounds, not of medians: what else runs on the machine disturbs neighbours alike.
        sums = [[a + b for a, b in zip(t.pose2d, t.lifting, strict=True)] for t in (measured.peers, times)]
        ratio = statistics.median(a / b for a, b in zip(*sums, strict=True))
        print(f"{'ours, ' + label:<34}" + "".join(f"{value:>9.1f}" for value in rate) + f"{ratio:>8.2f}")
        print(f"{'  floor, ' + label:<34}" + "".join(f"{value:>9.1f}" for value in floors))
        print(f"    matrix products: torch {plain / 1e9:.0f} GFLOP/s, oneDNN's linear layer {linear / 1e9:.0f} GFLOP/s")
        result["ratio" + end] = round(ratio, 2)
        result["fps" + end], result["floor_fps" + end] = round(rate[2], 1), round(floors[2], 1)
        result["fps_2d" + end], result["fps_lifting" + end] = round(rate[0], 1), round(rate[1], 1)
        result["matmul_gflops" + end], result["linear_gflops" + end] = round(plain / 1e9), round(linear / 1e9)
    decoding = statistics.median(measured.decoding)
    print(f"\nJPEG decoding alone: {decoding:.0f} frames/s in {threads} threads")
    print(f"GFLOP a frame: 2D {flops[0] / 1e9:.2f}, lifting {flops[1] / 1e9:.2f}")
    print(f"2D keypoints, ours in float32 against MMPose: at most {measured.apart:.4f} px apart")
    return result | {"decode_fps": round(decoding), "peer_px_apart": round(measured.apart, 5)}


def print_drift(measured: Measured) -> dict[str, Any]:
    """Print how far lower precisions move the joints; return it."""
    result: dict[str, Any] = {}
    print("\njoints moved by precision, against ours in float32, on average (2D: px of the crop; 3D: % of body height)")
    for one in list(measured.ours)[1:]:
        for label, results, prefix in (
            ("random weights", measured.random, f"drift_{one}_"),
            ("trained demo models", measured.trained, f"drift_{one}_trained_"),
        ):
            moved = drift(results["32"], results[one])
            print(
                f"  {one:<6}{label:<22}2D {moved['px_mean']:.3f} px (median {moved['px_median']:.3f}),"
                f" 3D {moved['body_percent_mean']:.3f} %"
            )
            result |= {prefix + key: round(value, 4) for key, value in moved.items()}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer frames and rounds")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=usable_processors(), help="of torch, and decoders")
    parser.add_argument("--batch", type=int, help="crops at once: 16 by default, 256 on a GPU")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    arguments = parser.parse_args()
    if arguments.clock == "cpu":
        if arguments.threads != 1 or arguments.device != "cpu":
            parser.error("--clock cpu is for --threads 1 on the processor: threads that wait for each other count, too")
        global clock
        clock = time.process_time
    warnings.simplefilter("ignore")
    torch.set_num_threads(arguments.threads)
    device, gpu = arguments.device, arguments.device != "cpu"
    measured = measure(device, arguments.threads, arguments.batch or (256 if gpu else 16), arguments.quick)
    name = torch.cuda.get_device_name() if gpu else f"{arguments.threads} threads of {platform.machine()}"
    print(
        f"{name}, torch {torch.__version__}, {measured.frames} frames, {measured.rounds} rounds, batches of {measured.batch}, "
        f"{arguments.clock} time\n"
    )
    result = {"benchmark": "extract", "device": name, "clock": arguments.clock}
    print(json.dumps(result | print_rates(measured, arguments.threads) | print_drift(measured)))


if __name__ == "__main__":
    main()
