"""Twins told apart by trait, at other cameras, with intervals over pairs."""

import json
from pathlib import Path

import numpy as np
import pytest

from csip.data.dataset import Dataset, Tracklet
from csip.errors import CsipError
from csip.retrieval.twins import interval, tell_twins_apart, twin_strata

STRATA = {"body": [[1, 2]], "cadence": [[3, 4], [5, 6]]}


def labels(*people: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    ids, cameras = zip(*people, strict=True)
    return np.array(ids), np.array(cameras)


def test_the_nearer_of_person_and_twin_at_other_cameras_decides() -> None:
    asked = labels((1, 1), (2, 1), (3, 1), (5, 1), (7, 1))
    ranked = labels((1, 1), (1, 2), (2, 2), (3, 2), (4, 2), (5, 2), (6, 2), (7, 2), (2, 1))
    query = np.array([[0.0], [1], [5], [9], [5]])
    #  1: the own picture at the same camera, right at its place, does not help; the twin is nearer at the other one
    gallery = np.array([[0.0], [3], [1], [5], [7], [8], [10], [5], [0]])
    found = tell_twins_apart(query, asked, gallery, ranked, STRATA)
    assert found.hits.tolist() == [0, 1, 1, 0.5]  # 5 and the twin are as near
    assert found.stratum.tolist() == ["body", "body", "cadence", "cadence"]
    scores = found.scores()
    assert scores["body"].own_twin == 0.5 and scores["body"].interval == (0.5, 0.5)  # one pair has no spread
    assert (scores["cadence"].own_twin, scores["cadence"].pairs, scores["cadence"].valid_queries) == (0.75, 2, 2)
    low, high = scores["cadence"].interval
    assert low == 0.5 and high == 1.0


def test_queries_without_a_match_or_without_the_twin_do_not_count() -> None:
    found = tell_twins_apart(
        np.zeros((2, 1)), labels((1, 1), (2, 1)), np.ones((2, 1)), labels((1, 1), (1, 2)), {"body": [[1, 2]]}
    )
    assert len(found.hits) == 0 and found.scores() == {}


def test_the_interval_draws_whole_groups() -> None:
    values = np.repeat([1.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0], 50)
    groups = np.repeat(np.arange(8), 50)
    low, high = interval(values, groups)
    assert high - low > 0.5, "eight pairs say little, however many queries each has"
    narrow = interval(values, np.arange(400))
    assert narrow[1] - narrow[0] < 0.1


def test_a_data_set_without_the_file_has_no_strata_and_another_file_is_refused(tmp_path: Path) -> None:
    dataset = Dataset("x", tmp_path, (), (Tracklet("a", 1, 1, ("0.jpg",)),), ())
    assert twin_strata(dataset) == {}
    (tmp_path / "strata.json").write_text(json.dumps({"test": {"body": [[1, 2]]}, "fps": 12}))
    assert twin_strata(dataset) == {"body": [[1, 2]]}
    for wrong in ("{", "[]", '{"test": {"body": [[1, 2, 3]]}}', '{"test": {"body": [["a", 2]]}}', "{}"):
        (tmp_path / "strata.json").write_text(wrong)
        with pytest.raises(CsipError, match=r"strata\.json: expected pairs of identities"):
            twin_strata(dataset)
