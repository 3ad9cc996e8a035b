"""What is wrong with this installation, and how to mend it."""

from __future__ import annotations

import functools
import platform
import tomllib
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from rich.table import Table

from csip.files import digest
from pipelines.console import console, labelled
from pose_cache.compat import guard_torchvision
from pose_cache.estimator import PoseEstimator, demo, human3d
from pose_cache.processor import has_bf16
from pose_cache.shipped import CONFIGS, IN_CLONE, repair
from pose_cache.standins import compiled_operators, version_of
from pose_cache.standins.mmcv_ext import has_torchvision_nms

GIVEN = ("torch", "mmpose", "mmengine", "mmcv", "mmdet", "open_clip_torch", "h5py", "joblib", "typer")
SETUP = repair()


def run() -> bool:
    """Print every check with its result, and for what is wrong the fix; return whether all is well."""
    table = Table(
        "check", "result", title=f"Python {platform.python_version()}, {platform.platform()}", title_justify="left"
    )
    problems = []
    checks: list[tuple[str, Callable[[], str], str]] = [
        ("packages", check_versions, SETUP),
        ("devices", check_devices, "install a CUDA build of torch that fits the driver, or use the CPU"),
        ("mmcv operators", check_operators, SETUP),
        ("2D pose model", check_pose, SETUP),
        ("3D lifter", check_lifter, SETUP),
        ("person detector", check_detector, SETUP),
        ("image encoder", check_vision, SETUP),
        ("demo weights", check_demo_weights, "git checkout configs" if IN_CLONE else SETUP),
    ]
    for name, check, fix in checks:
        try:
            table.add_row(name, labelled("ok", "green", f"  {check()}"))
        except Exception as error:  # a check stands for whatever can break in an installation
            reason = str(error).strip().splitlines()
            text = f": {reason[0] if reason else ''}\nfix: {fix}"
            table.add_row(name, labelled(type(error).__name__, "red", text))
            problems.append(name)
    console.print(table)
    console.print(
        "all is well" if not problems else f"{len(problems)} of {len(checks)} checks failed: {', '.join(problems)}"
    )
    return not problems


def check_versions() -> str:
    """Compare the installed packages with the versions that this one was tested with."""
    found = {name: version_of(name) for name in GIVEN}
    pins = _pins()
    wrong = [f"{n} is {v}, expected {pins[n]}" for n, v in found.items() if n in pins and v.split("+")[0] != pins[n]]
    if wrong:
        raise RuntimeError("; ".join(wrong))
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _pins() -> dict[str, str]:
    """Return {package: version} for what has to be there at one exact version."""
    carried: dict[str, str] = {}
    if IN_CLONE:
        project = tomllib.loads((CONFIGS.parent / "pyproject.toml").read_text())
        needed, carried = project["project"]["dependencies"], project["tool"]["csip"]
    else:
        needed = [line for line in metadata.requires("csip") or [] if ";" not in line]
    pins = dict(line.split("==") for line in needed if "==" in line)
    return {("mmcv" if name == "mmcv-lite" else name.replace("-", "_")): pin for name, pin in (pins | carried).items()}


def check_devices() -> str:
    """Use the first GPU where torch sees one."""
    threads = f"{torch.get_num_threads()} threads, {'with' if has_bf16('cpu') else 'without'} bf16 units"
    if not torch.cuda.is_available():
        build = f"built for CUDA {torch.version.cuda}, no usable GPU" if torch.version.cuda else "CPU build of torch"
        return f"{build}; {threads}"
    torch.ones(2, device="cuda").sum().item()
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return f"CUDA {torch.version.cuda}: {', '.join(names)}; processor: {threads}"


def check_operators() -> str:
    """Run those of mmcv's operators that are used: non-maximum suppression, alone and by class as detectors do."""
    guard_torchvision()
    from mmcv.ops import batched_nms, nms

    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    scores = torch.tensor([0.9, 0.8, 0.7])
    for name, kept, expected in (
        ("non-maximum suppression", nms(boxes, scores, 0.5)[1].tolist(), [0, 2]),
        ("the same by class",
         batched_nms(boxes, scores, torch.tensor([0, 1, 1]), {"type": "nms", "iou_threshold": 0.5})[1].tolist(), [0, 1, 2]),
    ):  # fmt: skip
        if kept != expected:
            raise RuntimeError(f"{name} kept {kept}, expected {expected}")
    if compiled_operators():
        return "mmcv's own, compiled; non-maximum suppression runs"
    by = "torchvision" if has_torchvision_nms() else "numpy"
    return f"none compiled (mmcv-lite); non-maximum suppression by {by} runs"


def check_pose() -> str:
    """Run the 2D model of the human3d estimator, with random weights."""
    keypoints = _untrained().detect([np.zeros((256, 128, 3), dtype=np.uint8)])
    return f"RTMPose-m: {keypoints.shape[1]} keypoints"


def check_lifter() -> str:
    """Run the lifter of the human3d estimator, with random weights."""
    sizes = np.full((4, 2), (64, 128), dtype=np.float32)
    keypoints = np.random.default_rng(0).uniform(0, 64, (4, 17, 3)).astype(np.float32)
    joints = _untrained().lift([(keypoints, sizes)])[0]
    return f"MotionBERT: {joints.shape[1]} joints"


@functools.cache
def _untrained() -> PoseEstimator:
    return PoseEstimator(replace(human3d(), pose2d_weights=None, lifter_weights=None))


def check_detector() -> str:
    """Run MMDetection's person detector on a blank picture, with random weights."""
    guard_torchvision()
    import mmdet
    from mmdet.apis import inference_detector, init_detector
    from mmengine.config import Config

    config = Path(mmdet.__file__).parent / ".mim" / "configs" / "rtmdet" / "rtmdet_tiny_8xb32-300e_coco.py"
    settings = Config.fromfile(config)
    settings.model.backbone.init_cfg = None
    detector = init_detector(settings, None, device="cpu", palette="coco")
    inference_detector(detector, np.zeros((128, 128, 3), dtype=np.uint8))
    return "RTMDet-tiny"


def check_vision() -> str:
    """Run the demo's image encoder, with random weights."""
    from csip.models.vision import create_vision

    vision = create_vision(str(CONFIGS / "vision" / "demo.json"), None, (128, 64)).eval()
    with torch.inference_mode():
        output = vision(torch.zeros(1, 3, 128, 64))
    return f"OpenCLIP: {output.tokens.shape[1]} tokens, {output.projected.shape[1]} values per image"


def check_demo_weights() -> str:
    """Load the weights that ship with the project."""
    from csip.models.vision import create_vision

    vision = CONFIGS / "vision" / "demo"
    create_vision(str(vision.with_suffix(".json")), str(vision.with_suffix(".safetensors")), (128, 64))
    return f"demo estimator {PoseEstimator(demo()).digest[:12]}, demo image encoder {digest(vision.with_suffix('.safetensors'))}"
