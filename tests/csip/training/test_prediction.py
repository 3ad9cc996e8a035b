"""What predicts skeletons from images: the frames it is fitted to, the fit, and who moves how."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from sklearn.linear_model import Ridge
from torch.nn import functional as F

from csip.config import Settings
from csip.data.dataset import Tracklet
from csip.models.skeleton_prediction import MotionReader
from csip.monitor import Silent
from csip.retrieval.metrics import rank
from csip.training import prediction, stage2
from csip.training.prediction import choose_frames, fit_ridge, train_reader


def test_frames_with_a_skeleton_are_chosen_evenly() -> None:
    valid = [np.ones(10, bool), np.zeros(5, bool), np.arange(4) == 2, np.ones(100, bool)]
    chosen = choose_frames(valid, 12)
    assert chosen == [(0, 0), (0, 3), (0, 6), (0, 9), (2, 2), (3, 0), (3, 33), (3, 66), (3, 99)]
    assert [i for i, _ in choose_frames([np.ones(3, bool)] * 9, 3)] == [0, 4, 8]
    assert choose_frames([np.zeros(3, bool)], 3) == []


@pytest.mark.parametrize("useful", [True, False])
def test_held_out_identities_choose_how_much_the_feature_weighs(useful: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """f4 tells everyone apart and the rest nobody, or the other way round."""
    rng, width = np.random.default_rng(0), 6
    held = [Tracklet(f"{person}{camera}", person, camera, ()) for person in range(40) for camera in (1, 2)]
    noise, blur = rng.normal(size=(2, len(held), width)).astype(np.float32)
    people = rng.normal(size=(40, width)).astype(np.float32)[[t.pid for t in held]] + 0.5 * blur
    noise, people = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (noise, people))
    parts = (noise, people) if useful else (people, noise)
    described = np.concatenate(parts, axis=1) / np.sqrt(2)
    monkeypatch.setattr(stage2, "_embed_held", lambda *_: described)
    model = SimpleNamespace(prediction=SimpleNamespace(weight=torch.ones(())), vision=SimpleNamespace(embed_dim=width))
    settings = SimpleNamespace(evaluation=SimpleNamespace(sampling="dense"))
    training: Any = SimpleNamespace(model=model, settings=settings, held=held)
    scores = stage2.weigh_prediction(training)
    rising = [scores[weight] for weight in (0.0, 0.5, 1.0)]
    assert model.prediction.weight == (1.0 if useful else 0.0)
    assert rising == sorted(rising, reverse=not useful) and max(rising) > min(rising) + 0.1
    assert scores[1.0] == pytest.approx(_map(described, held)), "weight 1 is the descriptor as it comes"


def _map(descriptors: np.ndarray, held: list[Tracklet]) -> float:
    labels = (np.array([t.pid for t in held]), np.array([t.camera for t in held]))
    return rank(descriptors, *labels, descriptors, *labels).map


def draw(people: int, each: int, inputs: int, noise: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(people * each, inputs)) * rng.uniform(0.1, 3, inputs) + 2
    y = x @ rng.normal(size=(inputs, 3)) + 5 + noise * rng.normal(size=(len(x), 3))
    return torch.tensor(x).float(), torch.tensor(y).float(), torch.arange(people).repeat_interleave(each)


def test_the_fit_is_ridge_regression(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against scikit-learn's, in the primal form, on inputs of mean 0 and spread 1."""
    x, y, people = draw(10, 6, 40, noise=1.0)
    monkeypatch.setattr(prediction, "RIDGES", (1e-3,))
    weight, bias = fit_ridge(x.clone(), y, people)
    seen = (x - x.mean(dim=0)) / x.std(dim=0, correction=0)
    known = Ridge(alpha=1e-3 * seen.square().sum().item()).fit(seen.numpy(), y.numpy())
    np.testing.assert_allclose((x @ weight.T + bias).numpy(), known.predict(seen.numpy()), rtol=1e-3, atol=1e-3)


def test_held_out_people_choose_the_strength(monkeypatch: pytest.MonkeyPatch) -> None:
    errors = []
    x, y, people = draw(30, 4, 60, noise=20.0)
    new, truth, _ = draw(60, 4, 60, noise=0.0)
    for strengths in (prediction.RIDGES, (prediction.RIDGES[0],)):
        monkeypatch.setattr(prediction, "RIDGES", strengths)
        weight, bias = fit_ridge(x.clone(), y, people)
        errors.append((new @ weight.T + bias - truth)[120:].square().mean().item())
    assert errors[0] < 0.8 * errors[1], "noise wants a strong one"


def test_inputs_that_never_change_and_one_person_alone_are_fitted() -> None:
    x, y, people = draw(10, 6, 5, noise=0.0)
    x[:, 2] = 7.0
    for whose in (people, torch.zeros_like(people)):
        weight, bias = fit_ridge(x.clone(), y, whose)
        assert weight.isfinite().all() and bias.isfinite().all() and (weight[:, 2] == 0).all()


def test_the_reader_learns_who_moves_how() -> None:
    """People who stand alike and differ in tempo alone; each walk begins anywhere."""
    rng, count, labels = np.random.default_rng(0), 12, np.repeat(np.arange(12), 4)
    time, tempo = np.arange(64), 0.01 + 0.012 * labels
    walks = np.sin(2 * np.pi * (tempo[:, None] * time + rng.random((len(labels), 1))))
    poses = [np.stack((walk, 0 * walk), 1).astype(np.float32) for walk in walks]
    settings = Settings.model_validate(
        {"dataset": {"name": "x"}, "clips": {"frames": 16, "stride": 4}, "stage2": {"reader_steps": 60}}
    )
    torch.manual_seed(0)
    reader = MotionReader(2, 32, 16)
    untaught = nearest_is_right(reader, poses, labels)
    neighbours = np.stack([np.delete(np.arange(count), one) for one in range(count)])
    train_reader(reader, poses, labels, neighbours, settings, Fabric(accelerator="cpu", devices=1), Silent())
    assert nearest_is_right(reader, poses, labels) > 0.9 >= untaught
    assert not reader.training and not any(parameter.requires_grad for parameter in reader.parameters())


def nearest_is_right(reader: MotionReader, poses: list[np.ndarray], labels: np.ndarray) -> float:
    with torch.no_grad():
        found = F.normalize(reader.eval()(torch.from_numpy(np.stack(poses))[:, 1::4]), dim=1)
    nearest = (found @ found.T).fill_diagonal_(-1).argmax(dim=1).numpy()
    return float((labels[nearest] == labels).mean())
