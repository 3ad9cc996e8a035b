"""Samplers of training clips. An epoch's order is a pure function of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

from csip.data.clips import Draw
from csip.errors import CsipError


class IdentityBatches(Sampler[list[Draw]]):
    """Batches of ``ids`` identities with ``tracklets`` clips each, so that every clip has positives to be compared to.

    In an epoch each tracklet is drawn at least once; identities with fewer tracklets repeat some. The last batches are
    dropped once fewer than ``ids`` identities have clips left.

    Parameters
    ----------
    share
        (rank, processes): of each batch, which part this process makes; the first of one by default.
    neighbours
        (N, k) labels, most alike first, or None. With them, every second identity of a batch is the one most like the
        identity before it that still has clips: people who are easily confused are then compared with each other, which
        random batches of few identities hardly ever do (compare graph sampling, Liao and Shao, CVPR 2022).
    """

    def __init__(
        self,
        labels: Sequence[int],
        ids: int,
        tracklets: int,
        seed: int,
        *,
        neighbours: np.ndarray | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        self.members: dict[int, list[int]] = {}
        for index, label in enumerate(labels):
            self.members.setdefault(label, []).append(index)
        self.ids, self.tracklets, self.seed = min(ids, len(self.members)), tracklets, seed
        self.neighbours = neighbours
        rank, processes = share
        if (self.ids * tracklets) % processes:
            raise CsipError(
                f"batches of {self.ids} identities with {tracklets} clips each cannot be shared by {processes} processes: "
                "choose stage2.ids_per_batch and stage2.tracklets_per_id whose product they divide"
            )
        clips = self.ids * tracklets // processes
        self.part = slice(rank * clips, (rank + 1) * clips)
        self.set_epoch(0)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch, and how many of its batches are done already."""
        self.batches: list[list[Draw]] = [batch[self.part] for batch in self._plan(epoch)[first_batch:]]

    def __iter__(self) -> Iterator[list[Draw]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def _plan(self, epoch: int) -> list[list[Draw]]:
        rng = np.random.default_rng((self.seed, epoch))
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
