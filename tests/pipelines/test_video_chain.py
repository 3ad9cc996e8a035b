"""From videos to people: rendered scenes through every command, and a person's corrections of what was proposed."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score
from typer.testing import CliRunner

from csip.config import load_settings
from csip.data import folder
from csip.errors import CsipError
from csip.models.checkpoints import load_model, save_model
from csip.models.factory import untrained_like
from csip.retrieval.descriptors import read_descriptors
from pipelines.advice import advice
from pipelines.cli import app
from pose_cache.shipped import CONFIGS

pytestmark = pytest.mark.slow

SMALL = ["--dataset", "walk", "--config", "small.yaml"]
SETTINGS = f"""
extends: {CONFIGS / "rendered.yaml"}
dataset: {{name: walk, layout: folder, val_ids: 0}}
stage1: {{epochs: 1}}
stage2: {{epochs: 1, ids_per_batch: 2}}
skeleton_encoder: {{depth: 1}}
evaluation: {{compare_untrained: false, bootstrap: 0}}
runtime: {{device: cpu, workers: 0}}
"""


def csip(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which two cameras' videos went through the chain, with the demo's pretrained image encoder as the model."""
    root = tmp_path_factory.mktemp("chain")
    description = {
        "kind": "stage2", "dataset": "demo", "joint_set": "h36m17", "width": 128, "identities": 2, "cameras": {},
        "settings": load_settings(CONFIGS / "rendered.yaml", []).model_dump(mode="json"),
    }  # fmt: skip
    model = untrained_like(description, pretrained=True)
    save_model(root / "tower/model.safetensors", model.state_dict(), description)
    (root / "small.yaml").write_text(SETTINGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        csip("synth-videos", "--out", "data/walk-videos", "--people", "5", "--seconds", "6", "--fps", "10",
             "--height", "270", "--workers", "1")  # fmt: skip
        csip("ingest", "data/walk-videos/videos", "--out", "data/walk", "--detector", "boxes",
             "--boxes", "data/walk-videos/det", "--margin", "0.05")  # fmt: skip
        csip("skeletons", *SMALL)
        csip("embed", *SMALL, "--model", "tower")
        csip("cluster", *SMALL)
        yield root


@pytest.fixture(scope="module")
def people(project: Path) -> dict[str, int]:
    """Whose true boxes cover each tracklet's best."""
    truth: dict[tuple[str, int], np.ndarray] = {}
    for path in Path("data/walk-videos/gt").iterdir():
        table = np.loadtxt(path, delimiter=",")
        truth |= {(path.stem, int(frame)): table[table[:, 0] == frame] for frame in np.unique(table[:, 0])}
    votes: dict[str, list[int]] = {}
    for row in rows(Path("data/walk/tracklets.csv")):
        there = truth[row["camera"], int(row["number"])]
        x, y, width, height = (float(row[key]) for key in ("x", "y", "width", "height"))
        # The nearest middle of the nearest size will do where boxes tremble by some hundredths.
        off = np.abs(there[:, 2:6] - [x, y, width, height]).sum(axis=1)
        votes.setdefault(row["tracklet"], []).append(int(there[off.argmin(), 1]))
    return {name: int(np.bincount(found).argmax()) for name, found in votes.items()}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def proposal() -> dict[str, str]:
    return {row["tracklet"]: row["person"] for row in rows(Path("data/walk/labels.csv"))}


def test_every_person_gives_a_tracklet_before_both_cameras(people: dict[str, int]) -> None:
    for camera in ("cam1", "cam2"):
        assert {person for name, person in people.items() if name.startswith(camera)} == {1, 2, 3, 4, 5}
    assert len(people) <= 16, "hardly anybody is torn into pieces"


def test_skeletons_of_an_unlabelled_data_set_are_of_all_its_crops(project: Path, people: dict[str, int]) -> None:
    with h5py.File("data/walk/skeletons.h5") as file:
        assert len(file["tracklets"]) == len(people)
        assert len(file["valid"]) == len(rows(Path("data/walk/tracklets.csv")))
        assert np.mean(file["valid"]) > 0.9


def test_clusters_are_people_over_cameras_well_above_chance(project: Path, people: dict[str, int]) -> None:
    groups, names = proposal(), sorted(people)
    assert sorted(groups) == names
    true, found = [people[name] for name in names], np.array([groups[name] for name in names])
    rng = np.random.default_rng(0)
    shuffled = [adjusted_rand_score(true, rng.permutation(found)) for _ in range(200)]
    assert abs(np.mean(shuffled)) < 0.1
    assert adjusted_rand_score(true, found) > max(0.4, np.quantile(shuffled, 0.99))


def test_search_finds_the_person_at_the_other_camera(project: Path, people: dict[str, int]) -> None:
    csip("search", "--all", *SMALL, "--other-cameras", "--top", "1", "--out", "found.csv")
    found = rows(Path("found.csv"))
    assert sorted(row["query"] for row in found) == sorted(people)
    right = np.mean([people[row["query"]] == people[row["tracklet"]] for row in found])
    # One in five by chance.
    assert right > 0.6
    name = sorted(people)[0]
    assert csip("search", name, *SMALL, "--top", "3").count("cam") >= 4


def test_a_report_needs_no_truth(project: Path, people: dict[str, int]) -> None:
    csip("report", *SMALL, "--model", "tower/model.safetensors")
    page = Path("runs/walk/report.html").read_text()
    assert all(name.split("/")[1] in page for name in people)


def test_corrections_are_what_training_and_evaluation_read(project: Path, people: dict[str, int]) -> None:
    """People who were proposed are renamed to the true ones; then one tracklet is said to be somebody else's."""
    labels = Path("data/walk/labels.csv")
    proposed = labels.read_text()
    labels.unlink()
    with pytest.raises(CsipError, match=r"labels\.csv") as refused:
        csip("train-stage1", *SMALL)
    assert "csip cluster" in advice(refused.value.parameter)
    labels.write_text(proposed)

    def correct(given: dict[str, str]) -> None:
        labels.write_text("tracklet,person\n" + "".join(f"{name},{person}\n" for name, person in given.items()))

    correct({name: f"P{person}" for name, person in people.items()})
    with pytest.raises(CsipError, match="somebody has changed") as refused:
        csip("cluster", *SMALL)
    assert refused.value.parameter == "force", "the command line names the option"
    for command in ("train-stage1", "train-stage2", "evaluate"):
        csip(command, *SMALL)
    trained = len({t.pid for t in folder.load(Path("data/walk")).train})
    _, description = load_model(Path("runs/walk/stage2/model.safetensors"), "stage2")
    protocol = json.loads(Path("runs/walk/metrics.json").read_text())["protocol"]
    assert description["identities"] == trained
    assert trained + protocol["gallery_identities"] == 5

    # A new person, whose one tracklet leaves another's.
    tested = read_descriptors(Path("runs/walk/descriptors.h5")).names
    correct({name: "stranger" if name == tested[0] else f"P{person}" for name, person in people.items()})
    told = folder.load(Path("data/walk"))
    assert len({t.pid for t in (*told.train, *told.query)}) == 6
    with pytest.raises(CsipError, match=r"trained on other data .* changed: the training tracklets"):
        csip("evaluate", *SMALL)  # who trains and who is tested is drawn from all people
    csip("evaluate", *SMALL, "--cross-dataset")
    again = json.loads(Path("runs/walk/metrics.json").read_text())["protocol"]
    assert again["gallery_identities"] == len({t.pid for t in told.gallery})
    assert again != protocol
    labels.unlink()
    with pytest.raises(CsipError, match=r"labels\.csv") as refused:
        csip("evaluate", *SMALL)
    assert "csip cluster" in advice(refused.value.parameter)


def test_rendering_overwrites_only_what_was_rendered(project: Path) -> None:
    tiny = ["--people", "1", "--cameras", "1", "--seconds", "0.5", "--height", "64", "--workers", "1"]
    csip("synth-videos", "--out", "data/tiny", *tiny)
    with pytest.raises(CsipError, match="--force"):
        csip("synth-videos", "--out", "data/tiny", *tiny)
    csip("synth-videos", "--out", "data/tiny", *tiny, "--force", "--seed", "1")
    assert json.loads(Path("data/tiny/scenes.json").read_text())["seed"] == 1
    with pytest.raises(CsipError, match="expected rendered videos"):
        csip("synth-videos", "--out", "data/walk", *tiny, "--force")


def test_cameras_and_times_are_in_the_table(project: Path) -> None:
    table = rows(Path("data/walk/tracklets.csv"))
    assert {row["camera"] for row in table} == {"cam1", "cam2"}
    assert all(re.fullmatch(r"crops/cam[12]/cam[12]-\d{4}/\d{6}\.jpg", row["frame"]) for row in table)
    assert all(float(row["time"]) == pytest.approx((int(row["number"]) - 1) / 10, abs=1e-3) for row in table)
