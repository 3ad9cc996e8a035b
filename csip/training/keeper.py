"""What the training loops share: loss terms, moving average, best checkpoint, resume, curves."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.tensorboard import SummaryWriter

from csip.errors import CsipError
from csip.monitor import Monitor
from csip.training.run_folder import BEST, RunFolder


@dataclass
class Progress:
    """How far a run has come; saved with its state.

    Attributes
    ----------
    epoch, step
        Epochs that are finished, and steps of the epoch under way.
    terms
        The loss terms of each of those steps.
    means
        The mean of each loss term over the last finished epoch.
    validation
        ``epoch`` and the scores of each validation.
    seconds
        Training time, added up over all starts.
    """

    epoch: int = 0
    step: int = 0
    terms: list[dict[str, float]] = field(default_factory=list)
    means: dict[str, float] = field(default_factory=dict)
    validation: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def best(self) -> dict[str, Any]:
        """The validation with the highest ``map``, the last one of equals."""
        return max(self.validation, key=lambda score: (score["map"], score["epoch"]))


class LateTerms:
    """Loss terms that are read from the device one step late, so that no step waits for the one before it.

    The terms of a step travel as one tensor into pinned memory while the device goes on; they are read when the next step's
    have been asked for.
    """

    def __init__(self) -> None:
        self._names: tuple[str, ...] = ()
        self._values: Tensor | None = None
        self._copied: torch.cuda.Event | None = None

    def push(self, terms: Mapping[str, Tensor]) -> dict[str, float] | None:
        """Take the terms of a step; return those of the step before, None for the first."""
        values = torch.stack([term.detach() for term in terms.values()])
        copied = None
        if values.device.type == "cuda":
            pinned = torch.empty(len(values), dtype=values.dtype, pin_memory=True)
            values = pinned.copy_(values, non_blocking=True)
            copied = torch.cuda.Event()
            copied.record()
        before = self.pop()
        self._names, self._values, self._copied = tuple(terms), values, copied
        return before

    def pop(self) -> dict[str, float] | None:
        """Return the terms that have not been read yet, None where there are none."""
        if self._values is None:
            return None
        if self._copied is not None:
            self._copied.synchronize()
        read = dict(zip(self._names, self._values.tolist(), strict=True))
        self._values = self._copied = None
        return read


class Keeper:
    """Keeps one run of training: it counts, averages, checks, saves and resumes.

    Parameters
    ----------
    run : RunFolder
        Opened.
    fabric : Fabric
    monitor : Monitor
    task : str
        What messages call the run, e.g. ``stage 2``; its TensorBoard tags start with ``stage2/``.
    model : nn.Module
        All that is trained, on its device; not the wrapper that Fabric made of it.
    optimizer : Optimizer
        As Fabric has set it up.
    average : AveragedModel, optional
        Moving average of `model`; where given, it is what is validated and kept.
    part : callable, optional
        Returns the part of `model` that is validated and kept; the whole by default.

    Attributes
    ----------
    progress : Progress
    """

    def __init__(
        self,
        run: RunFolder,
        fabric: Fabric,
        monitor: Monitor,
        task: str,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        average: AveragedModel | None = None,
        part: Callable[[nn.Module], nn.Module] = lambda model: model,
    ) -> None:
        self.run, self.fabric, self.monitor, self.task = run, fabric, monitor, task
        self.model, self.optimizer, self.average, self.part = model, optimizer, average, part
        self.progress = Progress()
        self._late = LateTerms()
        self._writer: SummaryWriter | None = None

    # ---- from start to end -------------------------------------------------------------------------------------------

    def start(self, epochs: int, state: Mapping[str, Any] | None) -> None:
        """Begin a run of some epochs, or resume it from what `RunFolder.open` has returned."""
        self.epochs = epochs
        if state is not None:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])  # to the device that its parameters are on by now
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.progress = Progress(**state["progress"])
            within = f", step {self.progress.step} of the next" if self.progress.step else ""
            self.monitor.say(f"resuming after epoch {self.progress.epoch} of {self.epochs}{within}")
        self._before = self.progress.seconds
        if self.fabric.is_global_zero:
            self._writer = SummaryWriter(str(self.run.path), purge_step=self.progress.epoch)

    def epochs_left(self) -> Iterator[int]:
        """Yield the number of each epoch that is not finished, from 0."""
        yield from range(self.progress.epoch, self.epochs)

    def end_step(self, terms: Mapping[str, Tensor]) -> None:
        """Note the loss terms of a step whose update has been made, and average the weights.

        Raises
        ------
        CsipError
            A term of the step before is not finite; the message names the term, the epoch and the step.
        """
        if self.average is not None:
            self.average.update_parameters(self.model)
        self.progress.step += 1
        self._note(self._late.push(terms))

    def settle(self) -> None:
        """Read the loss terms that are still on the device.

        Raises
        ------
        CsipError
            As `end_step`.
        """
        self._note(self._late.pop())

    def save_if_due(self) -> None:
        """Save within an epoch, once ``runtime.save_minutes`` have passed."""
        if self.fabric.is_global_zero and self.run.save_is_due():
            self._save()

    def end_steps(self) -> dict[str, float]:
        """End the steps of an epoch; return the mean of each loss term over them."""
        self.settle()
        progress = self.progress
        if not progress.terms:
            raise CsipError(f"{self.task}: an epoch without a batch; there are too few clips for one batch of two")
        names = progress.terms[0]  # the first step has all terms, the others may leave some out
        progress.means = {name: float(np.mean([t[name] for t in progress.terms if name in t])) for name in names}
        progress.step, progress.terms = 0, []
        return progress.means

    def validated(self, scores: Mapping[str, Any], keep_best: bool) -> None:
        """Note the scores of the epoch that is about to end; save the checkpoint if its ``map`` is the best so far."""
        score = {"epoch": self.progress.epoch + 1, **scores}
        self.progress.validation.append(score)
        if keep_best and self.progress.best is score and self.fabric.is_global_zero:
            self.run.save(BEST, self.kept.state_dict())

    def end_epoch(self, scalars: Mapping[str, float], note: str) -> None:
        """Write the curves, save, and say so."""
        if self._writer is not None:
            for name, value in scalars.items():
                self._writer.add_scalar(f"{self.task.replace(' ', '')}/{name}", value, self.progress.epoch)
        self.progress.epoch += 1
        if self.fabric.is_global_zero:
            self._save()
        self.fabric.barrier()
        self.monitor.progress(self.task, self.progress.epoch, self.epochs, note)

    def finish(
        self, description: Mapping[str, Any], metrics: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None
    ) -> None:
        """Write the model and the metrics, in the first process; without `tensors` the model is what `chosen` returns."""
        if self._writer is not None:
            self._writer.close()
            self.run.finish(self.chosen() if tensors is None else tensors, description, metrics)
        self.fabric.barrier()  # the first process writes what the next stage reads

    # ---- what is kept ------------------------------------------------------------------------------------------------

    def chosen(self) -> Mapping[str, Tensor]:
        """Return the best checkpoint where one was chosen, else what `kept` is."""
        return self.run.load(BEST) if (self.run.path / BEST).exists() else self.kept.state_dict()

    @property
    def kept(self) -> nn.Module:
        """What is validated and kept: the model or its moving average, or the part of it that is used later."""
        return self.part(self.model if self.average is None else self.average.module)

    def seconds(self) -> float:
        """Return the training time so far, over all starts."""
        return self._before + time.monotonic() - self.run.started

    def _note(self, terms: dict[str, float] | None) -> None:
        """Keep the terms of a step, unless one of them is not finite."""
        if terms is None:
            return
        step = len(self.progress.terms) + 1
        for name, value in terms.items():
            if not math.isfinite(value):
                raise CsipError(
                    f'{self.task}, epoch {self.progress.epoch + 1}, step {step}: loss term "{name}" is non-finite '
                    f"({value}); what was saved before is kept: lower the learning rate, clip gradients, or use "
                    "runtime.precision=32-true"
                )
        self.progress.terms.append(terms)

    def _save(self) -> None:
        self.settle()
        self.progress.seconds = self.seconds()
        self.run.save_state({
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average is not None else {},
            "progress": asdict(self.progress),
        })  # fmt: skip


def averaged(model: nn.Module, decay: float | None, use_buffers: bool = False) -> AveragedModel | None:
    """Make a moving average of a model that is on its device; None without `decay`."""
    if decay is None:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=use_buffers)
