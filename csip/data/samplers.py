"""In which order clips are drawn. An epoch's order is a pure function of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from csip.data.clips import Draw


class IdentityBatches(Sampler[list[Draw]]):
    """Batches of ``ids`` identities with ``tracklets`` clips each, so that every clip has positives to be compared to.

    In an epoch each tracklet is drawn at least once; identities with fewer tracklets repeat some. The last batches are
    dropped once fewer than ``ids`` identities have clips left.

    Parameters
    ----------
    neighbours
        (N, k) labels, most alike first, or None. With them, every second identity of a batch is the one most like the
        identity before it that still has clips: people who are easily confused are then compared with each other, which
        random batches of few identities hardly ever do (compare graph sampling, Liao and Shao, CVPR 2022).
    """

    def __init__(
        self, labels: Sequence[int], ids: int, tracklets: int, seed: int, neighbours: np.ndarray | None = None
    ) -> None:
        self.members: dict[int, list[int]] = {}
        for index, label in enumerate(labels):
            self.members.setdefault(label, []).append(index)
        self.ids, self.tracklets, self.seed = min(ids, len(self.members)), tracklets, seed
        self.neighbours = neighbours
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next iteration gives."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self._plan())

    def __len__(self) -> int:
        return len(self._plan())

    def _plan(self) -> list[list[Draw]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        groups = {label: self._groups(members, rng) for label, members in self.members.items()}
        batches = []
        while len(groups) >= self.ids:
            batch = []
            for label in self._choose(sorted(groups), rng):
                batch += [Draw(index, int(rng.integers(2**63))) for index in groups[label].pop()]
                if not groups[label]:
                    del groups[label]
            batches.append(batch)
        return batches

    def _choose(self, left: list[int], rng: np.random.Generator) -> list[int]:
        """Choose ``ids`` of the identities that have clips left."""
        order = rng.permutation(left).tolist()
        if self.neighbours is None:
            return order[: self.ids]
        chosen: list[int] = []
        while len(chosen) < self.ids:
            label = order.pop(0)
            chosen.append(label)
            alike = next((other for other in self.neighbours[label].tolist() if other in order), None)
            if alike is not None and len(chosen) < self.ids:
                order.remove(alike)
                chosen.append(alike)
        return chosen

    def _groups(self, members: list[int], rng: np.random.Generator) -> list[list[int]]:
        order = rng.permutation(members).tolist()
        while len(order) % self.tracklets:
            order.append(int(rng.choice(members)))
        return [order[i : i + self.tracklets] for i in range(0, len(order), self.tracklets)]
