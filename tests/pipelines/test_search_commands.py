"""Videos' tracklets without people, described, searched and clustered, by the command line; then trained with the labels."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import yaml

from csip.config import load_settings
from csip.data import mars
from csip.data.dataset import DISTRACTOR
from csip.files import digest
from csip.models.checkpoints import save_model
from csip.models.factory import build_model, empty_encoder
from csip.retrieval import embedding, in_parts
from csip.retrieval.descriptors import read_descriptors
from pipelines.cli import main
from pose_cache.shipped import CONFIGS

pytestmark = pytest.mark.slow

Csip = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, walkers: Path) -> Path:
    """A folder to work in: rendered people as a table in which nobody is known, and the demo's model before its training."""
    folder = tmp_path_factory.mktemp("search")
    root = folder / "data" / "hall"
    root.mkdir(parents=True)
    for part in ("bbox_train", "bbox_test"):
        shutil.copytree(walkers / part, root / part)
    dataset = mars.load(walkers)
    tracklets = {t.name: t for t in (*dataset.train, *dataset.query, *dataset.gallery) if t.pid > DISTRACTOR}
    with (root / "tracklets.csv").open("w", newline="") as file, (folder / "truth.json").open("w") as truth:
        writer = csv.writer(file)
        writer.writerow(("tracklet", "person", "camera", "frame", "video", "number"))
        for row, tracklet in enumerate(tracklets.values()):
            for number, frame in enumerate(tracklet.frames):
                camera = f"cam-{tracklet.camera}"
                writer.writerow((tracklet.name, "", camera, frame, f"{camera}.mp4", 1000 * row + number))
        json.dump({t.name: t.pid for t in tracklets.values()}, truth)
    changes = ["dataset.name=hall", "dataset.layout=folder", "dataset.val_ids=0", "runtime.workers=0",
               "runtime.device=cpu", "evaluation.compare_untrained=false"]  # fmt: skip
    settings = load_settings(CONFIGS / "rendered.yaml", changes)
    (folder / "configs").mkdir()
    (folder / "configs" / "hall.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    width = json.loads((CONFIGS / "vision" / "demo.json").read_text())["embed_dim"]
    network = build_model(empty_encoder("h36m17", width, settings), 1.0, 1, 3, settings)
    save_model(folder / "runs" / "demo" / "stage2" / "model.safetensors", network.state_dict(), {
        "kind": "stage2", "dataset": "demo", "identities": 1, "cameras": {"1": 0, "2": 1, "3": 2}, "joint_set": "h36m17",
        "width": width, "settings": settings.model_dump(mode="json"), "revision": "",
    })  # fmt: skip
    return folder


@pytest.fixture
def csip(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], work: Path) -> Csip:
    """Run the command line in this process, in that folder; returns the exit code and what was printed."""
    monkeypatch.chdir(work)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["csip", *arguments, "--dataset", "hall"])
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        return code, captured.out + (captured.err if "--json" not in arguments else "")

    return run


@pytest.fixture
def described(work: Path, csip: Csip) -> Path:
    """The folder to work in, with descriptors."""
    if not (work / "runs/hall/descriptors.h5").exists():
        code, text = csip("embed", "--model", "runs/demo/stage2")
        assert code == 0, text
        assert "demo's, which was trained on rendered people" in text and "trained on data set demo" in text
    return work


def truth(work: Path) -> dict[str, int]:
    return json.loads((work / "truth.json").read_text())


def test_unlabelled_tracklets_are_described(described: Path) -> None:
    descriptors = read_descriptors(described / "runs/hall/descriptors.h5")
    assert set(descriptors.names) == set(truth(described)) and descriptors.dataset == "hall"
    assert descriptors.model == digest(described / "runs/demo/stage2/model.safetensors")
    assert np.allclose(np.linalg.norm(descriptors.features, axis=1), 1, atol=1e-5)
    assert descriptors.query.all() and descriptors.gallery.all() and not descriptors.identities.any()
    assert not list((described / "runs/hall").glob(".*")), "nothing else is left"


def test_arrays_for_other_programs(described: Path, csip: Csip) -> None:
    code, text = csip("embed", "--model", "runs/demo", "--out", "other/arrays.npz")
    assert code == 0, text
    descriptors = read_descriptors(described / "runs/hall/descriptors.h5")
    with np.load("other/arrays.npz") as arrays:
        assert arrays["names"].tolist() == list(descriptors.names)
        assert np.array_equal(arrays["features"], descriptors.features)
        assert str(arrays["model"]) == descriptors.model
    code, text = csip("embed", "--model", "runs/demo", "--out", "arrays.txt")
    assert code == 1 and "arrays.txt: descriptors are written as .h5 or .npz" in text
    code, text = csip("embed")
    assert code == 1 and "runs/hall/stage2/model.safetensors: missing" in text and "--model" in text


def test_a_stopped_run_goes_on_to_the_same_bits(
    described: Path, csip: Csip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(in_parts, "SHARD", 7)
    out = tmp_path / "descriptors.h5"
    read, calls = embedding.read_frames, []

    def stop(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 18:
            raise KeyboardInterrupt
        return read(*arguments)

    monkeypatch.setattr(embedding, "read_frames", stop)
    code, _ = csip("embed", "--model", "runs/demo", "--out", str(out))
    assert code == 130 and not out.exists() and len(list(out.parent.glob(".descriptors.h5.shards/[!.]*.npy"))) == 2
    code, text = csip("embed", "--model", "runs/demo", "--out", str(out))
    assert code == 0 and "14 of 40 tracklets are kept from before" in text
    assert len(calls) == 18 + 40 - 14
    same_content(out, described / "runs/hall/descriptors.h5")


def same_content(one: Path, other: Path) -> None:
    with h5py.File(one) as a, h5py.File(other) as b:
        assert a.keys() == b.keys() and dict(a.attrs) == dict(b.attrs)
        for name in a:
            assert np.array_equal(a[name][()], b[name][()]), name


def test_a_killed_run_goes_on_to_the_same_bits(described: Path, tmp_path: Path) -> None:
    """`csip embed`, killed once its first shard is there, then run again, in processes of their own."""
    out = tmp_path / "descriptors.h5"
    program = "import csip.retrieval.in_parts as parts; parts.SHARD = 2; from pipelines.cli import main; main()"
    command = [
        sys.executable,
        "-P",
        "-c",
        program,
        "embed",
        "--dataset",
        "hall",
        "--model",
        "runs/demo",
        "--out",
        str(out),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, cwd=described, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not any(out.parent.glob(".descriptors.h5.shards/[!.]*.npy")) and time.monotonic() < deadline:
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not out.exists()
    result = subprocess.run(command, cwd=described, env=environment, capture_output=True, text=True, check=True)
    assert "kept from before" in result.stdout
    same_content(out, described / "runs/hall/descriptors.h5")


def test_a_tracklet_is_searched(described: Path, csip: Csip) -> None:
    descriptors = read_descriptors(described / "runs/hall/descriptors.h5")
    similar = descriptors.features @ descriptors.features.T
    row = 5
    expected = [i for i in np.argsort(-similar[row]) if i != row]
    code, text = csip("search", descriptors.names[row], "--top", "4", "--json")
    assert code == 0
    answer = json.loads(text)
    assert answer["dataset"] == "hall" and answer["model"] == descriptors.model
    (query,) = answer["queries"]
    assert query["query"] == descriptors.names[row]
    assert [line["tracklet"] for line in query["results"]] == [descriptors.names[i] for i in expected[:4]]
    assert [line["rank"] for line in query["results"]] == [1, 2, 3, 4]
    assert np.allclose([line["cosine"] for line in query["results"]], similar[row, expected[:4]], atol=1e-5)
    assert {line["camera"] for line in query["results"]} <= {"cam-1", "cam-2"}, "cameras by the table's names"

    code, text = csip("search", descriptors.names[row], "--top", "3")
    assert code == 0 and descriptors.names[expected[0]] in text and "cosine" in text
    for option, same in (("--same-camera", True), ("--other-cameras", False)):
        kept = [i for i in expected if (descriptors.cameras[i] == descriptors.cameras[row]) == same]
        code, text = csip("search", descriptors.names[row], "--json", "--top", "100", option)
        found = [line["tracklet"] for line in json.loads(text)["queries"][0]["results"]]
        assert code == 0 and found == [descriptors.names[i] for i in kept]


def test_all_tracklets_are_searched_into_a_table(described: Path, csip: Csip, tmp_path: Path) -> None:
    descriptors = read_descriptors(described / "runs/hall/descriptors.h5")
    out = tmp_path / "new" / "lists.csv"
    code, text = csip("search", "--all", "--top", "2", "--out", str(out))
    assert code == 0 and "40 queries" in text and len(text.splitlines()) < 5
    with out.open() as file:
        lines = list(csv.DictReader(file))
    similar = descriptors.features @ descriptors.features.T
    np.fill_diagonal(similar, -1)
    nearest = [descriptors.names[i] for i in similar.argmax(axis=1)]
    assert [line["tracklet"] for line in lines if line["rank"] == "1"] == nearest
    assert [line["query"] for line in lines[::2]] == list(descriptors.names)


def test_images_are_searched(described: Path, csip: Csip, tmp_path: Path) -> None:
    """The pictures of a tracklet find that tracklet: the same descriptor, but for the camera that nobody names."""
    with (described / "data/hall/tracklets.csv").open() as file:
        rows = list(csv.DictReader(file))
    name = rows[60]["tracklet"]
    for row in rows:
        if row["tracklet"] == name:
            shutil.copy(described / "data/hall" / row["frame"], tmp_path)
    code, text = csip("search", str(tmp_path), "--model", "runs/demo/stage2", "--json", "--top", "1")
    (query,) = json.loads(text)["queries"]
    assert code == 0 and query["results"][0]["tracklet"] == name and query["results"][0]["cosine"] > 0.9999


def test_a_video_is_searched(described: Path, csip: Csip, tmp_path: Path) -> None:
    """Two people, by given boxes, before grey walls."""
    with (described / "data/hall/tracklets.csv").open() as file:
        rows = list(csv.DictReader(file))
    people = list(dict.fromkeys(row["tracklet"] for row in rows))[::20][:2]
    images = [
        [cv2.imread(str(described / "data/hall" / r["frame"])) for r in rows if r["tracklet"] == p] for p in people
    ]
    video = cv2.VideoWriter(str(tmp_path / "two.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 160))
    boxes = []
    for number in range(12):
        frame = np.full((160, 320, 3), 128, np.uint8)
        for person, crops in enumerate(images):
            crop = cv2.resize(crops[number // 2 % len(crops)], (64, 128))
            left = 30 + 150 * person
            frame[16:144, left : left + 64] = crop
            boxes.append(f"{number + 1},{person + 1},{left},16,64,128,1,-1,-1,-1")
        video.write(frame)
    video.release()
    (tmp_path / "two.txt").write_text("\n".join(boxes) + "\n")
    arguments = ("--model", "runs/demo/stage2", "--detector", "boxes", "--top", "3")
    code, text = csip("search", str(tmp_path / "two.mp4"), *arguments, "--json")
    assert code == 0, text
    queries = json.loads(text)["queries"]
    assert len(queries) == 2
    for person, query in zip(people, queries, strict=True):
        who = truth(described)
        assert who[person] in {who[line["tracklet"]] for line in query["results"]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nobody",), "nobody: neither a tracklet of data set hall"),
        ((), "give a query"),
        (("nobody", "--all"), "give a query"),
        (("--all", "--same-camera", "--other-cameras"), "give one of them"),
        (("configs", "--model", "runs/demo"), "configs: no images in it"),
        (("configs", "--model", "runs/demo", "--other-cameras"), "configs: query camera unknown"),
        (("configs",), "runs/hall/stage2/model.safetensors: missing"),
        (("--all", "--run", "runs/none"), "runs/none/descriptors.h5: no such file; `csip embed`"),
    ],
)
def test_searches_that_cannot_be(described: Path, csip: Csip, arguments: tuple[str, ...], words: str) -> None:
    code, text = csip("search", *arguments)
    assert code == 1 and words in text and "Traceback" not in text


def test_training_says_what_unlabelled_data_lack(described: Path, csip: Csip) -> None:
    for command in ("train-stage1", "train-stage2", "embed-frames", "evaluate"):
        code, text = csip(command)
        assert code == 1 and "no tracklet has a person" in text and "csip cluster" in text and "labels.csv" in text


def test_people_are_proposed_corrected_and_trained_with(described: Path, csip: Csip) -> None:
    """One after the other, as a person would: the files of each step are the next one's."""
    labels = described / "data/hall/labels.csv"
    code, text = csip("cluster")
    assert code == 0, text
    assert "40 tracklets of 2 cameras are" in text and "adjusted Rand" not in text, "nobody is known"
    proposed = labels.read_bytes()
    with labels.open() as file:
        people = {line["tracklet"]: line["person"] for line in csv.DictReader(file)}
    assert people.keys() == truth(described).keys()

    code, text = csip("cluster", "--people", "10")
    assert code == 0 and " are 10 people" in text, "what nobody has touched is replaced"
    code, text = csip("cluster")
    assert code == 0 and labels.read_bytes() == proposed, "the same data, the same proposal"

    who = truth(described)
    with labels.open("w", newline="") as file:
        csv.writer(file).writerows([("tracklet", "person"), *((name, f"P{pid:02d}") for name, pid in who.items())])
    code, text = csip("cluster")
    assert code == 1 and "somebody has changed" in text and "--force" in text
    code, text = csip("cluster", "--out", "runs/hall/again.csv")
    assert code == 0 and "against the 40 tracklets whose person is known: adjusted Rand index" in text
    rand = float(text.split("adjusted Rand index")[1].split(",")[0])
    assert rand > 0.3, "chance is 0"

    code, text = csip("search", next(iter(who)), "--top", "3")
    assert code == 0 and "person P" in text, "labels are known without describing the tracklets again"

    code, text = csip("skeletons")
    assert code == 0, text
    few = [f"--set=stage{stage}.epochs=1" for stage in (1, 2)]
    for command in ("train-stage1", "train-stage2"):
        code, text = csip(command, *few)
        assert code == 0, text
    code, text = csip("evaluate")
    assert code == 0 and "Rank-1" in text and "nobody has corrected it" not in text
    evaluated = read_descriptors(described / "runs/hall/descriptors.h5")
    assert evaluated.query.any() and (evaluated.identities > 0).all() and len(evaluated) < 40, "the tested people"
    assert evaluated.model == digest(described / "runs/hall/stage2/model.safetensors")
    code, text = csip("embed", "--out", "runs/hall/again.h5")
    assert code == 0
    same_content(described / "runs/hall/again.h5", described / "runs/hall/descriptors.h5")

    # What is described now is the tested people alone: the rest is neither searched nor, unnoticed, left out of the labels.
    trains = next(name for name in who if name not in evaluated.names)
    code, text = csip("search", trains)
    assert code == 1 and f"{trains}: a training tracklet" in text and "--part all" in text
    code, text = csip("cluster", "--force")
    assert code == 1 and f"describes {len(evaluated)} of the 40 tracklets" in text and "--part all" in text
    code, text = csip("embed", "--part", "all")
    assert code == 0 and "left out" not in text
    labels.write_text("tracklet\n")
    code, text = csip("cluster")
    assert code == 1 and "labels.csv: no column person" in text
    code, text = csip("cluster", "--force")
    assert code == 0 and len(labels.read_text().splitlines()) == 41, "a file that cannot be read can be replaced"
    code, text = csip("evaluate", "--run", "runs/demo", "--cross-dataset")
    assert code == 0 and "nobody has corrected it" in text, "right and wrong are a guess"
