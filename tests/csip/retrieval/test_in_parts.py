"""Descriptors made in parts: by workers, in shares, merged; equal to one process, to the bit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from monitors import Heard

import csip.loading
from csip.config import Settings
from csip.data.dataset import Dataset
from csip.data.readers import load_dataset
from csip.errors import CsipError
from csip.monitor import Silent
from csip.retrieval import in_parts
from csip.retrieval.descriptors import read_descriptors
from csip.retrieval.in_parts import embed_to_file
from csip.retrieval.model import Model
from csip.retrieval.model import tested as tracklets_of_test
from pose_cache.errors import PoseCacheError
from pose_cache.pieces import Share, Spread


@pytest.fixture
def model(untrained: Callable[[Settings], Path], settings: Settings) -> Model:
    return csip.loading.load(untrained(settings), "cpu", evaluation=settings.evaluation, runtime=settings.runtime)


@pytest.fixture
def dataset(settings: Settings) -> Dataset:
    return load_dataset(settings.dataset)


@pytest.mark.parametrize("size", [3, 5, 64])
def test_workers_of_any_pieces_give_the_bits_of_one_process(
    model: Model, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(in_parts, "SHARD", size)
    expected = model.embed(dataset)
    heard = Heard()
    for number, spread in enumerate((Spread(), Spread(2, "threading"))):
        out = tmp_path / f"{number}.h5"
        found = embed_to_file(model, dataset, tracklets_of_test(dataset), out, spread, heard)
        assert found is not None and np.array_equal(found.features, expected.features)
        kept = read_descriptors(out)
        assert np.array_equal(kept.features, expected.features) and kept.names == expected.names
        assert np.array_equal(kept.pictures, expected.pictures)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.h5", "1.h5"]
    assert len(heard.said) == 2 * bool(model.embedder(dataset.name).camera_rows == {}), "who does it says it once"


def test_shares_are_merged_when_all_are_there(
    model: Model, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_parts, "SHARD", 3)
    out = tmp_path / "out.h5"

    def embed(spread: Spread) -> object:
        return embed_to_file(model, dataset, tracklets_of_test(dataset), out, spread, Silent())

    with pytest.raises(PoseCacheError, match="run the rest without shares"):
        embed(Spread(merge=True))
    for job in (3, 1):
        assert embed(Spread(2, "threading", Share(job, 3))) is None
    with pytest.raises(PoseCacheError, match=r"of \d+ tracklets are not done; run the shares 2/3$"):
        embed(Spread(merge=True))
    assert not out.exists()
    assert embed(Spread(share=Share(2, 3))) is None
    monkeypatch.setattr(in_parts, "_embed_there", lambda *rest: pytest.fail("merging embeds"))
    assert embed(Spread(merge=True)) is not None
    assert np.array_equal(read_descriptors(out).features, model.embed(dataset).features)
    assert [path.name for path in tmp_path.iterdir()] == ["out.h5"]


def test_only_the_part_whose_pictures_changed_is_made_again(
    untrained: Callable[[Settings], Path], settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_parts, "SHARD", 4)
    root = shutil.copytree(settings.dataset.path, tmp_path / "data")
    settings = settings.model_copy(update={"dataset": settings.dataset.model_copy(update={"root": root})})
    model, dataset = csip.loading.load(untrained(settings), "cpu"), load_dataset(settings.dataset)
    tracklets, out, heard = tracklets_of_test(dataset), tmp_path / "out.h5", Heard()
    embed_to_file(model, dataset, tracklets, out, Spread(share=Share(1, 1)), heard)
    frame = root / tracklets[5].frames[0]
    cv2.imwrite(str(frame), 255 - cv2.imread(str(frame)))
    with pytest.raises(
        PoseCacheError, match=f"4 of {len(tracklets)} tracklets .*of the jobs whose frames have changed"
    ):
        embed_to_file(model, dataset, tracklets, out, Spread(merge=True), heard)
    found = embed_to_file(model, dataset, tracklets, out, Spread(), heard)
    assert found is not None and np.array_equal(found.features, model.embed_tracklets(dataset, tracklets).features)
    assert heard.said[-1] == f"{len(tracklets) - 4} of {len(tracklets)} tracklets are kept from before"


def test_a_worker_that_sees_another_model_says_so(
    model: Model, dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "file_digest", "0" * 16)
    with pytest.raises(CsipError, match=r"the model has the digest \w+, expected 0000000000000000: all machines"):
        embed_to_file(model, dataset, tracklets_of_test(dataset), tmp_path / "out.h5", Spread(2, "threading"), Silent())


def test_descriptors_that_are_not_finite_are_refused(model: Model, dataset: Dataset, tmp_path: Path) -> None:
    with torch.no_grad():
        next(model.network.parameters()).fill_(torch.nan)
    with pytest.raises(CsipError, match="descriptors are not finite: its weights are damaged"):
        embed_to_file(model, dataset, dataset.gallery, tmp_path / "out.h5", Spread(), Silent())
    assert not (tmp_path / "out.h5").exists()
