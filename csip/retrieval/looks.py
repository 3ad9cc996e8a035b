"""Looks at a test world: choices are made on the validation world, so what has been scored on the test world is kept.

A second model of the same seed on the same test world is a choice made on the test: it is refused unless asked for, and then
the metrics and the report say which look it was. The file lies beside the data, ``test_looks.json``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from csip.data.dataset import Dataset
from csip.errors import CsipError
from csip.files import parse_json, write_json
from csip.retrieval.twins import is_test_world

FILE = "test_looks.json"


@dataclass(frozen=True)
class Look:
    """A model that was scored on a test world: its digest, and the seed of its training."""

    model: str
    seed: int


def look(dataset: Dataset, model: str, seed: int, again: bool) -> int | None:
    """Record that a model is scored; return how many models of its seed were, this one included. None for other data.

    Parameters
    ----------
    model, seed
        Digest of the model's file, and the seed it was trained with.
    again
        Allow a second model of this seed.

    Raises
    ------
    CsipError
        Another model of this seed was scored here before, and `again` is not set; the file is damaged.
    """
    if not is_test_world(dataset):
        return None
    path = dataset.root / FILE
    try:
        seen = [_look(one) for one in parse_json(path.read_bytes())] if path.exists() else []
    except (ValueError, TypeError, LookupError) as error:
        raise CsipError(
            f"{path}: damaged ({error}): nobody can tell what was scored here; render the data set again"
        ) from error
    others = {one.model for one in seen if one.seed == seed and one.model != model}
    if others and not again:
        raise CsipError(
            f"{dataset.root}: a test world, on which another model of seed {seed} was scored already; choices belong on the "
            "validation world, and a second look at the test makes it one",
            parameter="second_look",
        )
    if Look(model, seed) not in seen:
        write_json(path, [{"model": one.model, "seed": one.seed} for one in (*seen, Look(model, seed))])
    return len(others) + 1


def _look(tree: dict[str, Any]) -> Look:
    model, seed = tree["model"], tree["seed"]
    if len(tree) != 2 or not isinstance(model, str) or not isinstance(seed, int) or isinstance(seed, bool):
        raise ValueError(f"expected a model and a seed, found {tree!r:.80}")
    return Look(model, seed)
