"""How often a step of stage 2 waits for the GPU, counted on the simulated one: ``python count_waits.py LIBRARY`` prints JSON."""

from __future__ import annotations

import ctypes
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

if __name__ == "__main__":
    ctypes.CDLL(sys.argv[1])  # before torch

import simulation
import torch
from simulation import DEVICE, SimulatedDevice, counted

from csip.config import Settings
from csip.models.factory import build_model, empty_encoder
from csip.runtime import make_fabric, to_device
from csip.training.keeper import LateTerms
from csip.training.stage2 import parameter_groups, train_step

STEPS = 3
TOWER = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": [64, 32], "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1},
}


def batch_of(clips: int, frames: int) -> dict[str, torch.Tensor]:
    """Make a batch as a loader of stage 2 does for a GPU."""
    return {
        "images": torch.randint(0, 256, (clips, frames, 3, 64, 32), dtype=torch.uint8),
        "joints": torch.randn(clips, frames, 17, 3),
        "valid": torch.ones(clips, frames, dtype=torch.bool),
        "label": torch.arange(clips) // 2,
        "camera": torch.zeros(clips, dtype=torch.int64),
        "flip": torch.zeros(clips, dtype=torch.bool),
        "shift": torch.zeros(clips, 2, dtype=torch.int64),
        "boxes": torch.zeros(clips, frames, 4, dtype=torch.int64),
    }


def main() -> None:
    simulation.install(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder, SimulatedDevice():
        tower = Path(folder) / "tower.json"
        tower.write_text(json.dumps(TOWER))
        settings = Settings.model_validate({
            "dataset": {"name": "waits"},
            "clips": {"frames": 2, "height": 64, "width": 32},
            "vision": {"model": str(tower), "pretrained": None},
            "skeleton_encoder": {"depth": 2, "heads": 2},
            "runtime": {"device": "cuda", "precision": "bf16-mixed"},
        })  # fmt: skip
        fabric = make_fabric(settings.runtime)
        model = build_model(empty_encoder("h36m17", 32, settings), 0.07, 4, 1, settings).to(DEVICE)
        optimizer = torch.optim.Adam(parameter_groups(model, settings), fused=True)
        wrapped, optimizer = fabric.setup(model, optimizer)
        training: Any = SimpleNamespace(settings=settings, fabric=fabric, wrapped=wrapped, optimizer=optimizer)
        late = LateTerms()
        for _ in range(STEPS):
            with counted() as waits:
                batch = {name: to_device(tensor, DEVICE) for name, tensor in batch_of(8, 2).items()}
                late.push(train_step(training, batch))
    print(json.dumps({"waits": sum(waits.values()), "where": dict(waits)}))


if __name__ == "__main__":
    main()
