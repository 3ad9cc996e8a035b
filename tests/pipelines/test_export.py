"""From a trained run to files for other programs, and back to descriptors, by the command line."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from csip.config import load_settings
from csip.data.clips import read_frames, sample_dense
from csip.data.readers import load_dataset
from csip.files import digest
from csip.loading import load
from csip.models.checkpoints import save_model
from csip.models.factory import build_model, empty_encoder
from csip.retrieval.descriptors import read_descriptors
from pipelines.cli import main
from pose_cache.shipped import CONFIGS

pytestmark = pytest.mark.slow

Csip = Callable[..., tuple[int, str]]
UNSEEN = 2  # the camera that training is not shown


@pytest.fixture
def csip(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Csip:
    """Run the command line in this process; returns the exit code and what was printed."""

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["csip", *arguments])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, walkers: Path, tower: Path) -> Path:
    """A folder to work in, with the data set and its settings."""
    folder = tmp_path_factory.mktemp("export")
    shutil.copytree(walkers, folder / "data" / "walkers")
    tree = {
        "dataset": {"name": "walkers", "layout": "mars"},
        "clips": {"frames": 4, "height": 64, "width": 32, "pad": 2},
        "vision": {"model": str(tower), "pretrained": None},
        "skeleton_encoder": {"depth": 1, "heads": 2},
        "stage1": {"epochs": 1, "batch": 8},
        "stage2": {"epochs": 1, "ids_per_batch": 2, "tracklets_per_id": 2, "lr": 1e-3, "warmup_epochs": 0},
        "evaluation": {"bootstrap": 0},
        "runtime": {"device": "cpu", "precision": "32-true", "workers": 0},
    }
    (folder / "configs").mkdir()
    (folder / "configs" / "walkers.yaml").write_text(yaml.safe_dump(tree))
    return folder


@pytest.fixture
def trained(work: Path, csip: Csip, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder to work in, with a trained run whose camera embedding does not know camera `UNSEEN`."""
    monkeypatch.chdir(work)
    model = Path("runs/walkers/stage2/model.safetensors")
    if not model.exists():
        for stage in ("train-stage1", "train-stage2"):
            code, printed = csip(stage, "--dataset", "walkers")
            assert code == 0, printed
        with safe_open(model, "pt") as file:
            description = json.loads(file.metadata()["csip"])
        assert description["cameras"] == {"1": 0, "2": 1}
        tensors = load_file(model)
        embedding = torch.randn(
            1, tensors["vision.camera_embedding"].shape[1], generator=torch.Generator().manual_seed(0)
        )
        tensors["vision.camera_embedding"] = embedding  # training of seconds leaves it near zero
        save_model(model, tensors, {**description, "cameras": {"1": 0}})
    return work


def test_a_run_becomes_files_that_describe_people_as_it_does(trained: Path, csip: Csip) -> None:
    """`csip export`, then `csip embed` by torch, by the ONNX file and by the slim weights."""
    code, printed = csip("export", "--run", "runs/walkers", "--out", "export/walkers")
    assert code == 0, printed
    for words in ("runs/walkers/stage2/model.safetensors", "largest difference", "model.onnx", "export/walkers"):
        assert words in printed
    out = Path("export/walkers")
    assert sorted(file.name for file in out.iterdir()) == ["model.json", "model.onnx", "model.safetensors"]

    commands = {
        "torch": ("--run", "runs/walkers"),
        "onnx": ("--run", "runs/walkers", "--onnx", "export/walkers/model.onnx"),
        "slim": ("--run", "runs/walkers", "--model", "export/walkers"),
    }
    found = {}
    for name, options in commands.items():
        code, printed = csip("embed", "--dataset", "walkers", *options, "--out", f"{name}.h5")
        assert code == 0, printed
        assert f"cameras {UNSEEN} were not there in training" in printed
        found[name] = read_descriptors(Path(f"{name}.h5"))
    ours = found["torch"]
    assert {1, UNSEEN} == set(ours.cameras.tolist()) and len(ours.names) > 8
    for name in ("onnx", "slim"):
        assert found[name].names == ours.names and np.array_equal(found[name].identities, ours.identities)
        assert np.abs(found[name].features - ours.features).max() < (1e-5 if name == "onnx" else 1e-7)
    assert (
        found["slim"].model
        == found["onnx"].model
        == ours.model
        == digest(Path("runs/walkers/stage2/model.safetensors"))
    )


def test_another_program_needs_the_file_alone(trained: Path, csip: Csip) -> None:
    """Descriptors of a tracklet with onnxruntime and numpy, as the README says, against `csip embed`."""
    assert csip("export", "--run", "runs/walkers", "--out", "alone")[0] == 0
    assert csip("embed", "--dataset", "walkers", "--out", "alone.h5")[0] == 0
    expected = read_descriptors(Path("alone.h5"))

    session = onnxruntime.InferenceSession("alone/model.onnx", providers=["CPUExecutionProvider"])
    says = json.loads(session.get_modelmeta().custom_metadata_map["csip"])
    settings = load_settings(Path("configs/walkers.yaml"))
    dataset = load_dataset(settings.dataset)
    for tracklet in (*dataset.query[:2], *dataset.gallery[-3:]):
        pixels = read_frames(dataset.root, tracklet.frames, settings.clips)
        assert pixels.shape[2:] == (says["height"], says["width"])
        clips = pixels[sample_dense(len(pixels), says["frames"])]
        camera = np.full(len(clips), says["cameras"].get(str(tracklet.camera), -1))
        mean = session.run(None, {"images": clips, "camera": camera})[0].mean(axis=0)
        row = expected.names.index(tracklet.name)
        np.testing.assert_allclose(mean / np.linalg.norm(mean), expected.features[row], atol=1e-5)


def test_slim_weights_are_a_model_that_evaluates(trained: Path, csip: Csip) -> None:
    whole = Path("runs/walkers/stage2/model.safetensors")
    assert csip("export", "--dataset", "walkers")[0] == 0
    slim = Path("runs/walkers/export/model.safetensors")
    kept, everything = load_file(slim), load_file(whole)
    assert slim.stat().st_size < whole.stat().st_size
    assert all(torch.equal(value, everything[name]) for name, value in kept.items())
    gone = {name.split(".")[0] for name in everything.keys() - kept.keys()}
    assert gone == {"skeleton", "temperature", "pfu", "heads"}

    figures = []
    for folder in ("runs/walkers", "runs/slim"):
        if folder == "runs/slim":
            (Path(folder) / "stage2").mkdir(parents=True)
            shutil.copy2(slim, Path(folder) / "stage2")
        code, printed = csip("evaluate", "--dataset", "walkers", "--run", folder)
        assert code == 0, printed
        figures.append(json.loads((Path(folder) / "metrics.json").read_text())["figures"])
    assert figures[0] == figures[1]

    assert csip("report", "--dataset", "walkers", "--run", "runs/walkers", "--model", str(slim))[0] == 0
    assert "made by another model" not in Path("runs/walkers/report.html").read_text(), "the slim model is the same one"

    # What is slim can be exported again, and nothing is lost but what is not there any more.
    assert csip("export", "--run", "runs/slim", "--out", "again")[0] == 0
    again = load_file("again/model.safetensors")
    assert kept.keys() == again.keys() and all(torch.equal(value, again[name]) for name, value in kept.items())


def test_the_description_says_what_is_in_the_folder(trained: Path, csip: Csip) -> None:
    assert csip("export", "--run", "runs/walkers/stage2", "--out", "described", "--no-part-norm")[0] == 0
    says = json.loads(Path("described/model.json").read_text())
    assert says["dataset"] == "walkers" and says["cameras"] == {"1": 0} and says["part_norm"] is False
    assert says["onnx"]["inputs"]["images"] == {"type": "uint8", "shape": ["batch", "frames", 3, 64, 32]}
    assert len(says["compared"]) == 5 and all(
        one["difference"] <= 1e-3 and one["cosine"] >= 0.9999 for one in says["compared"]
    )
    for name, file in says["files"].items():
        path = Path("described") / name
        assert file == {"bytes": path.stat().st_size, "digest": digest(path)}
    description = load("described/model.safetensors", "cpu").description
    assert description["exported_from"] == says["model"] == digest(Path("runs/walkers/stage2/model.safetensors"))
    assert description["settings"]["dataset"]["root"] is None


def test_a_model_with_the_authors_settings_is_exported(
    tmp_path: Path, tower: Path, csip: Csip, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `csip import-checkpoint` writes it: quick GELU, 8 heads, no frame positions, parts without norms, no data set's root."""
    monkeypatch.chdir(tmp_path)
    quick = json.loads(tower.read_text()) | {"quick_gelu": True}
    Path("tower.json").write_text(json.dumps(quick))
    sizes = ["clips.height=64", "clips.width=32", "vision.model=tower.json", "vision.pretrained=null"]
    paper = load_settings(CONFIGS / "paper" / "mars.yaml", [*sizes, "skeleton_encoder.depth=1"])
    model = build_model(empty_encoder("h36m17", 32, paper), 1.0, 5, 3, paper, load_vision=False)
    description = {
        "kind": "stage2", "dataset": "mars", "identities": 5, "cameras": {"4": 0, "1": 1, "6": 2}, "joint_set": "h36m17",
        "width": 32, "settings": paper.model_dump(mode="json"),
    }  # fmt: skip
    save_model(Path("authors/stage2/model.safetensors"), model.state_dict(), description)
    code, printed = csip("export", "--run", "authors")
    assert code == 0, printed
    says = json.loads(Path("authors/export/model.json").read_text())
    assert says["mean"] == [0.485, 0.456, 0.406] and says["part_norm"] is False
    assert says["cameras"] == {"4": 0, "1": 1, "6": 2}


def fails(result: tuple[int, str], *words: str) -> None:
    code, printed = result
    assert code == 1 and "Traceback" not in printed, printed
    for word in words:
        assert word in printed


def test_what_cannot_be_exported_is_named(trained: Path, csip: Csip) -> None:
    whole = Path("runs/walkers/stage2/model.safetensors")
    before = digest(whole)
    fails(csip("export"), "--run RUN", "--dataset NAME")
    fails(csip("export", "--run", "runs/absent"), "runs/absent", "missing", "csip train-stage2")
    fails(csip("export", "--run", "runs/walkers/stage1"), "stage1/model.safetensors: a stage1 model")
    fails(csip("export", "--run", "runs/walkers", "--out", "runs/walkers/stage2"), "a whole model", "--out")
    assert digest(whole) == before
    broken = Path("broken/model.safetensors")
    broken.parent.mkdir()
    broken.write_bytes(whole.read_bytes()[:-100])
    fails(csip("export", "--run", "broken"), "broken/model.safetensors: damaged")
    save_file({"a": torch.zeros(1)}, broken)
    fails(csip("export", "--run", "broken"), "broken/model.safetensors", "csip did not write")
    assert not Path("broken/export").exists()


def test_embedding_with_a_file_that_is_no_export_names_it(trained: Path, csip: Csip) -> None:
    embed = ("embed", "--dataset", "walkers", "--out", "none.h5", "--onnx")
    fails(csip(*embed, "absent.onnx"), "absent.onnx: no such file", "csip export")
    Path("text.onnx").write_text("no model")
    fails(csip(*embed, "text.onnx"), "text.onnx: damaged, or not an ONNX file", "csip export")
    assert not Path("none.h5").exists()
