from pathlib import Path

import numpy as np
import pytest

from pose_cache.errors import PoseCacheError
from pose_cache.store import Provenance, SkeletonStore, TrackletSkeletons, write_store
from pose_cache.summary import summarize_store


def test_the_summary_counts_what_is_in_the_cache(tmp_path: Path):
    # The gap at the end of "a" and the one at the start of "b" touch in the file, but lie between no two valid frames.
    pattern = {"a": "1011100011000", "b": "0110", "c": "00", "d": "1"}
    made = []
    for name, text in pattern.items():
        valid = np.array([letter == "1" for letter in text])
        frames = tuple(f"{name}/{i}.jpg" for i in range(len(text)))
        made.append(TrackletSkeletons(name, frames, np.ones((len(text), 17, 3)), np.zeros((len(text), 17, 3)), valid))
    details = {"digest": "abc", "software": {"torch": "2"}}
    write_store(tmp_path / "s.h5", made, Provenance("human3d", "h36m17", "m", details, "names"))
    found = summarize_store(tmp_path / "s.h5")
    assert (found.tracklets, found.frames, found.valid, found.without_pose) == (4, 20, 9, 1)
    assert found.lengths == {"shortest": 1, "median": 3.0, "mean": 5.0, "longest": 13}
    assert (found.gaps, found.longest_gap) == (2, 3)
    assert (found.joint_set, found.joints, found.keypoints2d, found.unit) == ("h36m17", 17, 17, "m")
    assert (found.estimator, found.dataset, found.version) == ("human3d", "names", 1)
    assert found.details == {"digest": "abc"} and found.software == {"torch": "2"}
    assert found.digest == SkeletonStore(tmp_path / "s.h5").digest
    assert found.bytes == (tmp_path / "s.h5").stat().st_size and found.created.startswith("20")


def test_an_empty_cache_has_a_summary_and_a_missing_one_is_named(tmp_path: Path):
    write_store(tmp_path / "s.h5", [], Provenance("x", "h36m17", "m"))
    found = summarize_store(tmp_path / "s.h5")
    assert (found.tracklets, found.frames, found.gaps, found.without_pose, found.lengths) == (0, 0, 0, 0, {})
    with pytest.raises(PoseCacheError, match=r"no skeleton cache at .*gone\.h5"):
        summarize_store(tmp_path / "gone.h5")
