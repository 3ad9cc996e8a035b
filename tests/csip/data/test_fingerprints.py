"""What training and evaluation are functions of, by content: another picture, decoder or skeleton is other data."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from csip.config import DatasetSettings, Settings
from csip.data import folder
from csip.data.content import content_of
from csip.data.fingerprints import TrainingData, check_skeletons, evaluation_data
from csip.errors import CsipError
from pipelines import fingerprint_data
from pose_cache import images
from pose_cache.sources import SOURCE
from pose_cache.store import Provenance, SkeletonStore, TrackletSkeletons, write_store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two people who train and two who are tested, each at two cameras, and their skeletons."""
    root = tmp_path / "people"
    for number, person in enumerate(("train/ann", "train/bob", "test/eve", "test/joe")):
        for camera in ("left", "right"):
            place = root / person / camera
            place.mkdir(parents=True)
            for frame in range(2):
                cv2.imwrite(str(place / f"{frame}.png"), np.full((8, 4, 3), 10 * number + frame, np.uint8))
    skeletons = [extracted(root, t.name, t.frames) for t in folder.load(root).train]
    write_store(root / "skeletons.h5", skeletons, Provenance("noise", "h36m17", "m"))
    return root


def extracted(root: Path, name: str, frames: tuple[str, ...], scale: float = 1.0) -> TrackletSkeletons:
    joints = scale * np.random.default_rng(len(name)).normal(size=(len(frames), 17, 3)).astype(np.float32)
    read = [images.load_frame(root / frame)[1] for frame in frames]
    sources = np.array([tuple(source) for source in read], SOURCE)
    return TrackletSkeletons(
        name, frames, joints, np.zeros((len(frames), 17, 3), np.float32), np.ones(len(frames), bool), sources
    )


def replace_unseen(path: Path) -> None:
    """Put another picture of the same size in place, with the time of the one before: a copy that keeps times."""
    before = path.stat()
    data = bytearray(path.read_bytes())
    data[-20] ^= 1
    path.write_bytes(data)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def test_a_copy_that_keeps_size_and_time_is_another_picture(root: Path) -> None:
    train = folder.load(root).train
    frame = root / train[0].frames[0]
    os.utime(frame, (frame.stat().st_mtime - 1000,) * 2)
    first = content_of(root, train)
    replace_unseen(frame)
    assert content_of(root, train) != first
    with pytest.raises(
        CsipError, match=rf"pictures of 1 of 4 training tracklets have changed .* e\.g\. of {train[0].name}"
    ):
        check_skeletons(root / "skeletons.h5", train, root)


def test_another_decoder_makes_other_pictures(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = folder.load(root)
    before = TrainingData.of(dataset, root / "skeletons.h5"), evaluation_data(dataset)
    monkeypatch.setattr(images, "DECODING", images.DECODING + 1)
    now = TrainingData.of(dataset, root / "skeletons.h5")
    assert now.changes(before[0].as_dict()) == "their pictures"
    assert evaluation_data(dataset)["pictures"] != before[1]["pictures"]


def test_pictures_are_decoded_as_the_version_says(tmp_path: Path) -> None:
    """Where this fails, pixels are others than before: raise `pose_cache.images.DECODING`, and then change the sums here."""
    from PIL import Image

    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (9, 6, 4), dtype=np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    palette = Image.fromarray(colours[..., 0] % 4, "P")
    palette.putpalette([0, 10, 20, 90, 80, 70, 150, 160, 170, 250, 240, 230])
    saved = {
        "colour.png": (Image.fromarray(colours[..., :3]), {}),
        "alpha.png": (Image.fromarray(colours, "RGBA"), {}),
        "turned.png": (Image.fromarray(colours[..., :3]), {"exif": turned}),
        "grey.bmp": (Image.fromarray(colours[..., 0]), {}),
        "deep.png": (Image.fromarray(colours[..., 0].astype(np.uint16) * 16), {}),
        "palette.png": (palette, {}),
    }
    sums = {}
    for name, (picture, options) in saved.items():
        picture.save(tmp_path / name, **options)
        image, _ = images.load_frame(tmp_path / name)
        assert image is not None
        sums[name] = (
            image.shape,
            int(image.astype(np.int64).sum()),
            int((image.ravel() * np.arange(image.size)).sum()),
        )
    assert (images.DECODING, sums) == (1, {
        "colour.png": ((9, 6, 3), 21361, 1697128),
        "alpha.png": ((9, 6, 3), 21203, 1690849),
        "turned.png": ((6, 9, 3), 21361, 1675540),
        "grey.bmp": ((9, 6, 3), 18870, 1446720),
        "deep.png": ((9, 6, 3), 18813, 1442451),
        "palette.png": ((9, 6, 3), 19140, 1453220),
    })  # fmt: skip


def test_what_differs_is_named_and_what_does_not_matter_is_not(root: Path, tmp_path: Path) -> None:
    dataset, cache = folder.load(root), root / "skeletons.h5"
    before = TrainingData.of(dataset, cache).as_dict()
    assert TrainingData.of(dataset, cache).changes(before) == ""
    assert TrainingData("", "", "").changes({"tracklets": "of an earlier version"}) == ""
    with SkeletonStore(cache) as store:
        kept = [store.read(name) for name in store.names]
    more = tmp_path / "more.h5"
    write_store(more, [extracted(root, t.name, t.frames) for t in dataset.query] + kept, store.provenance)
    assert TrainingData.of(dataset, more).changes(before) == "", "skeletons of others are added, in front"
    write_store(more, [replace(kept[0], joints=kept[0].joints * 2), *kept[1:]], store.provenance)
    assert TrainingData.of(dataset, more).changes(before) == "their skeletons"
    write_store(more, kept[1:], store.provenance)
    assert TrainingData.of(dataset, more).changes(before) == "their skeletons"
    other = replace(dataset, train=[replace(dataset.train[0], pid=99), *dataset.train[1:]])
    assert TrainingData.of(other, cache).changes(before) == "the training tracklets"


def test_who_is_asked_and_who_is_found_counts(root: Path) -> None:
    dataset = folder.load(root)
    whole = evaluation_data(dataset)
    fewer = replace(dataset, query=dataset.query[1:])
    assert evaluation_data(fewer)["tracklets"] != whole["tracklets"]
    assert evaluation_data(fewer)["pictures"] == whole["pictures"], "all of them are in the gallery"
    (root / dataset.query[0].frames[0]).write_bytes(b"another")
    assert evaluation_data(dataset)["pictures"] != whole["pictures"]


def test_make_hears_of_the_part_that_changed_alone(root: Path, tmp_path: Path) -> None:
    settings = Settings(dataset=DatasetSettings(name="people", layout="folder", root=root))
    run = tmp_path / "run"
    files = [run / fingerprint_data.TRAIN, run / fingerprint_data.TEST]

    def times() -> list[int]:
        fingerprint_data.run(settings, run)
        return [file.stat().st_mtime_ns for file in files]

    first = times()
    assert all(time < 10**10 for time in first), "older than all that was made before"
    for frame in root.rglob("*.png"):
        frame.touch()
    assert times() == first
    replace_unseen(root / folder.load(root).train[0].frames[0])
    train, test = times()
    assert train > first[0] and test == first[1]
    replace_unseen(root / folder.load(root).gallery[0].frames[0])
    assert times()[0] == train and times()[1] > test
