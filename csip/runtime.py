"""The machine: device, precision, processes and random numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from lightning_fabric import Fabric

from csip.config import RuntimeSettings
from csip.errors import CsipError
from csip.monitor import Monitor, Silent
from pose_cache.processor import has_bf16, warn_without_bf16


def make_fabric(runtime: RuntimeSettings) -> Fabric:
    """Choose device and precision; under ``torchrun`` also join the other processes, one device each.

    Raises
    ------
    CsipError
        ``runtime.device`` is cuda and there is none.
    """
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise CsipError(
            "runtime.device is cuda, but torch sees no CUDA device; `csip doctor` tells why, or use runtime.device=cpu"
        )
    cuda = runtime.device == "cuda" or (runtime.device == "auto" and torch.cuda.is_available())
    device = "cuda" if cuda else "cpu"
    precision = runtime.precision
    if precision == "auto":
        precision = "bf16-mixed" if has_bf16(device) else "32-true"
    elif precision == "bf16-mixed":
        warn_without_bf16(device, "runtime.precision=bf16-mixed")
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))  # torchrun's
    fabric = Fabric(
        accelerator=device,
        devices=local,
        num_nodes=int(os.environ.get("WORLD_SIZE", 1)) // local,
        strategy="ddp" if "WORLD_SIZE" in os.environ else "auto",
        precision=precision,
    )
    fabric.launch()
    return fabric


Item = TypeVar("Item")
Result = TypeVar("Result")


def only_first(monitor: Monitor, fabric: Fabric) -> Monitor:
    """Let the first process speak for all."""
    return monitor if fabric.is_global_zero else Silent()


def gather(fabric: Fabric, share: torch.Tensor) -> torch.Tensor:
    """Join the rows (B / processes, ...) that each process has to (B, ...); gradients go back to whose rows they are.

    A loss over the joined rows is then the loss of the whole batch, equal in every process.
    """
    if fabric.world_size == 1:
        return share
    whole = fabric.all_gather(share, sync_grads=share.requires_grad)
    assert isinstance(whole, torch.Tensor)
    return whole.flatten(0, 1)


def share(fabric: Fabric, items: Sequence[Item], compute: Callable[[Sequence[Item]], Sequence[Result]]) -> list[Result]:
    """Compute one result per item, each process for a part of the items; every process returns all results, in order.

    Parameters
    ----------
    compute
        Called once in every process that has items, with its part.
    """
    if fabric.world_size == 1:
        return list(compute(items))
    bounds = [rank * len(items) // fabric.world_size for rank in range(fabric.world_size + 1)]
    mine = items[bounds[fabric.global_rank] : bounds[fabric.global_rank + 1]]
    parts: list[list[Result]] = [[] for _ in range(fabric.world_size)]
    torch.distributed.all_gather_object(parts, list(compute(mine)) if mine else [])
    return [result for part in parts for result in part]


def seed_torch(seed: int, epoch: int, step: int = 0, process: int = 0) -> None:
    """Seed torch's random numbers for an epoch or a step, each process for itself.

    They are then the same whether or not the run was stopped before, and never the same in two processes.
    """
    torch.manual_seed(seed * 1_000_003 + epoch + step * 2_147_483_647 + process * 15_485_863)
