"""Training of both stages against the straightforward form of it, ViT-B/16 (--quick: ViT-S/16) at 256x128, random weights.

Stage 1: one batch from cached frame features, against the same batch with the features computed again.
Stage 2: one step (forward, loss, backward, Adam) and the embedding of test clips, against attention that keeps its maps,
float32, and prototypes that attend to each other once a clip. Every case runs in a process of its own, so that its peak
memory is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional as F

from csip.config import Settings
from csip.models.factory import build_model, empty_encoder
from csip.models.fusion import PrototypeFusionUpdater
from csip.models.losses import LearnableTemperature, supervised_contrastive
from csip.models.skeleton_encoder import SkeletonGraphTransformer
from csip.training.stage2 import loss_terms, parameter_groups, total_loss
from pose_cache.processor import has_bf16

JOINTS = 17
WIDTHS = {"ViT-B-16": 512, "ViT-S-16": 384}  # of the projected features
# Every part of the method that a step may have.
WHOLE = {
    "update_prototypes": True, "mte": True, "atd": True, "ta": True, "lambda_distill": 1.0, "predict_skeletons": False,
}  # fmt: skip
SEEN = 2  # clips whose features are computed; the time is that of all, since it grows with their number


def settings(model: str, bf16: bool, recompute: bool = False) -> Settings:
    return Settings.model_validate({
        "dataset": {"name": "bench"},
        "vision": {"model": model, "pretrained": None},
        "stage2": WHOLE,
        "runtime": {"precision": "bf16-mixed" if bf16 else "32-true", "recompute": recompute},
    })  # fmt: skip


def keep_maps(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, *_: Any, **__: Any) -> Tensor:
    """Attention by its formula: the map is a tensor, and the gradient keeps it."""
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    if attn_mask is not None:
        scores = scores.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(dim=-1) @ value


def update_for_each_clip(updater: PrototypeFusionUpdater, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """Update the prototypes with a copy of them for every clip from the start."""
    fused = updater.fused()
    x, tokens = fused.expand(len(tokens), -1, -1).contiguous(), updater.token_norm(tokens)
    for layer in updater.layers:
        x = layer(x, tokens, mask)
    return fused + updater.out(updater.out_norm(x))


def timed(work: Callable[[], object], repeat: int, device: torch.device) -> float:
    """Seconds of the fastest of `repeat` calls after one to warm up."""
    times = []
    for _ in range(repeat + 1):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def clips(count: int, frames: int, chosen: Settings, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, frames, 3, chosen.clips.height, chosen.clips.width, generator=generator)
    joints = 0.4 * torch.randn(count, frames, JOINTS, 3, generator=generator)
    labels = torch.arange(count) // 2
    return (
        images.to(device),
        joints.to(device),
        torch.ones(count, frames, dtype=torch.bool, device=device),
        labels.to(device),
    )


@dataclass(frozen=True)
class Sizes:
    """How large a step of stage 2 is, how wide its features are, and how often it is timed."""

    clips: int
    frames: int
    identities: int
    repeat: int
    width: int = 512


def run_stage2(
    case: str, chosen: Settings, sizes: Sizes, device: torch.device, compiled: Callable[..., Any] | None = None
) -> dict:
    """Time a step and an embedding of clips; the peak of memory is this process's own.

    Parameters
    ----------
    compiled
        Compiles the model, as `torch.compile` does; not compiled without it.
    """
    bf16, width = "bf16" in case, sizes.width
    encoder = empty_encoder("h36m17", width, chosen)
    model = build_model(encoder, 0.07, sizes.identities, 6, chosen).to(device)
    model.pfu.set_prototypes(*(torch.randn(sizes.identities, width, device=device) for _ in range(2)))
    optimizer = torch.optim.Adam(parameter_groups(model, chosen), fused="plain" not in case)
    images, joints, valid, labels = clips(sizes.clips, sizes.frames, chosen, device)
    camera = torch.zeros(sizes.clips, dtype=torch.int64, device=device)
    run = model if compiled is None else compiled(model)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            output = run(images, joints, valid, camera)
        optimizer.zero_grad()
        total_loss(loss_terms(output, labels, chosen), chosen).backward()
        optimizer.step()

    @torch.no_grad()
    def embed() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            model.embed(images, camera)

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model.train()
    seconds = timed(step, sizes.repeat, device)
    peak = peak_memory(device)
    model.eval()
    return {"step": seconds, "memory": peak, "embed": timed(embed, sizes.repeat, device)}


def run_stage1(model: str, count: int, frames: int, repeat: int, device: torch.device) -> dict:
    """Time a batch of `count` clips from cached features, and what the image encoder takes to make these."""
    chosen, width = settings(model, False), WIDTHS[model]
    encoder = empty_encoder("h36m17", width, chosen).to(device)
    vision = build_model(encoder, 0.07, 2, 0, chosen).vision.to(device).eval()
    encoder.requires_grad_(True).train()
    temperature = LearnableTemperature().to(device)
    optimizer = torch.optim.Adam([*encoder.parameters(), *temperature.parameters()], fused=True)
    _, joints, valid, labels = clips(count, frames, chosen, device)
    images = clips(SEEN, frames, chosen, device)[0].flatten(0, 1)
    cached = torch.randn(count, frames, width, device=device)
    bf16 = False

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            bodies = SkeletonGraphTransformer.pool(encoder(joints, valid), valid).float()
        looks = F.normalize(cached.mean(dim=1), dim=1)
        loss = supervised_contrastive(looks, F.normalize(bodies, dim=1), labels, temperature.scale())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    @torch.no_grad()
    def recompute() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            vision(images)

    found = {}
    for bf16 in (False, True) if has_bf16(device) else (False,):
        features = timed(recompute, repeat, device) / SEEN * count
        found["bf16" if bf16 else "float32"] = {"cached": timed(step, repeat, device), "features": features}
    return found


def peak_memory(device: torch.device) -> float:
    """GiB: of the device, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run_case(case: str, options: argparse.Namespace) -> dict:
    device = torch.device(options.device)
    if case == "stage1":
        return run_stage1(options.model, options.batch, options.frames, options.repeat, device)
    width = WIDTHS[options.model]
    sizes = Sizes(options.clips, options.frames, options.identities, options.repeat, width)
    return run_stage2_as(case, settings(options.model, "bf16" in case, "recompute" in case), sizes, device)


def run_stage2_as(case: str, chosen: Settings, sizes: Sizes, device: torch.device) -> dict:
    """Run a case of stage 2, "plain" in the straightforward form."""
    if "plain" not in case:
        return run_stage2(case, chosen, sizes, device)
    # nn.MultiheadAttention finds the function where it is defined, ours through the module.
    with (
        mock.patch.object(torch.nn.functional, "scaled_dot_product_attention", keep_maps),
        mock.patch.object(PrototypeFusionUpdater, "forward", update_for_each_clip),
    ):
        return run_stage2(case, chosen, sizes, device)


def spawn(case: str, options: argparse.Namespace) -> dict:
    arguments = [f"--{name}={value}" for name, value in vars(options).items() if name not in ("quick", "case")]
    command = [sys.executable, __file__, "--case", case, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def waits_per_step() -> int | None:
    """Count how often a step of stage 2 waits for the GPU, on a simulated one; None where it cannot be compiled."""
    folder = Path(__file__).parents[1] / "device"
    program = (
        "import pathlib, sys; sys.path.insert(0, sys.argv[1]); import compiled\n"
        "print(compiled.library(pathlib.Path('build')))"
    )
    made = subprocess.run([sys.executable, "-c", program, str(folder)], capture_output=True, text=True, check=False)
    if made.returncode:
        return None
    command = [sys.executable, str(folder / "count_waits.py"), made.stdout.strip()]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return int(json.loads(done.stdout.splitlines()[-1])["waits"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller model, small batches, once: within 50 s")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--clips", type=int, help="clips of a stage-2 step, two of each identity")
    parser.add_argument("--batch", type=int, help="clips of a stage-1 batch")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--identities", type=int, default=625)
    parser.add_argument("--repeat", type=int)
    parser.add_argument("--model", choices=WIDTHS)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.model = options.model or ("ViT-S-16" if options.quick else "ViT-B-16")
    options.clips = options.clips or (2 if options.quick else 16 if options.device == "cuda" else 8)
    options.batch = options.batch or (8 if options.quick else 64)
    options.frames = options.frames or (2 if options.quick else 8)
    options.repeat = options.repeat or (1 if options.quick else 3)
    if options.case:
        print(json.dumps(run_case(options.case, options)))
        return

    best = "bf16" if has_bf16(options.device) else "float32"
    cases = ["plain float32", f"ours {best}", f"ours {best} recompute", *([] if options.quick else ["ours float32"])]
    found = {case: spawn(case, options) for case in dict.fromkeys(cases)}
    first = spawn("stage1", options)
    plain, ours, small = found["plain float32"], found[f"ours {best}"], found[f"ours {best} recompute"]
    print(f"{options.clips} clips of {options.frames} frames, 256x128, {options.model}, {options.identities} identities, "
          f"{options.device}, {torch.get_num_threads()} threads")  # fmt: skip
    print(f"\n{'stage 2':36}{'step, s':>10}{'peak, GiB':>11}{'test, clips/s':>15}")
    for case, row in found.items():
        label = (
            case.replace("plain", "straightforward,")
            .replace("ours", "ours,")
            .replace("recompute", "(runtime.recompute)")
        )
        print(f"{label:36}{row['step']:10.2f}{row['memory']:11.2f}{options.clips / row['embed']:15.2f}")
    waits = waits_per_step()
    print(f"{'waits for the GPU per step':36}{'skipped: no compiler' if waits is None else waits:>10}")
    print(f"\n{f'stage 1, {options.batch} clips':36}{'batch, s':>10}")
    for precision, row in first.items():
        print(f"{f'features recomputed, {precision}':36}{row['features'] + row['cached']:10.2f}")
        print(f"{f'features cached, {precision}':36}{row['cached']:10.2f}")
    straight, same, cached = first["float32"], first[best], first[best]["cached"]
    figures = {
        "ratio": plain["step"] / ours["step"],
        "ratio_recompute": plain["step"] / small["step"],
        "ratio_embed": plain["embed"] / ours["embed"],
        "memory_share": ours["memory"] / plain["memory"],
        "memory_share_recompute": small["memory"] / plain["memory"],
        "ratio_stage1": (straight["features"] + straight["cached"]) / cached,
        "ratio_stage1_same_precision": (same["features"] + same["cached"]) / cached,
        "waits_per_step": waits,
        "clips": options.clips, "batch": options.batch, "frames": options.frames, "device": options.device,
        "model": options.model, "precision": best, "stage1": first, "stage2": found,
    }  # fmt: skip
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
