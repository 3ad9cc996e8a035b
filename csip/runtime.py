"""The machine: device, precision, processes and random numbers."""

from __future__ import annotations

import os
from collections.abc import Mapping

import torch
from lightning_fabric import Fabric

from csip.config import RuntimeSettings
from csip.errors import CsipError
from csip.monitor import Monitor, Silent
from pose_cache.precision import has_bf16, warn_without_bf16


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


def get_rng_state(device: torch.device) -> dict[str, torch.Tensor]:
    """Return the state of torch's random numbers, on the device too."""
    state = {"cpu": torch.get_rng_state()}
    return state | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else state


def set_rng_state(state: Mapping[str, torch.Tensor], device: torch.device) -> None:
    """Go on with the random numbers of `get_rng_state`."""
    torch.set_rng_state(state["cpu"])
    if "cuda" in state and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)


def seed_epoch(seed: int, epoch: int) -> None:
    """Seed torch for one epoch, so that an epoch is the same whether or not the run was stopped before it."""
    torch.manual_seed(seed * 1_000_003 + epoch)
