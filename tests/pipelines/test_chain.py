"""The chain as people run it: through Make on rendered people, and through the command line on real ones."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from csip.retrieval.evaluation import TEACHER
from pipelines.run_demo import PEOPLE as PEOPLE_OF_DEMO
from pose_cache.store import SkeletonStore

pytestmark = pytest.mark.slow

PROJECT = Path(__file__).parents[2]
SHARED = Path(os.environ.get("CSIP_SHARED", PROJECT.parent / "shared"))
KINECT = SHARED / "data" / "kinect-reid"
TINY = (
    "stage1.epochs=2 stage2.epochs=2 stage2.ids_per_batch=3 stage2.reader_steps=5 dataset.val_ids=2 runtime.workers=0"
)
PEOPLE = "--train-ids 8 --test-ids 8 --cameras 3 --tracklets 1 --frames 8"


@pytest.fixture(scope="module")
def project(checkout: Callable[[str], Path]) -> Path:
    """A checkout that all tests of this file work in, one after the other."""
    return checkout("chain")


def make(project: Path, *targets: str) -> str:
    command = ["make", *targets, f"SET={TINY}", f"SYNTH={PEOPLE}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def stages(output: str) -> list[str]:
    """The commands that Make ran, in order."""
    return [line.split()[1] for line in output.splitlines() if line.startswith(".venv/bin/csip")]


def test_make_demo_renders_who_the_command_renders() -> None:
    found = re.search(r"^SYNTH \?= (.*)$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    assert found is not None
    spec = {
        "--seed": PEOPLE_OF_DEMO.seed, "--train-ids": PEOPLE_OF_DEMO.train_ids, "--test-ids": PEOPLE_OF_DEMO.test_ids,
        "--tracklets": PEOPLE_OF_DEMO.tracklets_per_camera,
    }  # fmt: skip
    assert found[1].split() == [word for name, value in spec.items() for word in (name, str(value))]


def test_make_demo_runs_the_chain_once(project: Path) -> None:
    first = make(project, "demo")
    assert stages(first) == ["synth", "skeletons", "train-stage1", "train-stage2", "evaluate", "report"]
    for word in ("Rank-1", "chance", "random weights", "before training", "twins differ in", "PA-MPJPE", "## Time"):
        assert word in first

    again = make(project, "demo")
    assert stages(again) == []
    assert "**trained**" in again, "the report card is shown all the same"


@pytest.mark.parametrize(
    ("lost", "redone"),
    [
        ("runs/demo/metrics.json", ["evaluate", "report"]),
        ("runs/demo/stage2/model.safetensors", ["train-stage2", "evaluate", "report"]),
        ("data/demo/skeletons.h5", ["skeletons", "train-stage1", "train-stage2", "evaluate", "report"]),
    ],
)
def test_make_redoes_what_depends_on_a_lost_file_and_no_more(project: Path, lost: str, redone: list[str]) -> None:
    (project / lost).unlink()
    assert stages(make(project, "demo")) == redone


def test_a_demo_scores_itself_against_chance_and_untrained_models(project: Path) -> None:
    metrics = json.loads((project / "runs/demo/metrics.json").read_text())
    assert metrics["protocol"]["gallery"] == "with_queries"
    assert metrics["figures"]["valid_queries"] == 24  # 8 identities, 3 cameras
    assert metrics["figures"]["lookalikes"]["valid_queries"] == 24
    assert set(metrics["compared"]) == {"chance", "random weights", "before training", TEACHER}
    # 24 walks of the test identities and 16 distractors, less that of the query's own camera
    gallery = metrics["protocol"]["gallery_tracklets"] - 1
    assert metrics["compared"]["chance"]["rank1"] == pytest.approx(2 / gallery)
    assert metrics["compared"]["chance"]["lookalikes"]["pair_rank1"] == pytest.approx(2 / 5)
    assert set(metrics["figures"]["strata"]) == {"body", "posture", "swings", "cadence"}
    for row in (metrics["figures"], *metrics["compared"].values()):
        assert 0 <= row["map"] <= 1 and row["rank1"] <= row["rank5"] <= row["rank20"]


def test_demo_skeletons_are_near_the_truth(project: Path) -> None:
    record = json.loads((project / "data/demo/skeletons.json").read_text())
    assert record["frames"] == (24 + 24 + 16) * 8
    assert record["pa_mpjpe_mm"] < 75
    assert record["pck"] > 0.9
    assert (project / "runs/demo/skeletons.png").stat().st_size > 10_000


def test_killed_extraction_is_resumed_to_the_same_content(project: Path, tmp_path: Path) -> None:
    """`csip skeletons`, killed once its first shard is there, then run again."""
    import signal
    import time

    import h5py

    csip = [str(project / ".venv/bin/csip"), "skeletons", "--dataset", "demo", "--test-too", "--shard-frames", "64"]
    out = tmp_path / "killed.h5"
    process = subprocess.Popen([*csip, "--out", str(out)], cwd=project, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not any(out.with_name(out.name + ".shards").glob("*.h5")) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    result = subprocess.run([*csip, "--out", str(out)], cwd=project, capture_output=True, text=True, check=True)
    assert "frames kept" in result.stdout
    with h5py.File(out) as one, h5py.File(project / "data/demo/skeletons.h5") as two:
        assert one.keys() == two.keys()
        for name in one:
            assert np.array_equal(one[name][()], two[name][()]), name


def csip(project: Path, *arguments: str) -> str:
    command = [str(project / ".venv/bin/csip"), *arguments]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.mark.skipif(not KINECT.is_dir(), reason="needs the real Kinect tracklets")
def test_real_people_with_kinect_skeletons(project: Path) -> None:
    """5 people, 2 visits: folders, imported skeletons, both stages, ranked across visits."""
    for folder in sorted(KINECT.glob("p?_v?")):
        person, visit = folder.name.split("_")
        shutil.copytree(folder, project / "data" / "mine" / person / visit)
    settings = ("--config", str(PROJECT / "configs/presets/small.yaml"), "--dataset", "mine")
    csip(
        project, "skeletons", "import-kinect", str(KINECT / "skeletons_kinect20.npz"), "--dataset", "mine", "--mirrored"
    )  # fmt: skip
    with SkeletonStore(project / "data/mine/skeletons.h5") as store:
        assert len(store) == 10 and store.frame_count == 320
        joints = store.read("p0/v0").joints
        assert (joints[:, 10, 1] < joints[:, 0, 1]).all(), "y points down: the head is above the pelvis"
        heights = joints[:, :, 1].max(axis=1) - joints[:, :, 1].min(axis=1)
        assert 1.2 < np.median(heights) < 2.1, "metres"
    few = ("--set", "stage1.epochs=2", "--set", "stage2.epochs=2", "--set", "runtime.workers=0")
    csip(project, "train-stage1", *settings, *few)
    csip(project, "train-stage2", *settings, *few)
    csip(project, "evaluate", *settings, *few)
    metrics = json.loads((project / "runs/mine/metrics.json").read_text())
    assert metrics["figures"]["valid_queries"] == metrics["figures"]["queries"] == 6  # 3 people tested, 2 visits each
    csip(project, "report", *settings)
    assert "mine" in (project / "runs/mine/report.md").read_text()
