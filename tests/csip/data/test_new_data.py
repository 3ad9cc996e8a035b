"""Another number of people, another camera, another joint set: data alone, no code."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from monitors import Heard

import csip
from csip.config import Settings
from csip.data.dataset import Dataset, Tracklet
from csip.models.checkpoints import load_model
from csip.monitor import Silent
from csip.retrieval.embedding import Embedder
from csip.training.stage1 import train_stage1
from csip.training.stage2 import train_stage2
from pose_cache.joints import joint_set
from pose_cache.store import Provenance, TrackletSkeletons, write_store

FRAMES = 4


def make(root: Path, people: list[int], cameras: list[int], joints: str) -> Dataset:
    """Noise for pictures and bodies; the last two people are the test's."""
    rng = np.random.default_rng(0)
    size = len(joint_set(joints).joints)
    tracklets, skeletons = [], []
    for pid in people:
        for camera in cameras:
            name = f"{pid}/{camera}"
            frames = tuple(f"{name}/{i}.png" for i in range(FRAMES))
            (root / name).mkdir(parents=True)
            for frame in frames:
                cv2.imwrite(str(root / frame), rng.integers(0, 255, (32, 16, 3), dtype=np.uint8))
            tracklets.append(Tracklet(name, pid, camera, frames))
            body = rng.normal(size=(FRAMES, size, 3)).astype(np.float32)
            flat = np.zeros((FRAMES, 17, 3), np.float32)
            skeletons.append(TrackletSkeletons(name, frames, body, flat, np.ones(FRAMES, bool)))
    write_store(root / "skeletons.h5", skeletons, Provenance("noise", joints, "metres"))
    train = tuple(t for t in tracklets if t.pid in people[:-2])
    test = tuple(t for t in tracklets if t.pid in people[-2:])
    return Dataset("noise", root, train, test, test)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    path = tmp_path_factory.mktemp("tower") / "tower.json"
    vision = {"image_size": [32, 16], "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}
    text = {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}
    path.write_text(json.dumps({"embed_dim": 16, "vision_cfg": vision, "text_cfg": text}))
    return Settings.model_validate({
        "dataset": {"name": "noise"},
        "clips": {"frames": 2, "height": 32, "width": 16, "pad": 2},
        "vision": {"model": str(path), "pretrained": None},
        "skeleton_encoder": {"depth": 2, "heads": 2},
        "stage1": {"epochs": 1, "batch": 8},
        "stage2": {"epochs": 1, "ids_per_batch": 2, "tracklets_per_id": 2},
        "runtime": {"device": "cpu", "precision": "32-true", "workers": 0},
    })  # fmt: skip


@given(
    people=st.lists(st.integers(1, 9999), min_size=5, max_size=7, unique=True).map(sorted),
    cameras=st.lists(st.integers(0, 99), min_size=2, max_size=3, unique=True).map(sorted),
    joints=st.sampled_from(["h36m17", "kinect20", "kinect25"]),
)
@pytest.mark.slow
@example(people=[1, 2, 3, 8, 9], cameras=[1, 2], joints="h36m17")
@example(people=[1, 2, 3, 4, 8, 9], cameras=[1, 2], joints="h36m17")
@example(people=[1, 2, 3, 8, 9], cameras=[0, 2, 7], joints="kinect20")
@examples(max_examples=3, deadline=None, derandomize=True)
def test_people_cameras_and_joint_sets_are_data(
    tiny: Settings, people: list[int], cameras: list[int], joints: str
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        dataset = make(root, people, cameras, joints)
        train_stage1(dataset, root / "skeletons.h5", tiny, root / "stage1", Silent())
        figures = train_stage2(dataset, root / "skeletons.h5", root / "stage1", tiny, root / "stage2", Silent())
        assert np.isfinite(figures.terms["csip"])

        tensors, description = load_model(root / "stage2/model.safetensors", "stage2")
        assert description["joint_set"] == joints and description["identities"] == len(people) - 2
        assert tensors["pfu.visual"].shape[0] == len(people) - 2
        assert tensors["vision.camera_embedding"].shape[0] == len(cameras)
        assert tensors["skeleton.encoding"].shape[0] == len(joint_set(joints).joints)

        # At the test a camera that training never saw: said once, and embedded as if there were no camera embedding.
        loaded = csip.load(root / "stage2", "cpu", evaluation=tiny.evaluation)
        model: Any = loaded.network
        assert loaded.camera_rows == {camera: row for row, camera in enumerate(cameras)}
        with torch.no_grad():
            assert model.vision.camera_embedding is not None
            model.vision.camera_embedding.normal_()
        strangers = [Tracklet(t.name, t.pid, 100, t.frames) for t in dataset.query]
        heard = Heard()
        embedder = Embedder(model, tiny, loaded.camera_rows, torch.device("cpu"))
        unknown = embedder.tracklets(root, strangers, heard)
        assert [text for text in heard.said if "100" in text] == heard.said and len(heard.said) == 1
        with torch.no_grad():
            model.vision.camera_embedding.zero_()
        without = embedder.tracklets(root, dataset.query, Silent())
        np.testing.assert_allclose(unknown, without, rtol=1e-5, atol=1e-6)
