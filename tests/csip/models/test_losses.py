import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp
from torch.nn import functional as F

from csip.models.losses import (
    LearnableTemperature,
    batch_hard_triplet,
    contrast_within,
    distillation,
    prototype_logits,
    smoothed_cross_entropy,
    supervised_contrastive,
)


def draw(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def contrastive_by_loops(v: np.ndarray, s: np.ndarray, labels: np.ndarray, scale: float) -> float:
    total = 0.0
    for a, b in ((v, s), (s, v)):
        for i in range(len(a)):
            logits = np.array([scale * a[i] @ b[j] for j in range(len(b))])
            positives = [p for p in range(len(b)) if labels[p] == labels[i]]
            total -= np.mean([logits[p] - logsumexp(logits) for p in positives]) / len(a)
    return total


@pytest.mark.parametrize("labels", [[0, 0, 1, 2, 1, 0], [3, 1, 4, 0, 5, 9], [2] * 6])
def test_supervised_contrastive_is_its_formula(labels):
    v, s = draw(0, 6, 5), draw(1, 6, 5)
    expected = contrastive_by_loops(v.double().numpy(), s.double().numpy(), np.array(labels), 3.0)
    assert supervised_contrastive(v, s, torch.tensor(labels), 3.0).item() == pytest.approx(expected, rel=1e-5)


def test_supervised_contrastive_has_the_floor_of_unit_vectors_without_temperature():
    """64 identities, cosines at most 1 and at least -1/63: no arrangement goes below log(1 + 63 exp(-64/63))."""
    simplex = F.normalize(torch.eye(64, dtype=torch.float64) - 1 / 64, dim=1)
    loss = supervised_contrastive(simplex, simplex, torch.arange(64), 1.0)
    assert loss.item() / 2 == pytest.approx(np.log(1 + 63 * np.exp(-64 / 63)), rel=1e-5)
    assert loss.item() / 2 == pytest.approx(3.17, abs=0.01)


@pytest.mark.parametrize("labels", [[0, 0, 1, 2, 1, 0], [3, 1, 4, 0, 5, 9], [2] * 6])
def test_contrast_within_is_its_formula(labels):
    """The one clip of an identity adds nothing, and no clip is a negative or positive of itself."""
    f = draw(0, 6, 5)
    expected, x = 0.0, f.double().numpy()
    for i in range(6):
        others = [j for j in range(6) if j != i]
        total = logsumexp(np.array([3.0 * x[i] @ x[j] for j in others]))
        positives = [j for j in others if labels[j] == labels[i]]
        expected -= sum(3.0 * x[i] @ x[p] - total for p in positives) / max(len(positives), 1) / 6
    assert contrast_within(f, torch.tensor(labels), 3.0).item() == pytest.approx(expected, rel=1e-5)


def test_losses_stay_in_float32_under_autocast():
    v, s, labels = draw(0, 8, 16), draw(1, 8, 16), torch.arange(8) % 3
    prototypes = draw(2, 8, 3, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = (
            supervised_contrastive(v, s, labels, 10.0),
            prototype_logits(v, prototypes, 10.0),
            batch_hard_triplet(v, labels),
            smoothed_cross_entropy(v[:, :3], labels),
            distillation(v, s),
        )
    outside = (
        supervised_contrastive(v, s, labels, 10.0),
        prototype_logits(v, prototypes, 10.0),
        batch_hard_triplet(v, labels),
        smoothed_cross_entropy(v[:, :3], labels),
        distillation(v, s),
    )
    for a, b in zip(inside, outside, strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("normalize", [True, False])
def test_prototype_logits_is_its_formula(normalize):
    features, prototypes = draw(0, 3, 7), draw(1, 3, 5, 7)
    logits = prototype_logits(features, prototypes, 4.0, normalize)
    f, p = features.double().numpy(), prototypes.double().numpy()
    for b in range(3):
        for k in range(5):
            norm = np.linalg.norm(f[b]) * np.linalg.norm(p[b, k]) if normalize else 1.0
            assert logits[b, k].item() == pytest.approx(4.0 * (f[b] @ p[b, k]) / norm, rel=1e-4, abs=1e-5)
    shared = prototype_logits(features, prototypes[0], 4.0, normalize)
    torch.testing.assert_close(shared, prototype_logits(features, prototypes[:1].expand(3, -1, -1), 4.0, normalize))


def test_temperature_starts_learns_and_is_bounded_as_clips():
    temperature = LearnableTemperature()
    assert temperature.scale().item() == pytest.approx(1 / 0.07, rel=1e-5)
    temperature.scale().backward()
    assert temperature.log_scale.grad.item() != 0
    with torch.no_grad():
        temperature.log_scale.fill_(50.0)
    assert temperature.scale().item() == pytest.approx(100.0, rel=1e-5)
    fixed = LearnableTemperature(1.0, learnable=False)
    assert fixed.scale().item() == 1.0 and not fixed.log_scale.requires_grad


def test_smoothed_cross_entropy_is_its_formula_for_clips_and_frames():
    logits, labels = draw(0, 4, 3, 6), torch.tensor([5, 0, 2, 2])
    target = np.full((4, 6), 0.1 / 6)
    target[np.arange(4), labels.numpy()] += 0.9
    expected = -(log_softmax(logits.double().numpy(), axis=-1) * target[:, None]).sum(-1)
    assert smoothed_cross_entropy(logits, labels).item() == pytest.approx(expected.mean(), rel=1e-5)
    assert smoothed_cross_entropy(logits[:, 0], labels).item() == pytest.approx(expected[:, 0].mean(), rel=1e-5)


@given(st.lists(st.integers(0, 3), min_size=2, max_size=10), st.integers(0, 1000))
def test_batch_hard_triplet_is_brute_force(labels, seed):
    features = draw(seed, len(labels), 4)
    f = features.double().numpy()
    losses = []
    for i, label in enumerate(labels):
        distance = [np.linalg.norm(f[i] - f[j]) for j in range(len(labels))]
        positives = [d for j, d in enumerate(distance) if labels[j] == label and j != i]
        negatives = [d for j, d in enumerate(distance) if labels[j] != label]
        if positives and negatives:
            losses.append(max(0.0, 0.3 + max(positives) - min(negatives)))
    expected = np.mean(losses) if losses else 0.0
    assert batch_hard_triplet(features, torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_batch_hard_triplet_survives_equal_features():
    features = torch.ones(4, 3, requires_grad=True)
    loss = batch_hard_triplet(features, torch.tensor([0, 0, 1, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(0.3)
    assert torch.isfinite(features.grad).all()


def test_batch_hard_triplet_keeps_small_distances_between_large_features():
    features = torch.tensor([[1000.0, 0.0], [1000.0, 0.1], [1000.0, 0.3], [1000.0, 0.35]])
    loss = batch_hard_triplet(features, torch.tensor([0, 0, 1, 1]), margin=0.0)
    assert loss.item() == pytest.approx(0.0)
    loss = batch_hard_triplet(features, torch.tensor([0, 0, 1, 1]), margin=0.3)
    assert loss.item() == pytest.approx(np.mean([0.1, 0.2, 0.15, 0.1]), abs=1e-3)


def test_distillation_is_one_minus_cosine_and_teaches_the_student_only():
    student, teacher = draw(0, 2, 3, 5).requires_grad_(), draw(1, 2, 3, 5).requires_grad_()
    loss = distillation(student, teacher)
    s, t = student.detach().double().numpy(), teacher.detach().double().numpy()
    cosine = (s * t).sum(-1) / np.linalg.norm(s, axis=-1) / np.linalg.norm(t, axis=-1)
    assert loss.item() == pytest.approx((1 - cosine).mean(), rel=1e-5)
    loss.backward()
    assert teacher.grad is None and student.grad.abs().sum() > 0
