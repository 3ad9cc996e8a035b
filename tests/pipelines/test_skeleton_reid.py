"""Skeletons alone, through the command line: train, evaluate, report, and what they refuse."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from csip.errors import CsipError
from csip.retrieval.skeletons_alone import pool
from pipelines.advice import advice
from pipelines.cli import app
from pose_cache.joints import KINECT20

pytestmark = pytest.mark.slow

SMALL = [
    "skeleton_training.epochs=8", "skeleton_training.batch=16", "skeleton_training.window.width=32",
    "skeleton_training.embedding=16", "runtime.device=cpu",
]  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The KGBD archive of six people with bodies of their own."""
    random = np.random.default_rng(0)
    walks = {}
    for person in range(1, 7):
        bones = 0.3 * random.normal(size=(19, 3))
        for walk in range(1, 6):
            joints = np.zeros((40, 20, 3))
            for (a, b), bone in zip(KINECT20.bones, bones, strict=True):
                joints[:, b] = joints[:, a] + bone + 0.02 * random.normal(size=(40, 3))
            walks[f"Person{person:03d}_{walk}"] = joints
    folder = tmp_path / "data"
    folder.mkdir()
    np.savez(folder / "kgbd.npz", **walks)
    return folder


def csip(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def train(root: Path, run: Path, *more: str) -> str:
    settings = [part for setting in SMALL for part in ("--set", setting)]
    return csip("train-skeleton", "--dataset", "kgbd", "--root", str(root), "--run", str(run), *settings, *more)


def test_train_evaluate_report(root: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    said = train(root, run, "--seed", "3")
    assert "kgbd, split 3" in said and "12 training sequences of 6 people, 6 probe, 12 gallery" in " ".join(
        said.split()
    )
    csip("evaluate", "--dataset", "kgbd", "--root", str(root), "--run", str(run))
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["protocol"]["split"].startswith("split 3"), "the split is the model's"
    assert (metrics["protocol"]["probe_windows"], metrics["protocol"]["gallery_windows"]) == (6 * 6, 12 * 6)
    for row in (metrics["figures"], *metrics["compared"].values()):
        for level, probes in (("window", 36), ("tracklet", 6)):
            figures = row[level]
            assert 0 <= figures["rank1"] <= figures["rank5"] <= figures["rank10"] <= 1 and 0 <= figures["map"] <= 1
            assert figures.get("valid_probes", probes) == figures.get("probes", probes) == probes
    assert set(metrics["compared"]) == {"chance", "bone lengths, nearest neighbour"}
    assert metrics["compared"]["chance"]["window"]["rank1"] == pytest.approx(1 / 6)
    assert metrics["figures"]["window"]["rank1"] > 0.5
    csip("report", "--dataset", "kgbd", "--root", str(root), "--run", str(run))
    report = (run / "report.md").read_text()
    for line in ("# kgbd: people by their skeletons alone", "| bone lengths, nearest neighbour |", "| **trained** |"):
        assert line in report


def test_bone_lengths_are_ranked_as_by_hand(root: Path, tmp_path: Path) -> None:
    from csip.data import kgbd

    train(root, tmp_path, "--set", "skeleton_training.epochs=1")
    csip("evaluate", "--dataset", "kgbd", "--root", str(root), "--run", str(tmp_path))
    found = json.loads((tmp_path / "metrics.json").read_text())["compared"]["bone lengths, nearest neighbour"]["window"]
    dataset = kgbd.load(root, seed=0)

    def describe(sequences: tuple) -> tuple[list[np.ndarray], list[int]]:
        rows, people = [], []
        for s in sequences:
            for start in range(0, len(s.joints) - 5, 6):
                frames = s.joints[start : start + 6].astype(np.float64)
                rows.append(np.mean([[np.linalg.norm(f[a] - f[b]) for a, b in KINECT20.bones] for f in frames], axis=0))
                people.append(s.pid)
        return rows, people

    (probe, asked), (gallery, owners) = describe(dataset.probe), describe(dataset.gallery)
    precisions, firsts = [], []
    for x, pid in zip(probe, asked, strict=True):
        match = np.array(owners)[np.argsort([np.linalg.norm(x - y) for y in gallery])] == pid
        precisions.append(np.mean((np.arange(match.sum()) + 1) / (np.flatnonzero(match) + 1)))
        firsts.append(match[0])
    assert found["map"] == pytest.approx(np.mean(precisions), rel=1e-4)
    assert found["rank1"] == pytest.approx(np.mean(firsts))


def test_tracklets_are_means_of_their_windows() -> None:
    entries = np.array([[1.0, 0], [3, 2], [5, 5]])
    np.testing.assert_allclose(pool(entries, np.array([0, 0, 1])), [[2, 1], [5, 5]])


def test_other_data_than_the_models_are_refused(root: Path, tmp_path: Path) -> None:
    train(root, tmp_path / "run", "--set", "skeleton_training.epochs=1")
    with np.load(root / "kgbd.npz") as file:
        walks = {key: file[key] + 0.01 for key in file.files}
    np.savez(root / "kgbd.npz", **walks)
    with pytest.raises(CsipError, match="trained on other sequences"):
        csip("evaluate", "--dataset", "kgbd", "--root", str(root), "--run", str(tmp_path / "run"))
    with pytest.raises(CsipError, match=r"skeleton/model\.safetensors: missing") as refused:
        csip("evaluate", "--dataset", "kgbd", "--root", str(root), "--run", str(tmp_path / "none"))
    assert advice(refused.value.parameter).startswith("; `csip train-skeleton`")
