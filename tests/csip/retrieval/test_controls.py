"""Controls of the test: skeletons as the teacher has them, and frames in another order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from csip.config import Settings
from csip.data import mars
from csip.data.skeletons import load_skeletons
from csip.models.factory import build_model, empty_encoder
from csip.monitor import Silent
from csip.retrieval.controls import embed_shuffled, embed_with_skeletons
from csip.retrieval.model import Model


def model_of(settings: Settings, position: bool) -> Model:
    stage2 = settings.stage2.model_copy(update={"frame_position": position})
    settings = settings.model_copy(update={"stage2": stage2})
    network = build_model(empty_encoder("h36m17", 32, settings), 0.07, 4, 2, settings)
    if position:
        assert network.sgtm is not None and network.sgtm.visual_message is not None
        torch.nn.init.constant_(network.sgtm.visual_message.position.gain, 5.0)
    return Model(network, settings, "walkers", {1: 0, 2: 1}, "digest", "digest", torch.device("cpu"))


def test_order_matters_where_frames_know_their_place_and_skeletons_to_the_teacher(
    settings: Settings, walkers: Path, whole_cache: Path
) -> None:
    dataset = mars.load(walkers)
    some = dataset.query[:3]
    for position in (False, True):
        model = model_of(settings, position)
        plain = model.embedder("walkers").tracklets(walkers, some, Silent())
        mixed = embed_shuffled(model, dataset, some, Silent())
        np.testing.assert_array_equal(mixed, embed_shuffled(model, dataset, some, Silent()))
        assert np.allclose(mixed, plain, atol=1e-5) is not position
    skeletons = load_skeletons(whole_cache, some)
    taught = embed_with_skeletons(model, dataset, some, skeletons, Silent())
    width = model.network.vision.width
    np.testing.assert_allclose(np.linalg.norm(taught, axis=1), 1, atol=1e-5)
    assert np.abs(taught - plain)[:, -width:].max() > 1e-3, "the third part sees the skeleton"
