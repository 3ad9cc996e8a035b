"""Commands in several processes, and beside other work: one message for one mistake, and threads that sleep."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from csip.errors import CsipError
from pipelines import run_processes

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT)}


def test_a_mistake_in_several_processes_is_said_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines", "processes", "2", "train-stage1", "--dataset", "nothing"]
    run = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env=ENVIRONMENT, timeout=300, check=False
    )
    said = run.stdout + run.stderr
    assert run.returncode == 1
    assert said.count("unknown data set 'nothing'") == 1 and "Traceback" not in said, said
    assert len(said.splitlines()) < 24, "an error fits on one screen"


@pytest.mark.parametrize("command", [["report", "--dataset", "demo"], []])
def test_a_command_that_does_not_share_its_work_is_refused(command: list[str]) -> None:
    with pytest.raises(CsipError, match="processes: expected a command that shares its work"):
        run_processes.run(2, command)


@pytest.mark.parametrize(("given", "found"), [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "ACTIVE")])
def test_threads_sleep_unless_the_user_says_otherwise(given: dict[str, str], found: str) -> None:
    program = (
        "import os, sys; from pipelines.cli import main; sys.argv = ['csip', '--version']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(os.environ['OMP_WAIT_POLICY'], 'torch' in sys.modules)"
    )
    environment = {name: value for name, value in ENVIRONMENT.items() if name != "OMP_WAIT_POLICY"} | given
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert run.stdout.splitlines()[-1] == f"{found} False", "before torch, which reads it once"
