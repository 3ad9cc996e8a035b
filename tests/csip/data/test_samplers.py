from collections import Counter

import numpy as np
import torch

from csip.data.samplers import IdentityBatches
from csip.training.prototypes import nearest

LABELS = [label for label in range(7) for _ in range(label + 1)]


def test_batches_hold_ids_times_tracklets() -> None:
    for batch in IdentityBatches(LABELS, ids=3, tracklets=2, seed=0):
        counts = Counter(LABELS[draw.tracklet] for draw in batch)
        assert len(counts) == 3 and set(counts.values()) == {2}


def test_an_epoch_is_a_function_of_seed_and_epoch() -> None:
    first, same, other = (IdentityBatches(LABELS, 3, 2, seed) for seed in (0, 0, 1))
    first.set_epoch(4)
    same.set_epoch(4)
    other.set_epoch(4)
    assert list(first) == list(same)
    assert list(first) != list(other)
    same.set_epoch(5)
    assert list(first) != list(same)
    assert len(first) == len(list(first))


def test_every_tracklet_of_the_batches_is_drawn_before_any_repeats() -> None:
    drawn = [d.tracklet for batch in IdentityBatches([0] * 4 + [1] * 4, 2, 4, 0) for d in batch]
    assert sorted(drawn) == list(range(8))


def test_fewer_identities_than_asked_for_still_make_batches() -> None:
    batches = list(IdentityBatches([0, 0, 1, 1], ids=4, tracklets=4, seed=0))
    assert len(batches) == 1 and len(batches[0]) == 8


def test_look_alikes_share_batches() -> None:
    angles = torch.tensor([0.0, 1.0, 2.0, 0.05, 1.05, 2.05])  # 0 and 3, 1 and 4, 2 and 5 are alike
    neighbours = nearest(torch.stack((angles.cos(), angles.sin()), dim=1))
    assert neighbours[:, 0].tolist() == [3, 4, 5, 0, 1, 2]
    labels = np.repeat(np.arange(6), 4).tolist()
    sampler = IdentityBatches(labels, ids=4, tracklets=2, seed=0, neighbours=neighbours)
    seen: Counter[int] = Counter()
    for epoch in range(5):
        sampler.set_epoch(epoch)
        batches = list(sampler)
        assert batches == list(sampler)
        for batch in batches:
            people = {labels[draw.tracklet] for draw in batch}
            assert len(people) == 4
            seen.update(people)
        first = [labels[draw.tracklet] for draw in batches[0]][::2]
        assert all(abs(one - two) == 3 for one, two in zip(first[::2], first[1::2], strict=True))
    assert len(seen) == 6
