"""Labels of other tools, journals, settings, records and models, damaged: a right answer or a clear error, and no traceback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from fuzzing import damaged, damaged_json, survives
from onnx import TensorProto, helper
from safetensors.torch import save_file
from torch import nn

import csip
from csip.config import load_settings
from csip.data.dataset import Dataset, Tracklet
from csip.data.labels import parse_labels
from csip.export.onnx_model import KEY, OnnxDescription, OnnxModel
from csip.files import write_text
from csip.models.authors import read_reference
from csip.models.vision import create_vision
from csip.retrieval.averaging import METRICS, average
from csip.retrieval.evaluation import lookalike_groups
from csip.retrieval.looks import look
from csip.retrieval.search_index import build, load, save
from csip.retrieval.twins import twin_strata
from csip.review.interchange import coco, cvat, fiftyone, mot
from csip.review.interchange.tracks import LabelledTrack, VideoBoxes, match
from csip.review.journal import Journal
from csip.review.labels import LabelsFile
from csip.review.review import Basis, Review, left_out
from csip.video.decode import VideoReader
from pose_cache.outcome import read_record
from pose_cache.weights import load_weights

VIDEO, SIZE = "hall/monday.mp4", (200, 100)
FRAMES, BOX = np.arange(1, 9), [10.0, 20.0, 40.0, 80.0]


def anything(_: object) -> bool:
    """Where a format has no checksum, another answer is one that the file gives."""
    return True


# ---- labels of other tools -------------------------------------------------------------------------------------------


def tracks() -> list[LabelledTrack]:
    boxes = np.array([BOX] * len(FRAMES))
    people = (("t1", "Anna", 1, 0.0), ("t2", "B\u00f6rje", 2, 60.0), ("t3", None, 3, 120.0))
    return [LabelledTrack(name, VIDEO, who, n, FRAMES, boxes + np.array([x, 0, x, 0])) for name, who, n, x in people]


def is_matched(found: dict[str, VideoBoxes]) -> bool:
    """Whether boxes can be matched, and are of finite sizes."""
    match(tracks(), found)
    return all(np.isfinite(one.boxes).all() and (one.boxes[:, 2:] > one.boxes[:, :2]).all() for one in found.values())


@pytest.mark.parametrize("name", ["hall/monday/gt/gt.txt", "people.csv"])
def test_labels_of_motchallenge(name: str, tmp_path: Path) -> None:
    mot.write_mot(tracks(), tmp_path)
    path = tmp_path / name
    assert survives(path, path.read_bytes(), lambda: mot.read_mot(tmp_path, [VIDEO]), is_matched) > 5


def test_labels_of_coco(tmp_path: Path) -> None:
    coco.write_coco(tracks(), tmp_path, {VIDEO: SIZE})
    path = tmp_path / coco.FILE
    inputs = damaged_json(json.loads(path.read_bytes()))
    assert survives(path, path.read_bytes(), lambda: coco.read_coco(path, [VIDEO]), is_matched, inputs) > 10


def test_labels_of_cvat(tmp_path: Path) -> None:
    cvat.write_cvat(tracks(), tmp_path)
    path = tmp_path / "hall/monday.xml"
    assert survives(path, path.read_bytes(), lambda: cvat.read_cvat(path, {VIDEO: 1}), is_matched) > 10


@pytest.mark.parametrize("name", ["manifest.json", "labels/hall-monday.json"])
def test_labels_of_fiftyone(name: str, tmp_path: Path) -> None:
    video = tmp_path / "videos" / VIDEO
    video.parent.mkdir(parents=True)
    video.write_bytes(b"not looked into")
    out = tmp_path / "out"
    fiftyone.write_fiftyone(tracks(), out, tmp_path / "videos", {VIDEO: SIZE})
    path = out / name
    inputs = damaged_json(json.loads(path.read_bytes()))

    def read() -> dict[str, VideoBoxes]:
        return fiftyone.read_fiftyone(out, {VIDEO: 1}, {VIDEO: SIZE})

    assert survives(path, path.read_bytes(), read, is_matched, inputs) > 10


# ---- reviews ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def basis() -> Basis:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(12, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names, flags = tuple(f"t{n}" for n in range(12)), np.ones(12, bool)
    zeros = np.zeros(12, np.int64)
    return Basis(csip.Descriptors(rows, names, zeros, np.arange(12) % 2, flags, flags, "hall", "model"), {})


ENTRIES: list[dict[str, Any]] = [
    {"format": 1, "dataset": "hall"},
    {"do": "compare", "a": "t1", "b": "t2", "answer": "same", "key": "x", "kind": "join", "measured": [0.1] * 5, "agrees": True},
    {"do": "compare", "a": "t3", "b": "t4", "answer": "different"},
    {"do": "mark", "names": ["t5", "t6"], "as": "junk"},
    {"do": "move", "names": ["t7"], "to": "t8", "from": ["t9"], "beside": ["t8"]},
    {"do": "merge", "names": ["t9", "t10"]},
    {"do": "confirm", "names": ["t9", "t10"]},
    {"do": "rename", "names": ["t9", "t10"], "title": "Anna"},
    {"do": "undo", "of": 3},
]  # fmt: skip


def lines_of(trees: Iterator[bytes]) -> Iterator[bytes]:
    """Write lists of entries as the lines of a journal."""
    for content in trees:
        try:
            yield b"".join(json.dumps(entry).encode() + b"\n" for entry in json.loads(content))
        except (ValueError, TypeError, RecursionError):
            yield content


def test_journals_of_reviews(basis: Basis, tmp_path: Path) -> None:
    path = tmp_path / "review.jsonl"
    whole = b"".join(json.dumps(entry).encode() + b"\n" for entry in ENTRIES)

    def read() -> Review:
        left_out(tmp_path, "hall")
        review = Review(basis, Journal(path, "hall"))
        review.questions()
        review.states()
        LabelsFile(tmp_path).conflicts(review)
        return review

    def is_right(review: object) -> bool:
        titles = review.titles()  # type: ignore[attr-defined]
        return all(isinstance(title, str) and title for title in titles)

    assert survives(path, whole, read, is_right, lines_of(damaged_json(ENTRIES))) > 10


@pytest.mark.parametrize("name", ["labels.csv", ".labels.review.json"])
def test_labels_and_notes_of_reviews(name: str, basis: Basis, tmp_path: Path) -> None:
    def review() -> Review:
        (tmp_path / "review.jsonl").unlink(missing_ok=True)
        return Review(basis, Journal(tmp_path / "review.jsonl", "hall"))

    LabelsFile(tmp_path).save(review())
    whole = {name: (tmp_path / name).read_bytes() for name in ("labels.csv", ".labels.review.json")}

    def read() -> dict[str, str]:
        (other,) = whole.keys() - {name}
        (tmp_path / other).write_bytes(whole[other])
        labels, now = LabelsFile(tmp_path), review()
        labels.absorb(now)
        labels.conflicts(now)
        labels.save(now)
        return parse_labels((tmp_path / "labels.csv").read_bytes(), tmp_path / "labels.csv", basis.rows)

    def is_right(found: object) -> bool:
        return isinstance(found, dict) and found.keys() <= basis.rows.keys()

    inputs = damaged_json(json.loads(whole[name])) if name.endswith("json") else damaged(whole[name])
    survives(tmp_path / name, whole[name], read, is_right, inputs)


# ---- settings, records -----------------------------------------------------------------------------------------------


def test_settings(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    tree = {
        "dataset": {"name": "x", "root": "some where", "val_ids": 2},
        "clips": {"frames": 4, "mean": [0.4, 0.5, 0.3]},
        "stage2": {"lr": 1e-4, "decay_epochs": [2, 3], "losses": None},
    }
    del tree["stage2"]["losses"]
    whole = yaml.safe_dump(tree).encode()
    assert survives(path, whole, lambda: load_settings(path, ["stage1.epochs=3"]), anything) > 10
    assert survives(path, whole, lambda: load_settings(path), anything, damaged_json(tree)) > 10


def dataset(root: Path) -> Dataset:
    seen = tuple(Tracklet(f"t{pid}{camera}", pid, camera, ("a.jpg",)) for pid in (1, 2) for camera in (1, 2))
    return Dataset("x", root, (), seen, seen)


def test_pairs_and_looks_of_test_worlds(tmp_path: Path) -> None:
    data = dataset(tmp_path)
    strata: dict[str, Any] = {"part": "test", "test": {"gait": [[1, 2]], "build": []}}
    looks = [{"model": "0123", "seed": 0}]
    groups = [[1, 2]]

    def read() -> object:
        twin_strata(data)
        return look(data, "0123", 0, again=False)

    def clear() -> object:
        return lookalike_groups(data)

    for name, tree, reader in (
        ("strata.json", strata, read),
        ("test_looks.json", looks, read),
        ("lookalikes.json", groups, clear),
    ):
        (tmp_path / "strata.json").write_text(json.dumps(strata))
        survives(tmp_path / name, json.dumps(tree).encode(), reader, anything, damaged_json(tree))
        (tmp_path / name).unlink()


def test_metrics_and_records_of_extractions(tmp_path: Path) -> None:
    metrics = {
        "dataset": "x",
        "protocol": {"split": 0, "gallery": "with_queries"},
        "figures": dict.fromkeys(METRICS, 0.5),
    }
    path = tmp_path / "one/metrics.json"
    for folder, split in (("one", 0), ("two", 1)):
        write_text(
            tmp_path / folder / "metrics.json", json.dumps({**metrics, "protocol": {"split": split, "gallery": "x"}})
        )

    def is_right(found: object) -> bool:
        return all(np.isfinite(spread.mean) for spread in found.metrics.values())  # type: ignore[attr-defined]

    def read() -> object:
        return average([path.parent, tmp_path / "two"])

    assert survives(path, path.read_bytes(), read, is_right, damaged_json(metrics)) > 10
    record = {"estimator": "demo", "tracklets": 3, "images": {"colour": 5}, "skeletons": "0123"}
    path = tmp_path / "skeletons.json"
    survives(path, b"", lambda: read_record(tmp_path / "skeletons.h5"), anything, damaged_json(record))


def test_rates_of_sequences(tmp_path: Path) -> None:
    from PIL import Image

    path = tmp_path / "seqinfo.ini"
    Image.new("RGB", (8, 8)).save(tmp_path / "1.png")
    whole = b"[Sequence]\nname=MOT17-02\nframeRate=30\nseqLength=1\n"
    survives(path, whole, lambda: VideoReader(tmp_path).rate, lambda rate: 0 < rate < np.inf)  # type: ignore[operator]


# ---- weights and models ----------------------------------------------------------------------------------------------


def test_descriptions_of_image_encoders(tower: Path, tmp_path: Path) -> None:
    path = tmp_path / "tower.json"
    tree = json.loads(tower.read_bytes())
    inputs = damaged_json(tree)
    survives(path, tower.read_bytes(), lambda: create_vision(str(path), None, (64, 32), 0), anything, inputs)


@pytest.mark.parametrize("name", ["clip.safetensors", "clip.pt"])
def test_weights_of_image_encoders(name: str, tower: Path, tmp_path: Path) -> None:
    weights, path = create_vision(str(tower), None, (64, 32)).visual.state_dict(), tmp_path / name
    if path.suffix == ".pt":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    assert survives(path, path.read_bytes(), lambda: create_vision(str(tower), str(path), (64, 32)), anything) > 10


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_weights_of_pose_networks(name: str, tmp_path: Path) -> None:
    network, path = nn.Linear(3, 2), tmp_path / name
    if path.suffix == ".pt":
        torch.save({"state_dict": network.state_dict()}, path)
    else:
        save_file(network.state_dict(), path)
    assert survives(path, path.read_bytes(), lambda: load_weights(network, path), anything) > 10


def test_weights_of_the_methods_authors(tmp_path: Path) -> None:
    path = tmp_path / "stage2.pth"
    torch.save({f"module.{name}": torch.randn(3, 2) for name in ("a", "b")}, path)

    def is_right(found: object) -> bool:
        return all(bool(torch.isfinite(value).all()) for value in found.values())  # type: ignore[attr-defined]

    assert survives(path, path.read_bytes(), lambda: read_reference(path), is_right) > 10


def test_exported_models(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    about = OnnxDescription(
        version="1", model="0123", dataset="x", vision="tower.json", pretrained=None, cameras={1: 0, 2: 1}, frames=2, height=4,
        width=2, mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2), part_norm=False,
    )  # fmt: skip
    shape = ["batch", "frames", 3, 4, 2]
    inputs = [
        helper.make_tensor_value_info("images", TensorProto.UINT8, shape),
        helper.make_tensor_value_info("camera", TensorProto.INT64, ["batch"]),
    ]
    outputs = [helper.make_tensor_value_info("descriptors", TensorProto.FLOAT, ["batch", 3])]
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 3, 4], keepdims=0),
        helper.make_node("Cast", ["camera"], ["row"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["row", "last"], ["offset"]),
        helper.make_node("Add", ["mean", "offset"], ["descriptors"]),
    ]
    last = helper.make_tensor("last", TensorProto.INT64, [1], [1])
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, [last]),
        opset_imports=[helper.make_opsetid("", 13)],
        ir_version=8,
    )
    helper.set_model_props(model, {KEY: about.model_dump_json()})

    def run() -> torch.Tensor:
        return OnnxModel(path, threads=1).embed_pixels(torch.ones(2, 2, 3, 4, 2, dtype=torch.uint8))

    def is_right(found: object) -> bool:
        return isinstance(found, torch.Tensor) and len(found) == 2

    assert survives(path, model.SerializeToString(), run, is_right) > 10


def test_search_indexes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(300, 16)).astype(np.float32)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    path = tmp_path / "descriptors.h5.index"
    save(build(features, exact=100), path, "these")
    notes = path.with_name(f"{path.name}.json")
    truth = load(path, features, "these")
    assert truth is not None
    expected = truth.search(features[:5], 3)[1]

    def find() -> np.ndarray | None:
        found = load(path, features, "these")
        return None if found is None else found.search(features[:5], 3)[1]

    def is_right(found: object) -> bool:
        return found is None or np.array_equal(np.asarray(found), expected)

    whole = path.read_bytes()
    survives(path, whole, find, is_right)
    path.write_bytes(whole)
    inputs = damaged_json(json.loads(notes.read_bytes()))
    survives(notes, notes.read_bytes(), find, is_right, inputs)
