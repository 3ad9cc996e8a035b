"""What the training loops share: devices, schedules, and a run folder that resumes and is not overwritten by accident."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from csip.config import Settings, dump_settings
from csip.errors import CsipError
from csip.models.checkpoints import MODEL, save_model
from pose_cache.shipped import IN_CLONE


class RunFolder:
    """One run of training on disk.

    ``state.pt`` holds what is needed to go on; ``inputs.json`` what the run is a function of; ``model.safetensors`` is
    there once the run has finished.
    """

    def __init__(self, path: Path, settings: Settings, data: Mapping[str, str]) -> None:
        self.path = path
        self.settings = settings
        # Where a run computes and how it is looked at does not decide what it computes.
        tree = settings.model_dump(mode="json")
        for key in ("device", "workers", "embed_batch", "save_minutes"):
            del tree["runtime"][key]
        del tree["evaluation"]
        self.inputs = {"settings": tree, "data": dict(data)}

    @property
    def model(self) -> Path:
        return self.path / MODEL

    def open(self, overwrite: bool, fabric: Fabric) -> dict[str, Any] | None:
        """Claim the folder; return the state to go on from, or None for a start.

        With several processes the first one claims it, and all go on from the same state.

        Raises
        ------
        CsipError
            A finished run is in it, or an unfinished one with other settings or data, and ``overwrite`` is not given.
        """
        self.last_save = time.monotonic()
        state = self._claim(overwrite) if fabric.is_global_zero else None
        fabric.barrier()
        state_path = self.path / "state.pt"
        if not fabric.is_global_zero and state_path.exists():
            state = torch.load(state_path, map_location="cpu", weights_only=True)
        fabric.barrier()
        return state

    def _claim(self, overwrite: bool) -> dict[str, Any] | None:
        if self.model.exists():
            if not overwrite:
                raise CsipError(
                    f"{self.model}: this run has finished; give --overwrite to train it again, or another --run folder"
                )
            self._remove()
        state_path = self.path / "state.pt"
        if state_path.exists():
            changed = _differences(json.loads((self.path / "inputs.json").read_text()), self.inputs)
            if not changed:
                return torch.load(state_path, map_location="cpu", weights_only=True)
            if not overwrite:
                raise CsipError(
                    f"{self.path}: an unfinished run with other inputs is here ({'; '.join(changed[:3])}); "
                    "give --overwrite to start anew, or another --run folder"
                )
            self._remove()
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / "inputs.json").write_text(json.dumps(self.inputs, indent=1))
        (self.path / "config.yaml").write_text(dump_settings(self.settings))
        return None

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write the state to go on from; atomic."""
        temporary = self.path / ".state.tmp"
        torch.save(dict(state), temporary)
        temporary.replace(self.path / "state.pt")
        self.last_save = time.monotonic()

    def save_is_due(self) -> bool:
        """Tell whether ``runtime.save_minutes`` have passed since the last save."""
        return time.monotonic() - self.last_save >= 60 * self.settings.runtime.save_minutes

    def finish(
        self, tensors: Mapping[str, torch.Tensor], description: Mapping[str, Any], figures: Mapping[str, Any]
    ) -> None:
        """Write the figures and then the model; what was only needed to go on is removed."""
        (self.path / "metrics.json").write_text(json.dumps(figures, indent=1))
        save_model(
            self.model,
            tensors,
            {**description, "settings": self.settings.model_dump(mode="json"), "revision": git_revision()},
        )
        for name in ("state.pt", "best.pt"):
            (self.path / name).unlink(missing_ok=True)

    def _remove(self) -> None:
        for name in (MODEL, "state.pt", "best.pt", "inputs.json", "metrics.json", "config.yaml"):
            (self.path / name).unlink(missing_ok=True)
        for events in self.path.glob("events.out.tfevents.*"):
            events.unlink()


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [line for k in keys for line in _differences(old.get(k), new.get(k), f"{prefix}{k}.")]
    return [] if old == new else [f"{prefix.rstrip('.').removeprefix('settings.')}: {old} there, {new} here"]


def git_revision() -> str:
    """Return the revision of the code: git's in a clone, elsewhere the version and what the wheel was made from.

    A repository that merely encloses the code, such as a user's own around an environment, is not asked.
    """
    root = Path(__file__).resolve().parents[2]
    if IN_CLONE and (root / ".git").exists():
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        # Git sets these for its hooks, and they come before -C.
        environment = {key: value for key, value in os.environ.items() if key not in ("GIT_DIR", "GIT_WORK_TREE")}
        with suppress(OSError, subprocess.CalledProcessError):
            return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()
    try:
        version = metadata.version("csip")
    except metadata.PackageNotFoundError:
        return "unknown"
    made_from = root / "csip" / "revision.txt"
    return f"{version} ({made_from.read_text().strip()})" if made_from.exists() else version


def check_finite(terms: Mapping[str, torch.Tensor], epoch: int, step: int) -> None:
    """Stop at the first loss that is no number.

    Raises
    ------
    CsipError
        Names the term, the epoch and the step.
    """
    for name, value in terms.items():
        if not torch.isfinite(value):
            raise CsipError(
                f"the loss term {name} became {value.item()} in epoch {epoch + 1}, step {step + 1}; "
                "what was saved before is kept: lower the learning rate, clip gradients, or use runtime.precision=32-true"
            )
