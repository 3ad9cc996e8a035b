"""The doctor on a skeleton cache that was right once."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from csip.config import Settings
from csip.data import folder, frame_check, health
from csip.data.health import Finding, Remedy
from csip.data.readers import load_dataset
from csip.data.skeletons import load_skeletons
from csip.errors import CsipError
from csip.monitor import Silent
from pose_cache.errors import PoseCacheError
from pose_cache.images import load_frame
from pose_cache.pieces import Share, Spread
from pose_cache.sources import SOURCE
from pose_cache.store import Provenance, TrackletSkeletons, write_store


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for person in ("ann", "bob"):
        for camera in ("c1", "c2"):
            (tmp_path / person / camera).mkdir(parents=True)
            for n in range(4):
                picture = rng.integers(0, 256, (32, 16, 3), dtype=np.uint8)
                cv2.imwrite(str(tmp_path / person / camera / f"{n}.jpg"), picture)
    tracklets = []
    for t in folder.load(tmp_path).train:
        sources = np.array([tuple(load_frame(tmp_path / frame)[1]) for frame in t.frames], SOURCE)
        body, flat = rng.normal(size=(4, 17, 3)).astype(np.float32), np.zeros((4, 17, 3), np.float32)
        tracklets.append(TrackletSkeletons(t.name, t.frames, body, flat, np.ones(4, bool), sources))
    write_store(tmp_path / "skeletons.h5", tracklets, Provenance("noise", "h36m17", "m"))
    return tmp_path


def checked(root: Path) -> dict[str, Finding]:
    settings = Settings.model_validate({"dataset": {"name": "own", "layout": "folder", "root": root}})
    return {f.what: f for f in health.inspect(settings, root / "skeletons.h5", None, Silent())}


def test_a_cache_of_these_pictures_is_well(root: Path) -> None:
    found = checked(root)["skeletons"]
    assert "8 of 8 frames" in found.text and not found.fix


def test_pictures_that_changed_since_are_named(root: Path) -> None:
    t = folder.load(root).train[1]
    cv2.imwrite(str(root / t.frames[2]), np.zeros((32, 16, 3), np.uint8))
    found = checked(root)["skeletons"]
    assert f"pictures of 1 tracklets have changed since, e.g. of {t.name}" in found.text
    assert found.fix and found.remedy is Remedy.EXTRACT


def test_damaged_and_endless_joints_are_named_and_do_not_train(root: Path) -> None:
    train = folder.load(root).train
    with h5py.File(root / "skeletons.h5", "r+") as file:
        file["joints"][5, 3, 1] = np.nan
    found = checked(root)["skeletons"]
    assert f"1 tracklets are damaged, e.g. {train[1].name}" in found.text and found.fix
    with pytest.raises(CsipError, match=rf"tracklet {train[1].name} has joints that are not finite"):
        load_skeletons(root / "skeletons.h5", train)
    with h5py.File(root / "skeletons.h5", "r+") as file:
        file["joints"][5, 3, 1] = 0.25
    assert "1 tracklets are damaged" in checked(root)["skeletons"].text


def test_damaged_pictures_are_counted(root: Path) -> None:
    frame = root / folder.load(root).train[0].frames[0]
    data = frame.read_bytes()
    frame.write_bytes(data[:-200] + b"\xff\xd9")
    found = checked(root)["frames readable"]
    assert "1 damaged" in found.text and frame.name in found.text and found.fix


def test_frames_decoded_by_workers_and_in_shares_are_found_alike(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_check, "CHUNK", 20)
    root = shutil.copytree(settings.dataset.path, tmp_path / "data")
    settings = settings.model_copy(update={"dataset": settings.dataset.model_copy(update={"root": root})})
    frame = root / load_dataset(settings.dataset).train[0].frames[0]
    frame.write_bytes(frame.read_bytes()[:300])

    def inspect(spread: Spread | None = None) -> list[Finding]:
        return health.inspect(settings, root / "skeletons.h5", None, Silent(), spread)

    expected = inspect()
    assert [finding.what for finding in expected if finding.fix] == ["frames readable"]
    with pytest.raises(PoseCacheError, match=r"of \d+ frames are not done; run the rest without shares"):
        inspect(Spread(merge=True))
    shares = [health.decode_share(settings, None, Silent(), Spread(share=Share(job, 2))) for job in (1, 2)]
    assert [len(share.bad) for share in shares].count(1) == 1
    assert inspect(Spread(merge=True)) == expected == inspect(Spread(2, "threading"))
    assert not (root / ".csip-index/frames.shards").exists()

    health.decode_share(settings, None, Silent(), Spread(share=Share(1, 1)))
    shutil.copy2(root / load_dataset(settings.dataset).train[0].frames[1], frame)
    assert not any(finding.fix for finding in inspect(Spread(2, "threading"))), (
        "a frame that was mended is decoded again"
    )
