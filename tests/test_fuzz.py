"""Files of pictures, videos, data sets and caches, damaged: a right answer or a clear error, never a traceback, never a hang.

``CSIP_FUZZ_INPUTS=2000 pytest --timeout=3600 tests/test_fuzz.py tests/test_fuzz_records.py`` is the nightly form.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import shutil
from pathlib import Path

import av
import cv2
import h5py
import numpy as np
import pytest
import scipy.io
import torch
from fuzzing import damaged, damaged_json, survives
from PIL import Image

from csip.config import DatasetSettings, Settings
from csip.data import folder, kgbd, kinect_frames, mars, prid2011, transg
from csip.data.dataset import Dataset
from csip.data.index import FOLDER, Tree
from csip.data.matfiles import read_matrix
from csip.files import write_json
from csip.models.checkpoints import load_model, save_model
from csip.retrieval.descriptors import Descriptors, read_descriptors, write_descriptors
from csip.runtime import make_fabric
from csip.training import frame_features
from csip.training.run_folder import RunFolder
from csip.video.boxes import GivenBoxes, Shown, read_boxes
from csip.video.decode import VideoReader
from csip.video.find import VideoFile
from csip.video.geometry import Geometry
from csip.video.one_video import VideoSummary
from csip.video.state import IngestState
from pose_cache.images import load_frame
from pose_cache.interchange import import_kinect
from pose_cache.json_tree import read_points
from pose_cache.parts import Part
from pose_cache.plan import FrameSequence
from pose_cache.store import Provenance, SkeletonStore, TrackletSkeletons, verify_store, write_store
from pose_cache.summary import summarize_store


def anything(_: object) -> bool:
    """Where a format has no checksum, another answer is one that the file gives."""
    return True


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("cache") / "skeletons.h5"
    tracklets = [
        TrackletSkeletons(
            f"t{n}", tuple(f"t{n}/{i}.jpg" for i in range(5)), rng.normal(size=(5, 17, 3)).astype(np.float32),
            rng.normal(size=(5, 17, 3)).astype(np.float32), np.ones(5, bool),
        )
        for n in range(3)
    ]  # fmt: skip
    write_store(path, tracklets, Provenance("noise", "h36m17", "m", {"source": "noise"}))
    return path.read_bytes()


def test_skeleton_caches(cache: bytes, tmp_path: Path) -> None:
    path = tmp_path / "skeletons.h5"
    path.write_bytes(cache)
    with SkeletonStore(path) as store:
        whole = {name: store.read(name) for name in store.names}

    def read() -> dict[str, TrackletSkeletons] | None:
        summarize_store(path)
        with SkeletonStore(path) as store:
            found = {name: store.read(name) for name in store.names}
        return found if not verify_store(path) else None

    def is_right(found: object) -> bool:
        # What the checksums do not cover is the order of whole tracklets, and what they are called in attributes.
        return found is None or all(
            np.array_equal(found[name].joints, one.joints) and found[name].frames == one.frames for name, one in whole.items()
        )  # fmt: skip

    assert survives(path, cache, read, is_right) > 10


def test_descriptors(tmp_path: Path) -> None:
    path = tmp_path / "descriptors.h5"
    rng = np.random.default_rng(0)
    numbers = {"identities": np.arange(6), "cameras": np.arange(6) % 2}
    whole = Descriptors(
        rng.normal(size=(6, 8)).astype(np.float32), tuple("abcdef"), **fitting(numbers), dataset="x", model="y"
    )
    write_descriptors(path, whole)

    def read() -> Descriptors:
        found = read_descriptors(path)
        read_descriptors(path, mapped=True)
        return found

    def is_right(found: Descriptors) -> bool:
        rows = len(found.names)
        return rows == len(found.features) and found.features.ndim == 2

    assert survives(path, path.read_bytes(), read, is_right) > 10


def fitting(numbers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the columns that descriptors have beside names and features."""
    from dataclasses import fields

    known = {"features", "names", "dataset", "model"}
    others = [field.name for field in fields(Descriptors) if field.name not in known]
    return {name: numbers.get(name, np.arange(6)) for name in others}


def test_checkpoints(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_model(
        path,
        {"weight": torch.arange(12.0).reshape(3, 4), "bias": torch.zeros(3)},
        {"stage": "stage2", "joint_set": "h36m17"},
    )
    assert survives(path, path.read_bytes(), lambda: load_model(path, "stage2"), anything) > 10


@pytest.mark.parametrize("hdf5", [False, True])
def test_mat_files(tmp_path: Path, hdf5: bool) -> None:
    path = tmp_path / "info.mat"
    matrix = np.arange(40.0).reshape(10, 4)
    if hdf5:
        with h5py.File(path, "w", userblock_size=512) as file:
            file["info"] = matrix.T
        data = path.read_bytes()
        path.write_bytes(b"MATLAB 7.3 MAT-file".ljust(512) + data[512:])
    else:
        scipy.io.savemat(path, {"info": matrix, "other": np.arange(3)}, do_compression=True)
    assert survives(path, path.read_bytes(), lambda: read_matrix(Tree(tmp_path), "info.mat", "info"), anything) > 10


def test_tables(tmp_path: Path) -> None:
    rows = [f"t{n // 2},p{n // 4},cam{n // 2 % 2},f/{n}.jpg,{n}" for n in range(16)]
    table = "\n".join(["tracklet,person,camera,frame,number", *rows])
    labels = "tracklet,person\nt0,ann\nt1,bob\n"

    def read() -> Dataset:
        shutil.rmtree(tmp_path / FOLDER, ignore_errors=True)
        folder.read_sightings(tmp_path)
        return folder.load(tmp_path)

    for name, text in (("tracklets.csv", table), ("labels.csv", labels)):
        (tmp_path / "tracklets.csv").write_text(table)
        (tmp_path / "labels.csv").write_text(labels)
        assert survives(tmp_path / name, text.encode(), read, anything) > 10


def test_mars_names_and_kept_indexes(tmp_path: Path) -> None:
    names = [f"000{p}C{c}T0001F00{f}.jpg" for p in (1, 2) for c in (1, 2) for f in (1, 2)]
    rows = np.array([[1, 2, 1, 1], [3, 4, 1, 2], [5, 6, 2, 1], [7, 8, 2, 2]], float)
    (tmp_path / "info").mkdir()
    for part in ("train", "test"):
        (tmp_path / f"info/{part}_name.txt").write_text("\n".join(names))
        scipy.io.savemat(tmp_path / f"info/tracks_{part}_info.mat", {f"track_{part}_info": rows})
    scipy.io.savemat(tmp_path / "info/query_IDX.mat", {"query_IDX": np.array([[1.0, 3.0]])})
    whole = mars.load(tmp_path)

    def read() -> Dataset:
        shutil.rmtree(tmp_path / FOLDER, ignore_errors=True)
        return mars.load(tmp_path)

    listed = tmp_path / "info/test_name.txt"
    assert survives(listed, listed.read_bytes(), read, anything) > 10
    listed.write_text("\n".join(names))
    mars.load(tmp_path)
    (kept,) = (tmp_path / FOLDER).glob("*.npz")

    def is_right(found: object) -> bool:
        # A kept index has the checksums of a ZIP file: what passes them is what was written.
        return found == whole

    data = kept.read_bytes()
    survives(kept, data, lambda: mars.load(tmp_path), is_right)


def test_json_trees_and_splits(tmp_path: Path) -> None:
    path = tmp_path / "frame.json"
    text = json.dumps({"keypoints": np.arange(51.0).reshape(17, 3).tolist()}).encode()

    def read() -> tuple[np.ndarray, list[str | None]]:
        return read_points([str(path)])

    def is_right(found: tuple[np.ndarray, list[str | None]]) -> bool:
        points, (problem,) = found
        return bool(np.isnan(points).all() if problem else np.isfinite(points).all())

    survives(path, text, read, is_right)
    survives(path, text, read, is_right, damaged_json(json.loads(text)))
    for camera in ("cam_a", "cam_b"):
        for person in ("person_0001", "person_0002"):
            place = tmp_path / "prid_2011/multi_shot" / camera / person
            place.mkdir(parents=True)
            for frame in range(22):
                (place / f"{frame:04d}.png").touch()
    splits = tmp_path / prid2011.SPLITS

    def load() -> Dataset:
        shutil.rmtree(tmp_path / FOLDER, ignore_errors=True)
        return prid2011.load(tmp_path)

    tree = [{"train": ["person_0001"], "test": ["person_0002"]}]
    divisions = json.dumps(tree).encode()
    assert survives(splits, divisions, load, anything) > 10
    assert survives(splits, divisions, load, anything, damaged_json(tree)) > 10


def test_skeletons_of_depth_sensors(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    walk = "\n".join(f"{joint};{x:.3f};{y:.3f};{z:.3f}" for _ in range(3) for joint, (x, y, z) in zip(
        kgbd.FILE_ORDER, rng.normal(size=(20, 3)), strict=True))  # fmt: skip
    for number in range(1, 5):
        place = tmp_path / "kgbd/Person001"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.txt").write_text(walk)
    survives(tmp_path / "kgbd/Person001/1.txt", walk.encode(), lambda: kgbd.load(tmp_path / "kgbd", 0), finite)

    archive = io.BytesIO()
    np.savez(archive, **{f"Person001_{n}": rng.normal(size=(4, 20, 3)).astype(np.float32) for n in range(4)})
    survives(tmp_path / "kgbd.npz", archive.getvalue(), lambda: kgbd.load(tmp_path / "kgbd.npz", 0), finite)
    sequence = [FrameSequence("Person001_0", ("0", "1", "2", "3"))]
    survives(
        tmp_path / "kinect.npz", archive.getvalue(),
        lambda: import_kinect(tmp_path / "kinect.npz", sequence, tmp_path / "out.h5"), anything,
    )  # fmt: skip

    lines = "\n".join(f"{n},{x:.3f},{y:.3f},{z:.3f},1,1,2,0" for n, (x, y, z) in enumerate(rng.normal(size=(20, 3))))
    for part in ("Training", "Testing/Still", "Testing/Walking"):
        (tmp_path / "biwi" / part / "001").mkdir(parents=True)
        (tmp_path / "biwi" / part / "001/1skel.txt").write_text(lines)
    path = tmp_path / "biwi/Training/001/1skel.txt"
    survives(path, lines.encode(), lambda: kinect_frames.load_biwi(tmp_path / "biwi"), finite)

    for place, prefix in (
        ("train_npy_data", "source"),
        ("test_npy_data/probe", "t_source"),
        ("test_npy_data/gallery", "t_source"),
    ):
        where = tmp_path / "transg" / place
        where.mkdir(parents=True)
        for axis in "xyz":
            np.save(where / f"{prefix}_{axis}_X_6.npy", rng.normal(size=(12, 20)))
        np.save(where / "frame_id_X_6.npy", np.array([1, 2]))
    for name in ("source_x_X_6.npy", "frame_id_X_6.npy"):
        path = tmp_path / "transg/train_npy_data" / name
        data = path.read_bytes()
        survives(path, data, lambda: transg.load(tmp_path / "transg"), finite)
        path.write_bytes(data)


def finite(dataset: object) -> bool:
    sequences = (*dataset.train, *dataset.probe, *dataset.gallery)  # type: ignore[attr-defined]
    return all(np.isfinite(sequence.joints).all() for sequence in sequences)


PICTURES = {
    "jpeg": ("RGB", "L", "CMYK", "turned", "progressive", "restarts"),
    "png": ("RGB", "L", "1", "P", "P with alpha", "LA", "RGBA", "I;16", "turned"),
    "webp": ("RGB", "RGBA", "lossless", "turned", "animated"),
    "tiff": ("RGB", "L", "1", "P", "CMYK", "RGBA", "I;16", "F", "turned", "tiff_lzw", "tiff_deflate", "jpeg", "pages"),
    "bmp": ("RGB", "L", "1", "P", "RGBA"),
    "avif": ("RGB", "RGBA", "turned"),
    "ppm": ("RGB", "L", "1", "I;16"),
    "gif": ("P",),
}


def encoded(kind: str, mode: str) -> bytes:
    """Return a picture of a person's size, in a format and a mode."""
    colours = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    picture = Image.fromarray(cv2.resize(colours, (32, 64)))
    options: dict[str, object] = {
        "progressive": {"progressive": True}, "restarts": {"restart_marker_blocks": 2}, "lossless": {"lossless": True},
        "tiff_lzw": {"compression": mode}, "tiff_deflate": {"compression": mode}, "jpeg": {"compression": mode},
        "animated": {"save_all": True, "append_images": [picture]}, "pages": {"save_all": True, "append_images": [picture]},
    }.get(mode, {})  # fmt: skip
    if mode == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {"exif": exif}
    elif mode == "I;16":
        picture = Image.fromarray(np.asarray(picture.convert("L")).astype(np.uint16) * 16)
    elif mode == "P with alpha":
        picture, options = picture.convert("P"), {"transparency": 3}
    elif mode in ("1", "L", "P", "CMYK", "LA", "RGBA", "F"):
        picture = picture.convert(mode)
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return stream.getvalue()


@pytest.mark.parametrize(("kind", "mode"), [(kind, mode) for kind, modes in PICTURES.items() for mode in modes])
def test_pictures(tmp_path: Path, kind: str, mode: str) -> None:
    data = encoded(kind, mode)

    def is_right(found: object) -> bool:
        image, source = found  # type: ignore[misc]
        return (image is not None and image.dtype == np.uint8 and image.ndim == 3) or not source.kind.usable

    path = tmp_path / f"frame.{kind}"
    survives(path, data, lambda: load_frame(path), is_right)


def test_states_of_training(tmp_path: Path) -> None:
    settings = Settings(dataset=DatasetSettings(name="x", root=tmp_path))
    run = RunFolder(tmp_path / "run", settings, {"tracklets": "0123"})
    run.path.mkdir()
    write_json(run.path / "inputs.json", run.inputs)
    run.save_state({"model": {"weight": torch.arange(12.0)}, "progress": {"epoch": 1, "terms": [{"loss": 1.0}]}})
    fabric = make_fabric(settings.runtime.model_copy(update={"device": "cpu"}))

    def resume() -> object:
        return run.open(overwrite=False, fabric=fabric)

    for name in ("state.pt", "inputs.json"):
        whole = (run.path / name).read_bytes()
        assert survives(run.path / name, whole, resume, anything) > 10
        if name.endswith(".json"):
            survives(run.path / name, whole, resume, anything, damaged_json(json.loads(whole)))
        (run.path / name).write_bytes(whole)


def test_features_and_shards_of_arrays(tmp_path: Path) -> None:
    whole = np.random.default_rng(0).normal(size=(6, 8)).astype(np.float32)
    path = tmp_path / "features.h5"
    frame_features._write(path, [whole[:4], whole[4:]], 6, "key")
    survives(path, path.read_bytes(), lambda: frame_features._read(path, "key"), anything)
    shard = tmp_path / "shard.npy"
    part = Part(shard, None, 6)
    part.write(whole)

    def fits(found: object) -> bool:
        return found is None or len(found) == 6  # type: ignore[arg-type]

    survives(shard, shard.read_bytes(), part.read, fits)


TRACKS = [(n // 2 + 1, n % 2 + 1, 10 + 60 * (n % 2) + n // 2, 20) for n in range(20)]  # frame, track, left, top
BOXES = {
    "gt.txt": "\n".join(f"{n // 2 + 1},{n % 2 + 1},{10 + n},20,30,60,1,1,0.9" for n in range(20)),
    "det.txt": "\n".join(f"{n // 2 + 1},-1,{10 + n}.5,20,30,60,0.{n}5,-1,-1,-1" for n in range(20)),
    "tracks.csv": "frame;track_id;x1;y1;x2;y2;class\n" + "\n".join(f"{n};{n % 2};{n};5;{n + 40};90;person" for n in range(20)),
    "tracker.txt": "\n".join(f"{f} {t} {x} {y} 30 60 0.{x} {t - 1} 1" for f, t, x, y in TRACKS),
    "visdrone.txt": "\n".join(f"{f},{t},{x},{y},30,60,1,{t},0,{t % 2}" for f, t, x, y in TRACKS),
    "corners.txt": "\n".join(f"{f},{t},{x},{y},{x + 30},90" for f, t, x, y in TRACKS),
    "shares.txt": "\n".join(f"{f},{t},{x / 200},{y / 100},{x / 200 + 0.1},{y / 100 + 0.5},1" for f, t, x, y in TRACKS),
    "yolo.txt": "\n".join(f"{f} 0 {x / 200 + 0.1} 0.5 0.1 0.2 0.9 {t}" for f, t, x, y in TRACKS),
    "comma.csv": "frame;id;left;top;width;height\n" + "\n".join(f"{f};{t};{x},5;{y},25;30,5;60" for f, t, x, y in TRACKS),
    "utf16.csv": "\ufeffframe,id,cx,cy,w,h,class\n" + "\n".join(f"{f},{t},{x + 20},50,30,60,person" for f, t, x, y in TRACKS),
    "video.json": json.dumps({
        "images": [{"id": n, "file_name": f"video/{n:06d}.jpg", "frame_id": n, "width": 200, "height": 100} for n in range(1, 6)],
        "annotations": [
            {"id": n, "image_id": n, "bbox": [10, 20, 30, 60], "category_id": 1, "track_id": 1} for n in range(1, 6)
        ],
        "categories": [{"id": 1, "name": "person"}],
    }),
}  # fmt: skip


@pytest.mark.parametrize("name", BOXES)
def test_boxes(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    shown = Shown(Geometry((200, 100)), last=20, name="video")

    def is_right(found: object) -> bool:
        assert isinstance(found, GivenBoxes)
        columns = found.frames, found.tracks, found.boxes, found.scores
        return len({len(column) for column in columns}) == 1 and bool(np.isfinite(found.boxes).all())

    whole = BOXES[name].encode("utf-16-le" if name.startswith("utf16") else "utf-8")
    inputs = itertools.chain(damaged(whole), damaged_json(json.loads(whole)) if path.suffix == ".json" else ())
    assert survives(path, whole, lambda: read_boxes(path, None, shown), is_right, inputs) > 5


def test_boxes_of_cvat(tmp_path: Path) -> None:
    texts = {
        "gt.txt": "\n".join(f"{f},{t},{x},{y},30,60,1,{t},1.0" for f, t, x, y in TRACKS),
        "labels.txt": "car\nperson\n",
    }
    shown = Shown(Geometry((200, 100)), last=10, name="video")
    for name, text in texts.items():
        for other, content in texts.items():
            (tmp_path / other).write_text(content)
        assert survives(
            tmp_path / name, text.encode(), lambda: read_boxes(tmp_path / "gt.txt", None, shown), anything
        )  # fmt: skip


def test_yolo_files_of_boxes(tmp_path: Path) -> None:
    for frame in range(1, 6):
        (tmp_path / f"video_{frame}.txt").write_text("0 0.5 0.5 0.1 0.2\n0 0.2 0.5 0.1 0.2\n")
    (tmp_path / "classes.txt").write_text("person\ncar\n")
    shown = Shown(Geometry((200, 100)), last=5, name="video")
    for name in ("video_3.txt", "classes.txt"):
        whole = (tmp_path / name).read_bytes()
        assert survives(tmp_path / name, whole, lambda: read_boxes(tmp_path, None, shown), anything) > 10
        (tmp_path / name).write_bytes(whole)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "avi"])
def test_videos(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"video.{ending}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 48, 64, "yuv420p"
        for number in range(6):
            image = np.full((64, 48, 3), 20 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))

    def read() -> list[tuple[int, ...]]:
        return [frame.image.shape for frame in itertools.islice(VideoReader(path), 200)]

    def is_right(found: object) -> bool:
        assert isinstance(found, list)
        return 0 < len(found) < 200 and all(shape[2] == 3 for shape in found)

    assert survives(path, path.read_bytes(), read, is_right) > 0


def test_states_of_an_ingest(tmp_path: Path) -> None:
    video = VideoFile(tmp_path / "a.mp4", "a.mp4", "a", "a")
    video.path.write_bytes(b"not looked into")
    state = IngestState(tmp_path / "out")
    state.begin({"format": 1}, force=False)
    summary = VideoSummary(**{field.name: 0 for field in dataclasses.fields(VideoSummary)})
    (state.start(video) / "tracklets.csv").write_text("tracklet\n")
    (tmp_path / "out/crops").mkdir(exist_ok=True)
    state.keep(video, {"bytes": 1}, summary)
    record = state._record(video)

    def go_on() -> object:
        state.options(share=True)
        return state.finished(video, {"bytes": 1})

    for path in (record, tmp_path / "out/.ingest/options.json"):
        whole = path.read_bytes()
        survives(path, whole, go_on, anything)
        survives(path, whole, go_on, anything, damaged_json(json.loads(whole)))
        path.write_bytes(whole)
