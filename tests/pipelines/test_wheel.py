"""The wheel: built, installed beside what it needs, and run from an empty folder."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
SITE = Path(sysconfig.get_paths()["purelib"])
MEGABYTES = 12

pytestmark = pytest.mark.slow


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "commit.gpgsign=false")
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the project as it is now, with one commit."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("csip", "pose_cache", "pipelines", "configs"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", ".gitignore"):
        shutil.copy2(PROJECT / name, folder)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "all")
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    options = ("--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder))
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(source)], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel and what it needs, but without mmpose and this clone; in somebody's repository."""
    folder = tmp_path_factory.mktemp("somewhere")
    git(folder, "init", "-q")
    git(folder, "commit", "-qm", "theirs", "--allow-empty")
    needs = folder / "needs"
    needs.mkdir()
    for entry in SITE.iterdir():
        if not entry.name.lower().startswith(
            ("mmpose", "csip", "__editable__", "_editable", "easy-install", "__pycache__")
        ):
            (needs / entry.name).symlink_to(entry)
    venv.create(folder / "env", with_pip=False, symlinks=True)
    (site,) = (folder / "env").glob("lib/python3*/site-packages")
    (site / "needs.pth").write_text(f"{needs}\n")
    options = ("--quiet", "--no-deps", "--disable-pip-version-check")
    pip = [sys.executable, "-m", "pip", "--python", str(folder / "env/bin/python")]
    subprocess.run([*pip, "install", *options, str(wheel)], check=True)
    (folder / "empty").mkdir()
    return folder


def run(installed: Path, *arguments: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [str(installed / "env/bin" / arguments[0]), *arguments[1:]]
    result = subprocess.run(command, cwd=installed / "empty", env=environment, capture_output=True, text=True)
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"
    return result.stdout


def test_it_is_small_and_has_no_package_but_ours(wheel: Path) -> None:
    assert wheel.stat().st_size < MEGABYTES * 2**20
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"csip", "pipelines", "pose_cache"}
    for name in ("csip/configs/demo.yaml", "csip/configs/paper/mars.yaml", "csip/configs/pose/demo/pose2d.safetensors",
                 "csip/configs/vision/demo.json", "pose_cache/vendored/mmpose/__init__.py",
                 "pose_cache/standins/xtcocotools/coco.py"):  # fmt: skip
        assert name in names
    assert not [name for name in names if name.startswith("tests/") or name.endswith(".pyc")]
    assert any(name.startswith("pose_cache/vendored/mmpose-") and "LICENSE" in name for name in names)


def test_its_list_of_files_is_whole(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (record,) = [name for name in archive.namelist() if name.endswith(".dist-info/RECORD") and name.startswith("csip-")]
    rows = {row[0]: row for row in csv.reader(io.StringIO(archive.read(record).decode()))}
    assert rows.keys() == set(archive.namelist())
    assert int(rows["csip/configs/demo.yaml"][2]) == len(archive.read("csip/configs/demo.yaml"))


def test_it_needs_nothing_that_cannot_be_installed_in_the_usual_way(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (path,) = [name for name in archive.namelist() if name.startswith("csip-") and name.endswith("METADATA")]
    needed = [line for line in archive.read(path).decode().splitlines() if line.startswith("Requires-Dist: ")]
    plain = [line.removeprefix("Requires-Dist: ") for line in needed if "extra ==" not in line]
    assert "mmcv-lite==2.1.0" in plain
    assert not [line for line in plain if line.startswith(("mmpose", "mmcv=", "mmcv ", "xtcocotools", "chumpy"))]


def test_version_and_revision_are_those_of_its_making(installed: Path, source: Path) -> None:
    commit = git(source, "rev-parse", "--short=12", "HEAD")
    assert run(installed, "csip", "--version") == f"csip 0.1.0 ({commit})\n"
    code = "from csip.version import code_revision; print(code_revision())"
    assert run(installed, "python", "-c", code) == f"0.1.0 ({commit})\n"


def test_a_clone_without_history_does_not_report_the_repository_around_it(source: Path, tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-qm", "theirs", "--allow-empty")
    inside = tmp_path / "csip"
    shutil.copytree(source, inside, ignore=shutil.ignore_patterns(".git"))
    code = "from pose_cache.shipped import IN_CLONE, revision; print(IN_CLONE, revision())"
    environment = os.environ | {"PYTHONPATH": str(inside)}

    def ask() -> str:
        command = [sys.executable, "-c", code]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    assert ask() == "True None\n"
    shutil.copytree(source / ".git", inside / ".git")
    environment["GIT_DIR"] = str(tmp_path / ".git")  # as in a hook of the repository around it
    assert ask() == f"True {git(source, 'rev-parse', '--short=12', 'HEAD')}\n"


def test_the_doctor_finds_all_well(installed: Path) -> None:
    report = run(installed, "csip", "doctor")
    assert "all is well" in report and "mmpose 1.3.2" in report and "make setup" not in report


def test_the_demo_runs_in_an_empty_folder_and_is_not_run_twice(installed: Path) -> None:
    settings = ("stage1.epochs=1", "stage2.epochs=1", "stage2.ids_per_batch=2", "stage2.reader_steps=2",
                "skeleton_encoder.depth=1", "runtime.workers=0", "evaluation.compare_untrained=false")  # fmt: skip
    options = [word for setting in settings for word in ("--set", setting)]
    command = ("csip", "demo", "--train-ids", "8", "--test-ids", "8", *options)
    first = run(installed, *command)
    empty = installed / "empty"
    assert "# demo" in first and "PA-MPJPE" in first
    assert json.loads((empty / "runs/demo/metrics.json").read_text())["figures"]["valid_queries"] > 0
    assert (empty / "runs/demo/report.html").exists() and (empty / "data/demo/skeletons.h5").exists()
    assert sorted(path.name for path in empty.iterdir()) == ["data", "runs"]
    times = {path: path.stat().st_mtime_ns for path in empty.rglob("*") if path.is_file()}
    assert "# demo" in run(installed, *command)
    assert {path: path.stat().st_mtime_ns for path in empty.rglob("*") if path.is_file()} == times
    code = (
        "from pose_cache.compat import guard_torchvision; guard_torchvision()\n"
        "from pose_cache.store import SkeletonStore; import mmpose\n"
        "print(SkeletonStore('data/demo/skeletons.h5').frame_count, 'vendored' in mmpose.__file__)"
    )
    frames = json.loads((empty / "data/demo/skeletons.json").read_text())["frames"]
    assert frames > 100
    assert run(installed, "python", "-c", code).splitlines()[-1] == f"{frames} True"
