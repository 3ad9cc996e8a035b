"""What an evaluation says it measured, on descriptors that are made up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import csip.retrieval.embedding
from csip.config import ClipSettings, Settings
from csip.data import mars
from csip.data.clips import read_frames
from csip.data.dataset import Dataset, Tracklet
from csip.errors import CsipError
from csip.monitor import Silent
from csip.retrieval.embedding import clips_of
from csip.retrieval.evaluation import chance_scores, embed_sides, protocol, score, side
from csip.retrieval.model import Model
from csip.retrieval.scores import Evaluation
from pipelines.tables import rich_table
from pipelines.write_report import _ranking


class Colours:
    """Describes a clip by its mean colour at each of a few places, without learning anything."""

    cameras = 0

    def __init__(self, grid: tuple[int, int] = (4, 2)) -> None:
        self.grid = grid

    def embed_pixels(self, images: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.float().mean(dim=1) - 128, self.grid).flatten(1)


def with_evaluation(settings: Settings, **changes: object) -> Settings:
    return settings.model_copy(update={"evaluation": settings.evaluation.model_copy(update=changes)})


def measured(settings: Settings, dataset: Dataset, groups: dict[int, int] | None = None) -> Evaluation:
    query, gallery = side(dataset.query, settings), side(dataset.gallery, settings)
    model = Model(Colours(), settings, dataset.name, {}, "", "", torch.device("cpu"))
    (found,) = embed_sides([model.embedder(dataset.name)], dataset.root, query, gallery, Silent())
    assert [len(one) for one in found] == [len(query.ids), len(gallery.ids)]
    return Evaluation(
        dataset.name,
        protocol(dataset, query, gallery, model),
        "",
        score(*found, query, gallery, groups or {}, settings.evaluation, "cpu"),
        {"chance": chance_scores(query, gallery, groups or {})},
        0.0,
    )


def evaluated(settings: Settings, dataset: Dataset) -> dict:
    return measured(settings, dataset).as_dict()


def test_tracklets_and_clips_are_ranked_as_what_they_are(settings: Settings) -> None:
    """Walks of 6 frames: 2 dense clips of 4 frames each."""
    dataset = mars.load(settings.dataset.path)
    tracklets = evaluated(settings, dataset)
    clips = evaluated(with_evaluation(settings, level="clip"), dataset)
    centres = evaluated(with_evaluation(settings, level="clip", sampling="rrs"), dataset)
    assert tracklets["protocol"]["query_entries"] == tracklets["figures"]["queries"] == len(dataset.query)
    assert clips["protocol"]["query_entries"] == clips["figures"]["queries"] == 2 * len(dataset.query)
    assert clips["protocol"]["gallery_entries"] == 2 * len(dataset.gallery)
    assert centres["protocol"]["gallery_entries"] == len(dataset.gallery)
    assert [one["protocol"]["level"] for one in (tracklets, clips)] == ["tracklet", "clip"]
    # Every second entry of a person is in another camera, at either level.
    assert clips["compared"]["chance"]["rank1"] == pytest.approx(tracklets["compared"]["chance"]["rank1"], rel=0.1)


@pytest.mark.parametrize("level", ["tracklet", "clip"])
def test_models_that_are_compared_decode_each_frame_once(
    level: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = mars.load(settings.dataset.path)
    chosen = with_evaluation(settings, level=level)
    query, gallery = side(dataset.query, chosen), side(dataset.gallery, chosen)
    models = [Model(Colours(grid), chosen, "", {}, "", "", torch.device("cpu")) for grid in ((4, 2), (1, 1), (3, 1))]
    embedders = [model.embedder(dataset.name) for model in models]
    alone = [embed_sides([one], dataset.root, query, gallery, Silent())[0] for one in embedders]
    decoded: list[str] = []

    def read(root: Path, frames: Sequence[str], of: ClipSettings) -> np.ndarray:
        decoded.extend(frames)
        return read_frames(root, frames, of)

    monkeypatch.setattr(csip.retrieval.embedding, "read_frames", read)
    together = embed_sides(embedders, dataset.root, query, gallery, Silent())
    assert sorted(decoded) == sorted({f for t in (*dataset.query, *dataset.gallery) for f in t.frames})
    for expected, found in zip(alone, together, strict=True):
        assert all(np.array_equal(one, other) for one, other in zip(expected, found, strict=True))
    assert len({part[0].shape[1] for part in together}) == 3


def test_protocol_says_which_gallery_it_was(settings: Settings) -> None:
    dataset = mars.load(settings.dataset.path)
    whole = evaluated(settings, dataset)["protocol"]
    assert (whole["gallery"], whole["queries_in_gallery"]) == ("with_queries", len(dataset.query))
    less = dataset.without_queries()
    part = evaluated(settings, less)["protocol"]
    assert (part["gallery"], part["queries_in_gallery"]) == ("without_queries", 0)
    assert part["gallery_tracklets"] == whole["gallery_tracklets"] - len(dataset.query)
    assert whole["distractor_tracklets"] == sum(t.pid == 0 for t in dataset.gallery) > 0
    assert whole["gallery_identities"] == len({t.pid for t in dataset.query})
    with pytest.raises(CsipError, match="every gallery tracklet is a query"):
        Dataset("x", Path("x"), (), dataset.query, dataset.query).without_queries()


def test_reranking_and_intervals_are_beside_the_plain_figures(settings: Settings) -> None:
    dataset = mars.load(settings.dataset.path)
    plain = evaluated(with_evaluation(settings, bootstrap=0), dataset)
    assert plain["figures"]["intervals"] is None and "reranked" not in plain["figures"]
    assert plain["protocol"]["intervals"] is None and plain["protocol"]["reranking"] is None
    evaluation = measured(with_evaluation(settings, rerank=True, rerank_k1=3, rerank_k2=2), dataset)
    both = evaluation.as_dict()
    assert both["protocol"]["reranking"] == {"k1": 3, "k2": 2, "mix": 0.3}
    assert both["figures"]["map"] == plain["figures"]["map"]
    assert both["figures"]["reranked"]["map"] != both["figures"]["map"]
    low, high = both["figures"]["intervals"]["map"]
    assert low <= both["figures"]["map"] <= high
    text = render(evaluation)
    assert "re-ranked" in text and "95% interval" in text and "mINP" in text
    assert "trained, re-ranked" in "\n".join(_ranking(json.loads(json.dumps(both))))


def test_cameras_add_up_and_a_query_without_a_match_is_counted(settings: Settings) -> None:
    dataset = mars.load(settings.dataset.path)
    lonely = [t for t in dataset.gallery if t.pid != dataset.query[0].pid]
    evaluation = measured(settings, Dataset(dataset.name, dataset.root, (), dataset.query, tuple(lonely)))
    result = evaluation.as_dict()
    table = result["figures"]["cameras"]
    assert sum(row["queries"] for row in table.values()) == len(dataset.query)
    assert sum(row["valid_queries"] for row in table.values()) == result["figures"]["valid_queries"]
    assert result["figures"]["valid_queries"] == sum(t.pid != dataset.query[0].pid for t in dataset.query)
    total = sum(row["map"] * row["valid_queries"] for row in table.values())
    assert total / result["figures"]["valid_queries"] == pytest.approx(result["figures"]["map"])
    assert f"{result['figures']['valid_queries']} valid queries of {len(dataset.query)}" in render(evaluation)
    report = "\n".join(_ranking(json.loads(json.dumps(result))))
    assert "| query's camera |" in report and "mINP" in report


def test_lookalikes_are_ranked_against_their_own_group() -> None:
    """Two pairs: in the first the twins are mixed up, in the second told apart."""
    names = iter(range(100))

    def tracklets(*people: tuple[int, int]) -> tuple[Tracklet, ...]:
        return tuple(Tracklet(f"t{next(names)}", pid, camera, ("0.jpg",)) for pid, camera in people)

    settings = Settings.model_validate({"dataset": {"name": "x"}, "evaluation": {"bootstrap": 0}})
    query = side(tracklets((1, 1), (2, 1), (3, 1), (4, 1), (9, 1)), settings)
    gallery = side(tracklets((1, 2), (2, 2), (3, 2), (4, 2), (9, 2), (1, 1)), settings)
    asked = np.array([[0.0], [1], [10], [11], [50]])
    found = np.array([[1.0], [0], [10], [11], [50], [0]])
    groups = {1: 0, 2: 0, 3: 1, 4: 1}
    figures = score(asked, found, query, gallery, groups, settings.evaluation, "cpu").as_dict()
    assert figures["lookalikes"]["pair_rank1"] == 0.5
    assert figures["lookalikes"]["valid_queries"] == 4 and figures["rank1"] == 3 / 5
    chance = chance_scores(query, gallery, groups).as_dict()["lookalikes"]["pair_rank1"]
    assert chance == pytest.approx((1 / 2 + 1 / 3 + 1 / 2 + 1 / 2) / 4)


def test_clip_counts_are_those_of_the_clips() -> None:
    assert [len(clips_of(length, 4, "dense")) for length in (1, 4, 5, 8, 9)] == [1, 1, 2, 2, 3]
    assert len(clips_of(9, 4, "rrs")) == 1


def test_interleaved_clips_have_the_time_step_of_training() -> None:
    assert clips_of(12, 4, "interleaved").tolist() == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]  # spread
    strided = [[0, 2, 4, 6], [8, 8, 10, 10], [1, 3, 5, 7], [9, 9, 11, 11]]
    assert clips_of(12, 4, "interleaved", 2).tolist() == clips_of(12, 4, "dense", 2).tolist() == strided
    assert clips_of(12, 4, "dense").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert clips_of(12, 4, "rrs", 2).tolist() == [[2, 4, 6, 8]]


def render(evaluation: Evaluation) -> str:
    from rich.console import Console

    console = Console(width=200, record=True, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(rich_table(evaluation.table(), bold="trained"))
    console.print(rich_table(evaluation.camera_table()))
    text = console.export_text()
    cells = [cell for table in (evaluation.table(), evaluation.camera_table()) for row in table.rows for cell in row]
    assert all(cell in text and cell in str(evaluation) for cell in cells), "plain text says the same"
    return text
