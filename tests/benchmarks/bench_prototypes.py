"""The Prototype Fusion Updater by the number of identities: time and memory of a forward and backward pass.

Three forms: ours with full attention between prototypes, whose first self-attention is computed once for all clips; the same
through 64 learnable points (`stage2.prototype_attention: induced`); and the straightforward one, with a copy of the prototypes
for every clip from the start and attention maps that are kept. Every case runs in a process of its own, so that its peak memory
is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from unittest import mock

import torch
from bench_train import keep_maps, update_for_each_clip

from csip.config import Stage2Settings
from csip.models.fusion import PrototypeFusionUpdater

WIDTH, TOKENS = 512, 16
FORMS = ("straightforward", "full", "induced")


def run_case(form: str, identities: int, clips: int, repeat: int, device: torch.device) -> dict:
    """Time one form; seconds of the fastest pass, and GiB that the passes added at their peak."""
    torch.manual_seed(0)
    updater = PrototypeFusionUpdater(
        identities,
        WIDTH,
        Stage2Settings(update_prototypes=True, prototype_attention="induced" if form == "induced" else "full"),
    ).to(device)
    updater.set_prototypes(torch.randn(identities, WIDTH), torch.randn(identities, WIDTH))
    torch.nn.init.normal_(updater.out.weight, std=0.02)
    tokens = torch.randn(clips, TOKENS, WIDTH, device=device)
    before = peak(device)
    times = []
    for _ in range(repeat + 1):
        started = time.perf_counter()
        updater(tokens).square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return {"seconds": min(times[1:] or times), "memory": peak(device) - before}


def peak(device: torch.device) -> float:
    """GiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def spawn(form: str, identities: int, options: argparse.Namespace) -> dict:
    command = [sys.executable, __file__, "--case", form, "--identities", str(identities), "--clips", str(options.clips)]
    command += ["--repeat", str(options.repeat), "--device", options.device]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer clips and identities")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--clips", type=int)
    parser.add_argument("--repeat", type=int)
    parser.add_argument("--identities", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--case", choices=FORMS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.clips = options.clips or (2 if options.quick else 4)
    options.repeat = options.repeat or (1 if options.quick else 2)
    if options.case:
        straight = options.case == "straightforward"
        with (
            mock.patch.object(
                torch.nn.functional,
                "scaled_dot_product_attention",
                keep_maps if straight else torch.nn.functional.scaled_dot_product_attention,
            ),
            mock.patch.object(
                PrototypeFusionUpdater, "forward", update_for_each_clip if straight else PrototypeFusionUpdater.forward
            ),
        ):
            print(
                json.dumps(
                    run_case(
                        options.case, options.identities, options.clips, options.repeat, torch.device(options.device)
                    )
                )
            )
        return

    counts = (625, 1250) if options.quick else (625, 1250, 2500, 5000, 10_000)
    print(
        f"{options.clips} clips, forward and backward in float32, {options.device}, {torch.get_num_threads()} threads\n"
    )
    print(f"{'identities':>10}" + "".join(f"{form + ', s':>20}{'GiB':>7}" for form in FORMS))
    found: dict[int, dict[str, dict]] = {}
    for count in counts:
        # Maps of all clips are N x N x heads x clips numbers, several times over: beyond 2,500 they do not fit.
        forms = FORMS if count <= 2500 else FORMS[1:]
        found[count] = {form: spawn(form, count, options) for form in forms}
        cells = [found[count].get(form) for form in FORMS]
        print(
            f"{count:>10}"
            + "".join(
                f"{'-':>20}{'-':>7}" if row is None else f"{row['seconds']:>20.2f}{row['memory']:>7.2f}"
                for row in cells
            )
        )
    pays = next(
        (count for count in counts if found[count]["induced"]["seconds"] < found[count]["full"]["seconds"]), None
    )
    print(
        f"\nattention through points is faster from {pays} identities on"
        if pays
        else "\nfull attention is faster everywhere"
    )
    last = max(count for count in counts if "straightforward" in found[count])
    row = found[last]
    print(json.dumps({
        "benchmark": "prototypes", "device": options.device, "clips": options.clips,
        "ratio": row["straightforward"]["seconds"] / row["full"]["seconds"],
        "memory_share": row["full"]["memory"] / row["straightforward"]["memory"],
        "ratio_identities": last, "induced_pays_from": pays, "found": found,
    }))  # fmt: skip


if __name__ == "__main__":
    main()
