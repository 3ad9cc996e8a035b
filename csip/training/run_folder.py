"""A run folder that resumes and is not overwritten by accident."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from csip.config import Settings, dump_settings
from csip.errors import CsipError
from csip.files import atomic, parse_json, write_json, write_text
from csip.models.checkpoints import MODEL, save_model
from csip.version import code_revision

STATE = "state.pt"
BEST = "best.pt"
FORMAT = 2  # of state.pt


class RunFolder:
    """One run of training on disk.

    ``state.pt`` holds what is needed to resume; ``best.pt`` the best checkpoint so far; ``inputs.json`` what the run is a
    function of; ``model.safetensors`` is there once the run has finished. Every file is written whole or not at all.

    Parameters
    ----------
    path
        The folder.
    settings
        Of the run.
    data
        Digests of what it is trained on.
    skeletons
        The skeleton cache that it reads; noted for `skeletons_of`, and of no other account: its content is in `data`.
    unread
        Sections of the settings that this training does not read: a run resumes whatever becomes of them.
    """

    def __init__(
        self,
        path: Path,
        settings: Settings,
        data: Mapping[str, str],
        skeletons: Path | None = None,
        unread: Collection[str] = (),
    ) -> None:
        self.path = path
        self.settings = settings
        self.unread = ("evaluation", *unread)
        self.started = self.last_save = time.monotonic()
        # Where a run computes and how it is looked at does not decide what it computes.
        tree = settings.model_dump(mode="json")
        for key in ("device", "workers", "embed_batch", "save_minutes"):
            del tree["runtime"][key]
        for section in self.unread:
            del tree[section]
        self.inputs = {"settings": tree, "data": dict(data)}
        self.places = {} if skeletons is None else {"skeletons": str(skeletons.absolute())}

    @property
    def model(self) -> Path:
        return self.path / MODEL

    def open(self, overwrite: bool, fabric: Fabric) -> dict[str, Any] | None:
        """Claim the folder; return the state to resume from, or None for a start.

        With several processes the first one claims it, and all resume from the same state.

        Raises
        ------
        CsipError
            A finished run is in it, or an unfinished one with other settings or data, and ``overwrite`` is not given; or
            what an unfinished run has left is damaged.
        """
        state = self._claim(overwrite) if fabric.is_global_zero else None
        fabric.barrier()
        if not fabric.is_global_zero and (self.path / STATE).exists():
            state = self._resume()
        fabric.barrier()
        return state

    def load(self, name: str) -> dict[str, Any]:
        """Read ``state.pt`` or ``best.pt`` into the processor's memory.

        Raises
        ------
        CsipError
            The file is missing or damaged.
        """
        path = self.path / name
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(content, dict):
                raise TypeError(f"a {type(content).__name__}")
        except Exception as error:  # torch and pickle raise whatever they stumble over
            raise CsipError(
                f"{path}: missing or damaged ({type(error).__name__}); overwrite the run to train this stage anew",
                parameter="overwrite",
            ) from error
        return content

    def _claim(self, overwrite: bool) -> dict[str, Any] | None:
        if self.model.exists() and not overwrite:
            self._forget_state()  # killed when it had just finished
            raise CsipError(
                f"{self.model}: this run has finished; overwrite it to train it again, or choose another folder",
                parameter="overwrite",
            )
        if (self.path / STATE).exists() and not self.model.exists():
            try:
                state = self._resume()
            except CsipError:
                if not overwrite:
                    raise
            else:  # what it does not read may be other settings now
                write_text(self.path / "config.yaml", dump_settings(self.settings))
                return state
        self._remove()
        write_json(self.path / "inputs.json", {**self.inputs, "places": self.places})
        write_text(self.path / "config.yaml", dump_settings(self.settings))
        return None

    def _resume(self) -> dict[str, Any]:
        changed = self.differences()
        if changed:
            raise CsipError(
                f"{self.path}: an unfinished run with other inputs is here ({'; '.join(changed[:3])}); "
                "overwrite it to start anew, or choose another folder",
                parameter="overwrite",
            )
        state = self.load(STATE)
        if state.get("format") != FORMAT:
            raise CsipError(
                f"{self.path / STATE}: written by another version of csip (format {state.get('format', 1)}, expected "
                f"{FORMAT}); finish the run with that version, or overwrite it to start anew",
                parameter="overwrite",
            )
        return state

    def differences(self) -> list[str]:
        """Say in which settings and data the run that is here differs from the one that is asked for.

        Raises
        ------
        CsipError
            What it was trained on is missing or damaged.
        """
        inputs = self.path / "inputs.json"
        try:
            recorded = parse_json(inputs.read_bytes())
            recorded.pop("places", None)
            for section in self.unread:
                recorded["settings"].pop(section, None)
        except (OSError, ValueError, AttributeError, TypeError, KeyError) as error:
            raise CsipError(
                f"{inputs}: missing or damaged, so that nobody knows what {STATE} beside it was trained on; "
                "overwrite the run to start anew",
                parameter="overwrite",
            ) from error
        return _differences(recorded, self.inputs)

    def save(self, name: str, content: Mapping[str, Any]) -> None:
        """Write ``state.pt`` or ``best.pt``."""
        # By a file object: only then does torch say that the disk is full.
        with atomic(self.path / name) as temporary, temporary.open("wb") as file:
            torch.save(dict(content), file)

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Write the state to resume from."""
        self.save(STATE, {"format": FORMAT, **state})
        self.last_save = time.monotonic()

    def save_is_due(self) -> bool:
        """Tell whether ``runtime.save_minutes`` have passed since the last save."""
        return time.monotonic() - self.last_save >= 60 * self.settings.runtime.save_minutes

    def finish(
        self, tensors: Mapping[str, torch.Tensor], description: Mapping[str, Any], metrics: Mapping[str, Any]
    ) -> None:
        """Write the metrics and then the model; what was only needed to resume is removed."""
        write_json(self.path / "metrics.json", dict(metrics))
        save_model(
            self.model,
            tensors,
            {**description, "settings": self.settings.model_dump(mode="json"), "revision": code_revision()},
        )
        self._forget_state()

    def _forget_state(self) -> None:
        for name in (STATE, BEST):
            (self.path / name).unlink(missing_ok=True)

    def _remove(self) -> None:
        for name in (MODEL, STATE, BEST, "inputs.json", "metrics.json", "config.yaml"):
            (self.path / name).unlink(missing_ok=True)
        for events in self.path.glob("events.out.tfevents.*"):
            events.unlink()


def skeletons_of(folder: Path) -> Path | None:
    """Return the skeleton cache that the run in a folder was trained on; None where that is not noted."""
    try:
        return Path(parse_json((folder / "inputs.json").read_bytes())["places"]["skeletons"])
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [line for k in keys for line in _differences(old.get(k), new.get(k), f"{prefix}{k}.")]
    return [] if old == new else [f"{prefix.rstrip('.').removeprefix('settings.')}: {old} there, {new} here"]
