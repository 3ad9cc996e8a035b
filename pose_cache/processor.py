"""What the processor has: cores for this process, and units for bfloat16 or what it costs to do without.

A GPU's units for bfloat16 are told of by the same function.
"""

import functools
import os
import platform
import time
import warnings
from pathlib import Path

import torch

__all__ = ["bf16_factor", "has_bf16", "usable_processors", "warn_without_bf16"]

_SIZE = 512


def usable_processors() -> int:
    """Return how many processors this process may run on, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1  # macOS has no affinity


def has_bf16(device: torch.device | str) -> bool:
    """Tell whether a device has units for matrix products in bfloat16.

    Parameters
    ----------
    device : torch.device or str
        A processor has them with AVX512-BF16 or AMX (x86), or the feature ``bf16`` (ARM, known on Linux alone); NVIDIA's
        GPUs since Ampere. Of other devices False is said: nothing was tried on them.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind == "cpu" and _processor_has_bf16()


@functools.cache
def _processor_has_bf16() -> bool:
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    try:
        features = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return any("bf16" in line.split() for line in features.splitlines() if line.startswith("Features"))


def bf16_factor() -> float:
    """Measure how many times as long as in float32 the processor takes for a matrix product in bfloat16."""

    def seconds(kind: torch.dtype) -> float:
        one = torch.ones(_SIZE, _SIZE, dtype=kind)
        times = []
        for _ in range(4):
            start = time.perf_counter()
            torch.mm(one, one)
            times.append(time.perf_counter() - start)
        return min(times[1:])

    return seconds(torch.bfloat16) / seconds(torch.float32)


@functools.cache
def _warn(name: str) -> None:
    factor = bf16_factor()
    warnings.warn(
        f"{name} asks for bf16, and this processor has no units for it: a matrix product takes {factor:.1f} times as long "
        "as in float32",
        RuntimeWarning,
        stacklevel=3,
    )


def warn_without_bf16(device: torch.device | str, name: str) -> None:
    """Warn, once per process, where bfloat16 is asked for on a processor that has to emulate it.

    Parameters
    ----------
    device : torch.device or str
        Where it is to be computed; only of processors is anything said.
    name : str
        The option that asks, for the message.
    """
    if torch.device(device).type == "cpu" and not has_bf16(device):
        _warn(name)
