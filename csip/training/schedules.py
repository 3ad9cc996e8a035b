"""Learning rates by epoch."""

from __future__ import annotations

import math


def cosine(epoch: int, *, epochs: int, warmup: int, floor: float) -> float:
    """Learning-rate factor: linear warm-up over ``warmup`` epochs, then a half cosine from 1 to ``floor``."""
    if epoch < warmup:
        return (epoch + 1) / (warmup + 1)
    done = (epoch - warmup) / max(epochs - warmup - 1, 1)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def steps(epoch: int, *, warmup: int, start: float, milestones: tuple[int, ...]) -> float:
    """Learning-rate factor: linear warm-up from ``start``, then a tenth at each milestone."""
    factor = start + (1 - start) * epoch / warmup if epoch < warmup else 1.0
    return factor * 0.1 ** sum(epoch >= milestone for milestone in milestones)
