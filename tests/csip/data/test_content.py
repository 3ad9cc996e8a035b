"""Pictures under the same names are other pictures once their bytes differ."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from csip.config import DatasetSettings
from csip.data import content, folder
from csip.data.content import content_of, contents_of
from csip.data.dataset import Tracklet
from csip.data.index import FOLDER
from csip.errors import CsipError
from csip.retrieval.descriptors import Descriptors, check_pictures, read_descriptors
from pipelines.advice import advice


@pytest.fixture
def tracklets(tmp_path: Path) -> list[Tracklet]:
    made = []
    for name in "ab":
        frames = tuple(f"{name}/{i}.jpg" for i in range(3))
        (tmp_path / name).mkdir()
        for frame in frames:
            (tmp_path / frame).write_bytes(frame.encode() * 10)
            age(tmp_path / frame, 100)
        made.append(Tracklet(name, 1, 1, frames))
    return made


def age(path: Path, seconds: float) -> None:
    past = path.stat().st_mtime - seconds
    os.utime(path, (past, past))


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read."""
    seen: list[str] = []
    real = content.read_source
    monkeypatch.setattr(content, "read_source", lambda path: seen.append(Path(path).name) or real(path))
    return seen


def test_bytes_count_and_times_do_not(tmp_path: Path, tracklets: list[Tracklet]) -> None:
    first = content_of(tmp_path, tracklets)
    assert content_of(tmp_path, tracklets) == first != content_of(tmp_path, tracklets[::-1])
    frame = tmp_path / "a/1.jpg"
    same = frame.read_bytes()
    frame.write_bytes(same)
    assert content_of(tmp_path, tracklets) == first
    changed = bytes([same[0] ^ 1]) + same[1:]
    frame.write_bytes(changed)
    assert content_of(tmp_path, tracklets) != first, "of the same size, changed just now"
    frame.unlink()
    gone = content_of(tmp_path, tracklets)
    assert gone != first
    frame.write_bytes(same)
    assert content_of(tmp_path, tracklets) == first


def test_only_what_may_have_changed_is_read_again(tmp_path: Path, tracklets: list[Tracklet], reads: list[str]) -> None:
    content_of(tmp_path, tracklets)
    assert len(reads) == 6
    reads.clear()
    content_of(tmp_path, tracklets)
    content_of(tmp_path, tracklets[:1])
    assert reads == []
    (tmp_path / "b/2.jpg").write_bytes(b"new")
    content_of(tmp_path, tracklets)
    assert reads == ["2.jpg"]
    # Changed within the clocks' grain: it may have changed again since.
    reads.clear()
    content_of(tmp_path, tracklets)
    assert reads == ["2.jpg"]
    age(tmp_path / "b/2.jpg", 50)
    content_of(tmp_path, tracklets)
    reads.clear()
    content_of(tmp_path, tracklets)
    assert reads == []


def test_what_is_kept_can_be_damaged_deleted_or_refused(tmp_path: Path, tracklets: list[Tracklet]) -> None:
    first = content_of(tmp_path, tracklets)
    kept = tmp_path / FOLDER / content.KEPT
    for damage in (lambda: kept.write_bytes(kept.read_bytes()[:40]), kept.unlink, lambda: kept.write_bytes(b"")):
        damage()
        assert content_of(tmp_path, tracklets) == first
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_text("in the way")
    assert content_of(tmp_path, tracklets) == first


def test_data_sets_that_share_files_keep_what_each_has_read(
    tmp_path: Path, tracklets: list[Tracklet], reads: list[str]
) -> None:
    content_of(tmp_path, tracklets[:1])
    content_of(tmp_path, tracklets[1:])
    reads.clear()
    content_of(tmp_path, tracklets)
    assert reads == []


def test_each_tracklet_has_a_digest_of_its_own(tmp_path: Path, tracklets: list[Tracklet]) -> None:
    first = contents_of(tmp_path, tracklets)
    assert first.shape == (2,) and first[0] != first[1] and len(contents_of(tmp_path, [])) == 0
    (tmp_path / "b/0.jpg").write_bytes(b"other")
    assert (contents_of(tmp_path, tracklets) == first).tolist() == [True, False]
    assert (contents_of(tmp_path, tracklets[::-1]) == first[::-1]).tolist() == [False, True]


def test_a_data_set_that_is_gone_is_not_begun_anew(tmp_path: Path, tracklets: list[Tracklet]) -> None:
    content_of(tmp_path / "gone", tracklets)
    assert not (tmp_path / "gone").exists()


def test_descriptors_of_pictures_that_changed_are_refused(tmp_path: Path) -> None:
    root = tmp_path / "own"
    for person in ("ann", "bob", "eve"):
        for camera in ("c1", "c2"):
            (root / person / camera).mkdir(parents=True)
            (root / person / camera / "0.jpg").write_bytes(f"{person}{camera}".encode())
    settings = DatasetSettings(name="own", layout="folder", root=root)
    dataset = folder.load(root, name="own")
    path = tmp_path / "descriptors.h5"
    features = np.eye(len(dataset.query), dtype=np.float32)
    Descriptors.of(dataset, dataset.query, features, "model").save(path)
    found = read_descriptors(path)
    assert found.take([1, 0]).pictures.tolist() == found.pictures[[1, 0]].tolist()
    check_pictures(path, found, settings)
    for file in root.rglob("*.jpg"):
        file.touch()
    check_pictures(path, found, settings)
    changed = dataset.query[1]
    (root / changed.frames[0]).write_bytes(b"another picture")
    with pytest.raises(CsipError, match=rf"1 of 2 tracklets have changed .* {changed.name}") as refused:
        check_pictures(path, found, settings)
    assert advice(refused.value.parameter) == "; rerun `csip embed`"
    check_pictures(path, found, settings.model_copy(update={"root": tmp_path / "moved away"}))
    (root / "ann/c1/0.jpg").unlink()
    check_pictures(path, found, settings)
