"""One process stays one, whatever the scheduler says; random numbers and work are each process's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from csip.config import Settings
from csip.runtime import loader_options, make_fabric, seed_torch, share


def runtime(**values: object) -> Any:
    tree = {"dataset": {"name": "any"}, "runtime": {"device": "cpu", "precision": "32-true", **values}}
    return Settings.model_validate(tree).runtime


@pytest.mark.parametrize(
    "scheduler",
    [
        {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "batch", "SLURM_PROCID": "2", "SLURM_LOCALID": "2"},
        {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "1"},
        {"LSB_JOBID": "7", "LSB_DJOB_RANKFILE": "none", "JSM_NAMESPACE_SIZE": "4", "JSM_NAMESPACE_RANK": "1"},
    ],
    ids=["SLURM", "MPI", "LSF"],
)
def test_a_scheduler_makes_no_processes_of_one(scheduler: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in scheduler.items():
        monkeypatch.setenv(name, value)
    fabric = make_fabric(runtime())
    assert (fabric.world_size, fabric.global_rank, fabric.is_global_zero) == (1, 0, True)


def draw(*seed: int) -> tuple[float, ...]:
    seed_torch(*seed)
    return tuple(torch.rand(4).tolist())


def test_epochs_steps_and_processes_have_random_numbers_of_their_own() -> None:
    seeds = [(s, e, step, p) for s in (0, 1) for e in (0, 1, 2) for step in (0, 1, 2) for p in (0, 1, 2)]
    assert len({draw(*seed) for seed in seeds}) == len(seeds)
    assert draw(1, 2, 3, 1) == draw(1, 2, 3, 1)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 7, 8])
def test_work_is_shared_out_without_gaps(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: list[list[int]] = []

    def gather(found: list[Any], mine: list[int]) -> None:
        parts.append(mine)

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    for number in range(3):
        fabric: Any = SimpleNamespace(world_size=3, global_rank=number)
        share(fabric, range(count), lambda mine: [10 * item for item in mine])
    assert [result for part in parts for result in part] == [10 * item for item in range(count)]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_loaders_of_a_gpu_decode_into_pinned_memory_and_keep_their_workers() -> None:
    cuda, cpu = torch.device("cuda"), torch.device("cpu")
    kept = {"num_workers": 2, "pin_memory": True, "persistent_workers": True}
    assert loader_options(runtime(workers=2), cuda) == kept
    assert loader_options(runtime(workers=0), cpu) == {
        "num_workers": 0,
        "pin_memory": False,
        "persistent_workers": False,
    }


def test_loaders_take_the_cores_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(6)), raising=False)
    assert runtime().decoders == 6 and runtime(workers=0).decoders == 0 and runtime(workers=3).decoders == 3
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert runtime().decoders == 1
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(64)), raising=False)
    assert runtime().decoders == 8
