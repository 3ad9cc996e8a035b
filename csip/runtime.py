"""The machine: device, precision, processes and random numbers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment

from csip.config import RuntimeSettings
from csip.errors import CsipError
from csip.monitor import Monitor, Silent
from pose_cache.pieces import Share, Spread, device_of_this_worker
from pose_cache.processor import has_bf16, warn_without_bf16

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


def make_fabric(runtime: RuntimeSettings) -> Fabric:
    """Choose device and precision; under ``torchrun`` also join the other processes, one device each.

    Raises
    ------
    CsipError
        ``runtime.device`` is cuda and there is none.
    """
    if runtime.device == "cuda" and not torch.cuda.is_available():
        raise CsipError(
            "runtime.device is cuda, but torch sees no CUDA device; use runtime.device=cpu", parameter="device"
        )
    cuda = runtime.device == "cuda" or (runtime.device == "auto" and torch.cuda.is_available())
    many = "WORLD_SIZE" in os.environ  # torchrun's
    local = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    fabric = Fabric(
        accelerator="cuda" if cuda else "cpu",
        devices=local,
        num_nodes=int(os.environ.get("WORLD_SIZE", 1)) // local,
        strategy="ddp" if many else "auto",
        precision=precision_of(runtime, torch.device("cuda" if cuda else "cpu")),
        # Named, so that Lightning does not take one process under SLURM or MPI for one of many.
        plugins=TorchElasticEnvironment() if many else LightningEnvironment(),
    )
    fabric.launch()
    return fabric


def precision_of(runtime: RuntimeSettings, device: torch.device) -> Precision:
    """Return the numerical precision on a device: ``auto`` is bf16 if the device has units for it, and float32 if not."""
    if runtime.precision == "auto":
        return "bf16-mixed" if has_bf16(device) else "32-true"
    if runtime.precision == "bf16-mixed":
        warn_without_bf16(device, "runtime.precision=bf16-mixed")
    return runtime.precision


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Return the context in which a network computes with a precision."""
    kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(precision)
    return torch.autocast(device.type, kind, enabled=kind is not None)


def device_of_worker(device: torch.device, locks: Path) -> torch.device:
    """Return the device of one of many workers: of a machine's GPUs one each, and shared where there are more workers.

    Parameters
    ----------
    device
        What all workers are to use; a GPU without a number is any.
    locks
        Folder where the workers of a machine share out its GPUs.
    """
    if device.type != "cuda" or device.index is not None:
        return device
    gpus = tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))
    return torch.device(device_of_this_worker(gpus, locks)[1])


Item = TypeVar("Item")
Result = TypeVar("Result")


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Copy a tensor of the processor to a device, without waiting for what the device is doing."""
    if device.type != "cuda":
        return tensor.to(device)
    return (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)


def loader_options(runtime: RuntimeSettings, device: torch.device) -> dict[str, Any]:
    """Return how a loader decodes: in how many processes, and into memory that a GPU copies from by itself."""
    workers = runtime.decoders
    return {"num_workers": workers, "pin_memory": device.type == "cuda", "persistent_workers": workers > 0}


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


def share_out(fabric: Fabric, spread: Spread, do: Callable[[Spread], Result]) -> Result | None:
    """Do a work by all processes of a run: each does a share, then the first one merges.

    Parameters
    ----------
    spread
        Who does it where this process is the only one.
    do
        Does the work, see `pose_cache.parts.joined_rows`.

    Returns
    -------
    What `do` has returned; None in all but the first of several processes.

    Raises
    ------
    CsipError
        There are several processes, and `spread` says who does the work.
    """
    if fabric.world_size == 1:
        return do(spread)
    if spread != Spread():
        raise CsipError(
            f"{fabric.world_size} processes share the work: expected no workers, shares or cluster beside them"
        )
    do(Spread(share=Share(fabric.global_rank + 1, fabric.world_size)))
    fabric.barrier()
    whole = do(Spread(merge=True)) if fabric.is_global_zero else None
    fabric.barrier()
    return whole


def seed_torch(seed: int, epoch: int, step: int = 0, process: int = 0) -> None:
    """Seed torch's random numbers for an epoch or a step, each process for itself.

    They are then the same whether or not the run was stopped before, and never the same in two processes.
    """
    if step or process:  # mixed: torch looks at 32 bits alone
        torch.manual_seed(int(np.random.SeedSequence((seed, epoch, step, process)).generate_state(1)[0]))
    else:
        torch.manual_seed(seed * 1_000_003 + epoch)
