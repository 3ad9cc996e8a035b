"""The public Python API: what it imports, that it is the commands' own, and that its page and its notebook run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

import csip
import pose_cache
from csip.config import load_settings
from csip.data.dataset import Tracklets
from csip.models.checkpoints import save_model
from csip.models.factory import build_model, empty_encoder
from csip.synthetic.world import SyntheticSpec, load_truth, render_mars
from pipelines import embed_tracklets, paths
from pose_cache.plan import FrameSequence
from pose_cache.shard import ShardJob, make_shards
from pose_cache.shipped import CONFIGS
from pose_cache.store import Provenance, TrackletSkeletons, write_store

pytestmark = pytest.mark.slow

DOCS = Path(__file__).parents[1] / "docs"
SMALL = ("dataset.name=demo",
         "runtime.workers=0", "runtime.device=cpu", "runtime.precision=32-true", "evaluation.compare_untrained=false",
         "dataset.val_ids=0", "skeleton_encoder.depth=1", "stage2.ids_per_batch=2")  # fmt: skip


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `make demo` leaves it, with fewer people and the demo's model before its training."""
    folder = tmp_path_factory.mktemp("python")
    root = folder / "data/demo"
    people = SyntheticSpec(train_ids=4, test_ids=3, cameras=2, tracklets_per_camera=2, frames=6, height=128, width=64)
    render_mars(root, people, workers=1)
    settings = load_settings(CONFIGS / "rendered.yaml", SMALL)
    (folder / "configs").mkdir()
    (folder / "configs/demo.yaml").write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    width = json.loads((CONFIGS / "vision/demo.json").read_text())["embed_dim"]
    network = build_model(empty_encoder("h36m17", width, settings), 1.0, 4, 2, settings)
    assert network.vision.camera_embedding is not None
    network.vision.camera_embedding.data.normal_()  # before training it is zero, and would change nothing
    save_model(folder / "runs/demo/stage2/model.safetensors", network.state_dict(), {
        "kind": "stage2", "dataset": "demo", "identities": 4, "cameras": {"1": 0, "2": 1}, "joint_set": "h36m17",
        "width": width, "settings": settings.model_dump(mode="json"), "revision": "",
    })  # fmt: skip
    train = {t.name: t for t in csip.load_dataset("demo", root=root).train}
    write_store(root / "skeletons.h5", [
        TrackletSkeletons(truth.name, train[truth.name].frames, truth.joints3d,
                          np.zeros((len(truth.joints3d), 17, 3), np.float32), np.ones(len(truth.joints3d), bool))
        for truth in load_truth(root) if truth.name in train
    ], Provenance("truth", "h36m17", "metres"))  # fmt: skip
    return folder


@pytest.fixture
def demo(work: Path, monkeypatch: pytest.MonkeyPatch) -> csip.Dataset:
    monkeypatch.chdir(work)
    return csip.load_dataset("demo")


# ---- the page and the notebook ---------------------------------------------------------------------------------------


def run(code: list[str], where: str) -> str:
    """Run pieces of code one after the other, in one namespace; return what they printed."""
    printed: list[str] = []
    names: dict[str, object] = {"print": lambda *values: printed.append(" ".join(map(str, values)))}
    for piece in code:
        exec(compile(piece, where, "exec"), names)
    return "\n".join(printed)


@pytest.mark.slow
def test_the_page_runs(demo: csip.Dataset) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / "python.md").read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) > 10
    printed = run(blocks, "python.md")
    assert "Rank-1" in printed and "people, threshold" in printed and "runs/nowhere" in printed
    assert json.loads(Path("metrics.json").read_text())["figures"]["valid_queries"] == len(demo.query)
    assert Path("runs/mine/stage2/model.safetensors").exists()


@pytest.mark.slow
def test_the_notebook_runs(demo: csip.Dataset) -> None:
    cells = json.loads((DOCS / "python.ipynb").read_text())["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 4 and not any(cell.get("outputs") for cell in cells)
    assert "Rank-1" in run(code, "python.ipynb")


# ---- the face --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("package", ["csip", "pose_cache"])
def test_importing_it_imports_no_torch(package: str) -> None:
    program = f"import sys, {package}; assert not {{'torch', 'numpy', 'pydantic', 'h5py'}} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_every_name_of_the_face_is_there() -> None:
    for package in (csip, pose_cache):
        for name in package.__all__:
            assert getattr(package, name) is not None and name in dir(package), name
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            package.nothing  # noqa: B018
    assert (Path(csip.__file__).parent / "py.typed").exists()
    assert re.match(r"\d", csip.__version__)


# ---- the commands' own -----------------------------------------------------------------------------------------------


def test_descriptors_are_the_commands_to_the_bit(demo: csip.Dataset) -> None:
    settings = paths.settings_for("demo", None, None, [])
    command = csip.read_descriptors(embed_tracklets.run(settings, Path("runs/demo"), out=Path("command.h5")))
    model = csip.load("runs/demo")
    whole, gallery = model.embed(demo), model.embed(demo.gallery)
    for column in ("features", "identities", "cameras", "query", "gallery"):
        assert np.array_equal(getattr(whole, column), getattr(command, column)), column
    assert (whole.names, whole.dataset, whole.model) == (command.names, command.dataset, command.model)
    same = command.take([command.names.index(name) for name in gallery.names])
    assert np.array_equal(same.features, gallery.features) and same.model == gallery.model
    # The camera embedding is there, and used: without the data set's name the descriptors are others.
    foreign = csip.Dataset("other", demo.root, (), demo.query, demo.gallery)
    assert not np.array_equal(model.embed(foreign.gallery).features, gallery.features)
    assert np.array_equal(np.asarray(gallery), gallery.features)


def test_frames_are_paths_arrays_pictures_or_a_folder(demo: csip.Dataset, tmp_path: Path) -> None:
    model = csip.load("runs/demo")
    files = [demo.root / frame for frame in demo.query[0].frames]
    arrays = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]
    expected = model.embed(files).features
    for number, file in enumerate(files):
        (tmp_path / f"{number:03d}.jpg").write_bytes(file.read_bytes())
    pictures = [Image.fromarray(array) for array in arrays]
    for frames in (map(str, files), arrays, np.stack(arrays), pictures, tmp_path, str(tmp_path)):
        assert np.array_equal(model.embed(frames).features, expected)
    assert np.array_equal(model.embed(files[0]).features, model.embed(arrays[0]).features)
    small = [np.ascontiguousarray(array[::2, ::2]) for array in arrays]
    assert (model.embed(small).features @ expected.T).item() > 0.9, "crops of any size"
    assert not np.array_equal(model.embed(files[:1]).features, expected)
    # Beside the same tracklet of the data set, only the camera differs.
    assert 0.5 < (model.embed(demo.query[:1]).features @ expected.T).item() < 1


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        ([], "no frames"),
        ([3], "frame 0: expected a path, an array or a Pillow image, found int"),
        (["nowhere.jpg"], r"nowhere\.jpg: no such frame"),
        ([np.zeros((8, 8, 3))], r"expected an array \(height, width, 3\) of uint8, RGB, found \(8, 8, 3\) of float64"),
        ([np.zeros((3, 8, 8), np.uint8)], r"found \(3, 8, 8\)"),
        (np.zeros((8, 8), np.uint8), "frame 0: expected an array"),
    ],
)
def test_what_is_no_frame_is_refused(demo: csip.Dataset, frames: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        csip.load("runs/demo").embed(frames)  # type: ignore[arg-type]


def test_tracklets_know_their_data_set(demo: csip.Dataset) -> None:
    model = csip.load("runs/demo")
    assert isinstance(demo.gallery[1:3], Tracklets) and demo.gallery[1:3].dataset is demo
    chosen = [t for t in demo.gallery if t.camera == 1]
    with pytest.raises(csip.CsipError, match=r"use model\.embed_tracklets"):
        model.embed(chosen)
    found = model.embed_tracklets(demo, chosen)
    assert found.names == tuple(t.name for t in chosen) and set(found.cameras.tolist()) == {1}
    with pytest.raises(csip.CsipError, match="no tracklets to embed"):
        model.embed(demo.gallery[:0])


def test_a_search_ranks_by_cosine(demo: csip.Dataset) -> None:
    model = csip.load("runs/demo")
    gallery, queries = model.embed(demo.gallery), model.embed(demo.query)
    similar = queries.features @ gallery.features.T
    for number, result in enumerate(csip.search(queries, gallery, top=4)):
        rows = [row for row in np.argsort(-similar[number], kind="stable") if gallery.names[row] != result.query]
        assert [hit.tracklet for hit in result] == [gallery.names[row] for row in rows[:4]]
        assert [hit.rank for hit in result] == [1, 2, 3, 4] and len(result) == 4
        assert np.allclose([hit.cosine for hit in result], similar[number][rows[:4]], atol=1e-5)
    for result, camera in zip(csip.search(queries, gallery, cameras="other"), queries.cameras.tolist(), strict=True):
        assert len(result) and all(hit.camera != str(camera) for hit in result)
    files = [demo.root / frame for frame in demo.query[0].frames]
    person = model.embed(files)
    assert csip.search(person, gallery)[0][0].rank == 1
    with pytest.raises(csip.CsipError, match="query camera unknown"):
        csip.search(person, gallery, cameras="same")
    with pytest.raises(csip.CsipError, match="top: expected at least 1, found 0"):
        csip.search(person, gallery, top=0)
    stranger = csip.Descriptors(**{**vars(person), "model": "0123"})
    with pytest.raises(csip.CsipError, match="embed both with the same model"):
        csip.search(stranger, gallery)


# ---- models and data sets by their names -----------------------------------------------------------------------------


def test_models_that_cannot_be_loaded(demo: csip.Dataset) -> None:
    with pytest.raises(csip.CsipError, match=r"runs/nowhere/stage2/model\.safetensors: missing"):
        csip.load("runs/nowhere")
    with pytest.raises(csip.CsipError, match="precision: expected 32-true, bf16-mixed, 16-mixed, found 'half'"):
        csip.load("runs/demo", precision="half")  # type: ignore[arg-type]
    with pytest.raises(csip.CsipError, match="device: expected auto, cpu, cuda"):
        csip.load("runs/demo", device="quick")
    with pytest.raises(csip.CsipError, match=r"none\.onnx: no such file"):
        csip.load("none.onnx")
    skeletons = Path("runs/kinect/skeleton/model.safetensors")
    skeletons.parent.mkdir(parents=True)
    skeletons.touch()
    with pytest.raises(csip.CsipError, match="a model of skeletons alone"):
        csip.load("runs/kinect")


def test_a_model_is_found_by_run_folder_or_file(demo: csip.Dataset) -> None:
    found = [
        csip.load(place) for place in ("runs/demo", Path("runs/demo/stage2"), "runs/demo/stage2/model.safetensors")
    ]
    assert len({model.digest for model in found}) == 1
    assert found[0].to("cpu") is found[0] and "trained on demo" in repr(found[0])
    reduced = csip.load("runs/demo", precision="bf16-mixed").embed(demo.query[:2]).features
    whole = found[0].embed(demo.query[:2]).features
    assert not np.array_equal(reduced, whole) and np.allclose((reduced * whole).sum(axis=1), 1, atol=1e-3)


def test_data_sets_by_name_folder_and_table(demo: csip.Dataset, tmp_path: Path) -> None:
    assert csip.load_dataset(demo) is demo
    moved = csip.load_dataset("demo", root=demo.root.absolute())
    assert moved.gallery == demo.gallery and moved.root.is_absolute()
    for person in ("a: [1]", "b"):  # names that YAML would read as something else
        for camera in ("north", "south"):
            place = tmp_path / "my #1 people" / person / camera
            place.mkdir(parents=True)
            (place / "0.jpg").write_bytes((demo.root / demo.query[0].frames[0]).read_bytes())
    folder = csip.load_dataset(tmp_path / "my #1 people")
    assert folder.name == "my #1 people" and len(folder.train) == len(folder.query) == 2
    table = tmp_path / "table/tracklets.csv"
    table.parent.mkdir()
    table.write_text(f"tracklet,person,camera,frame\nx,,1,{'a.jpg'}\n")
    assert [t.name for t in csip.load_dataset(table).gallery] == ["x"]
    assert csip.load_dataset("demo", overrides=["dataset.gallery=without_queries"]).queries_in_gallery == 0
    with pytest.raises(csip.CsipError, match="unknown data set 'demmo': expected one of"):
        csip.load_dataset("demmo")


@pytest.mark.slow
def test_poses_of_frames_are_those_of_the_command(demo: csip.Dataset, tmp_path: Path) -> None:
    """`csip skeletons` batches many tracklets; one person's frames give the same pose but for rounding."""
    tracklet = demo.train[0]
    files = [demo.root / frame for frame in tracklet.frames]
    arrays = [cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2RGB) for file in files]
    estimator = pose_cache.PoseEstimator.load("demo", device="cpu")
    poses = estimator.estimate(files)
    assert poses.joints.shape == (6, 17, 3) and poses.valid.all()
    assert np.array_equal(estimator.estimate(arrays).joints, poses.joints)
    sequences = tuple(FrameSequence(t.name, t.frames) for t in demo.train[:3])
    make_shards(estimator, [ShardJob(tmp_path / "shard.h5", sequences)], demo.root, 7, 1, {}, lambda frames: None)
    stored = pose_cache.open(tmp_path / "shard.h5")[tracklet.name]
    assert np.allclose(stored.joints, poses.joints, atol=1e-4) and np.array_equal(stored.valid, poses.valid)
    assert np.allclose(stored.keypoints2d, poses.keypoints2d, atol=1e-2)
    with pytest.raises(pose_cache.PoseCacheError, match="no frames"):
        estimator.estimate([])
    with pytest.raises(pose_cache.PoseCacheError, match=r"nowhere\.jpg: no such file"):
        estimator.estimate(["nowhere.jpg"])
