"""What a user does wrong: one message that names what and where, and an exit code that is not 0."""

from __future__ import annotations

import errno
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from csip.config import Settings, dump_settings
from csip.retrieval.descriptors import read_descriptors
from pipelines.cli import main


@pytest.fixture
def project(tmp_path: Path, walkers: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a copy of the rendered data set in data/walkers and its settings."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(walkers, tmp_path / "data" / "walkers")
    tree = yaml.safe_load(dump_settings(settings))
    tree["dataset"]["root"] = None
    tree["stage1"]["epochs"] = tree["stage2"]["epochs"] = 1
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "walkers.yaml").write_text(yaml.safe_dump(tree))
    return tmp_path


class Csip:
    """Runs the command line in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.monkeypatch, self.capsys = monkeypatch, capsys

    def __call__(self, *arguments: str) -> tuple[int, str]:
        self.monkeypatch.setattr(sys, "argv", ["csip", *arguments])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = self.capsys.readouterr()
        return code, captured.out + captured.err


@pytest.fixture
def csip(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Csip:
    return Csip(monkeypatch, capsys)


def check(result: tuple[int, str], *words: str) -> None:
    code, text = result
    assert code == 1, text
    assert "Traceback" not in text
    assert len(text.splitlines()) < 24, "an error fits on one screen"
    for word in words:
        assert word in text


def test_unknown_data_set(csip: Csip, project: Path) -> None:
    check(csip("train-stage1", "--dataset", "marss"), "unknown data set 'marss'", "mars", "data/marss")
    check(csip("evaluate"), "--dataset NAME")


def test_places_that_cannot_be_written(csip: Csip, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "file").touch()
    check(csip("synth-videos", "--out", "file/scenes", "--seconds", "1"), "file", "Not a directory")

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    check(csip("synth", "--out", "closed/demo"), "error: closed/", ": Permission denied")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_full_disk(csip: Csip, project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, data: bytes) -> int:
        with Path("/dev/full").open("wb", buffering=0) as file:
            return file.write(data)

    assert csip("train-stage1", "--dataset", "walkers")[0] == 0
    assert csip("train-stage2", "--dataset", "walkers")[0] == 0
    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        check(csip("embed", "--dataset", "walkers"), "No space left on device; finished work is kept")
    assert csip("embed", "--dataset", "walkers")[0] == 0


def test_a_loaders_worker_says_what_is_wrong_and_not_where_in_the_program(csip: Csip, project: Path) -> None:
    for frame in sorted((project / "data/walkers/bbox_train").glob("*/*.jpg")):
        frame.write_bytes(b"no picture")
    code, text = csip("embed-frames", "--dataset", "walkers", "--set", "runtime.workers=1")
    check((code, text), "error: ", "bbox_train", "not an image that can be decoded (10 bytes)")
    assert "Caught" not in text and len(text.strip().splitlines()[-1]) < 300


def test_data_that_are_not_there(csip: Csip, project: Path) -> None:
    check(csip("skeletons", "--dataset", "mars"), "data/mars: no such folder")
    (project / "data" / "walkers" / "info" / "query_IDX.mat").unlink()
    check(csip("train-stage1", "--dataset", "walkers"), "info/query_IDX.mat: missing")


def test_unknown_setting(csip: Csip, project: Path) -> None:
    check(csip("train-stage1", "--dataset", "walkers", "--set", "stage1.epoch=3"), "stage1.epoch", "stage1.epochs?")
    (project / "configs" / "walkers.yaml").write_text("dataset: {name: walkers, lay_out: mars}\n")
    check(csip("train-stage1", "--dataset", "walkers"), "dataset.lay_out", "did you mean dataset.layout?")


def test_broken_frame_in_training(csip: Csip, project: Path) -> None:
    broken = sorted((project / "data/walkers/bbox_train").glob("*/*.jpg"))[3]
    broken.write_bytes(broken.read_bytes()[:40])
    check(csip("train-stage1", "--dataset", "walkers"), broken.name, "not an image")


def test_stages_without_their_input(csip: Csip, project: Path) -> None:
    check(csip("train-stage2", "--dataset", "walkers"), "stage1/model.safetensors: missing", "csip train-stage1")
    check(csip("evaluate", "--dataset", "walkers"), "stage2/model.safetensors: missing", "csip train-stage2")
    check(csip("report", "--dataset", "walkers"), "metrics.json: missing", "csip evaluate")
    (project / "data" / "walkers" / "skeletons.h5").unlink()
    check(csip("train-stage1", "--dataset", "walkers"), "skeletons.h5", "csip skeletons")


def test_damaged_skeletons(csip: Csip, project: Path) -> None:
    cache = project / "data" / "walkers" / "skeletons.h5"
    cache.write_bytes(cache.read_bytes()[:1000])
    check(csip("train-stage1", "--dataset", "walkers"), "skeletons.h5")
    assert csip("skeletons", "verify", str(cache))[0] == 1


def test_checkpoints_of_other_data(csip: Csip, project: Path) -> None:
    assert csip("train-stage1", "--dataset", "walkers")[0] == 0
    check(
        csip("train-stage2", "--dataset", "walkers", "--set", "dataset.val_ids=0"),
        "stage1/model.safetensors", "trained on other tracklets",
    )  # fmt: skip
    assert csip("train-stage2", "--dataset", "walkers")[0] == 0
    check(csip("train-stage2", "--dataset", "walkers"), "this run has finished", "--overwrite")

    shutil.copytree(project / "data/walkers", project / "data/others")
    others = yaml.safe_load((project / "configs/walkers.yaml").read_text())
    others["dataset"]["name"] = "others"
    (project / "configs/others.yaml").write_text(yaml.safe_dump(others))
    arguments = ["evaluate", "--dataset", "others", "--run", "runs/walkers"]
    check(csip(*arguments), "trained on data set walkers", "--cross-dataset")
    code, text = csip(*arguments, "--cross-dataset")
    assert code == 0, text
    assert "cameras 1, 2 were not there in training" in text, (
        "they have the numbers of the model's cameras, and are others"
    )
    metrics = json.loads((project / "runs/walkers/metrics.json").read_text())
    assert metrics["dataset"] == "others"
    assert metrics["figures"]["valid_queries"] == metrics["figures"]["queries"] == 8
    code, text = csip("embed", "--dataset", "others", "--model", "runs/walkers")
    assert code == 0, text
    scored, described = (read_descriptors(project / f"runs/{run}/descriptors.h5") for run in ("walkers", "others"))
    assert scored.names == described.names
    np.testing.assert_allclose(scored.features, described.features, atol=1e-6)


def test_no_cuda_where_it_is_asked_for(csip: Csip, project: Path) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    check(csip("train-stage1", "--dataset", "walkers", "--set", "runtime.device=cuda"), "no CUDA device", "csip doctor")


def test_image_encoder_that_cannot_be_had(csip: Csip, project: Path) -> None:
    command = ("train-stage1", "--dataset", "walkers", "--set")
    check(csip(*command, "vision.pretrained=nowhere.pt"), "there is no file nowhere.pt")
    check(csip(*command, "vision.model=ViT-Q-99"), "no model 'ViT-Q-99'")


def test_wrong_options_exit_with_2(csip: Csip, project: Path) -> None:
    code, text = csip("train-stage1", "--datasett", "walkers")
    assert code == 2 and "--dataset" in text
