"""The names that `csip` and `pose_cache` import on first use have their types for a type checker; `make lint` checks this file.

Nothing here runs. `assert_type` fails where a name is `Any`, as an attribute of `__getattr__` would be.
"""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

import numpy as np
import numpy.typing as npt

import csip
import pose_cache


def loaded(folder: Path) -> csip.Model:
    model = csip.load(folder, "cpu", evaluation=csip.EvaluationSettings(sampling="rrs"))
    assert_type(model, csip.Model)
    assert_type(model.to("cpu"), csip.Model)
    return model


def described(model: csip.Model, frames: list[npt.NDArray[np.uint8]]) -> None:
    dataset = csip.load_dataset("mars", overrides=["dataset.split=0"])
    assert_type(dataset, csip.Dataset)
    assert_type(dataset.gallery, tuple[csip.Tracklet, ...])
    gallery = model.embed(dataset.gallery)
    assert_type(gallery, csip.Descriptors)
    evaluation = csip.evaluate(model, dataset, csip.Silent())
    assert_type(evaluation, csip.Evaluation)
    assert_type(csip.search(model.embed(frames), gallery, top=10), list[csip.SearchResult])
    assert_type(csip.cluster(gallery), csip.Proposal)
    assert_type(csip.read_descriptors("descriptors.h5"), csip.Descriptors)


def trained(dataset: csip.Dataset, cache: Path, run: Path, monitor: csip.Monitor) -> None:
    settings = csip.load_settings("mars", overrides=["stage1.epochs=1"])
    assert_type(settings, csip.Settings)
    first = csip.train_stage1(dataset, cache, settings, run / "stage1", monitor)
    assert_type(first, csip.Stage1Result)
    second = csip.train_stage2(dataset, cache, run / "stage1", settings, run / "stage2", monitor)
    assert_type(second, csip.Stage2Result)
    assert_type(second.chosen_epoch, int)
    assert_type(csip.__version__, str)


def posed(frames: list[str]) -> None:
    poses = pose_cache.PoseEstimator.load("human3d").estimate(frames)
    assert_type(poses, pose_cache.Poses)
    store = pose_cache.open("skeletons.h5")
    assert_type(store, pose_cache.SkeletonStore)
    assert_type(store["train/0001C1T0001"], pose_cache.TrackletSkeletons)
