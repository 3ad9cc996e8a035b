"""One command in several processes, one per GPU, or on a CPU one per part of the cores."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence

from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from csip.errors import CsipError

SHARING = ("embed-frames", "train-stage1", "train-stage2", "embed", "evaluate")


def run(processes: int, command: Sequence[str]) -> None:
    """Run a command of `csip` as ``torchrun --standalone`` does, without its tracebacks: the command has said what is wrong.

    Raises
    ------
    CsipError
        There are fewer GPUs than processes, or the command does not share its work.
    """
    import torch

    if not command or command[0] not in SHARING:
        found = repr(command[0]) if command else "nothing"
        raise CsipError(f"processes: expected a command that shares its work ({', '.join(SHARING)}), found {found}")

    gpus = torch.cuda.device_count()
    if 0 < gpus < processes:
        raise CsipError(f"processes: expected at most one per GPU, of which there are {gpus}, found {processes}")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(cores // processes, 1)))
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
    launch = ["--standalone", "--nproc-per-node", str(processes), "-m", "pipelines", *command]
    try:
        torchrun.run(torchrun.parse_args(launch))
    except ChildFailedError as error:
        code = error.get_first_failure()[1].exitcode
        sys.exit(code if code > 0 else 128 - code)
    except SignalException as stop:
        sys.exit(128 + stop.sigval)
