"""Damage to files, by the hundred: what it does to a file, and what a reader of it may do."""

from __future__ import annotations

import copy
import json
import math
import os
import resource
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pose_cache.errors import UserError

# The gate tries some of each format; the nightly run sets the variable to thousands.
INPUTS = int(os.environ.get("CSIP_FUZZ_INPUTS", "100"))
SECONDS = 5.0
BYTES = 2**30
_EXTREMES = (
    b"\xff" * 8,
    b"\x00" * 8,
    b"\x7f" + b"\xff" * 7,
    (10**9).to_bytes(8, "little"),
    b"\xff\xff\xff\x7f",
    b"-1",
    b"9" * 20,
)
# What a place in a JSON tree may hold instead of what belongs there.
_STRANGERS: tuple[Any, ...] = (
    None, True, 0, -1, 3.7, 10**30, 1e308, math.nan, math.inf, "", "x", "1", "../../x", "\x1b[2J", "\ud800", [], {}, [[]],
    [1, "a"], {"id": 1},
)  # fmt: skip
DEEP = "[" * 100_000


def damaged(data: bytes, count: int = INPUTS, seed: int = 0) -> Iterator[bytes]:
    """Yield a file's bytes with some flipped, cut, grown, zeroed, repeated, or replaced by extreme numbers; and empty."""
    rng = np.random.default_rng(seed)
    yield b""
    for _ in range(count - 1):
        changed = bytearray(data)
        for _ in range(int(rng.integers(1, 4))):
            # Headers are where the trouble is: half of the places are near the beginning.
            reach = len(changed) if rng.random() < 0.5 else min(len(changed), 4096)
            at, size = int(rng.integers(reach + 1)), int(rng.integers(1, 64))
            match int(rng.integers(7)):
                case 0:
                    for place in rng.integers(0, max(reach, 1), 4):
                        if place < len(changed):
                            changed[place] ^= 1 << int(rng.integers(8))
                case 1:
                    del changed[at:]
                case 2:
                    del changed[at : at + size]
                case 3:
                    changed[at:at] = rng.integers(0, 256, size, dtype=np.uint8).tobytes()
                case 4:
                    changed[at : at + size] = bytes(len(changed[at : at + size]))
                case 5:
                    changed[at:at] = changed[at : at + size]
                case 6:
                    extreme = _EXTREMES[int(rng.integers(len(_EXTREMES)))]
                    changed[at : at + len(extreme)] = extreme
        yield bytes(changed)


def damaged_json(tree: Any, count: int = INPUTS, seed: int = 0) -> Iterator[bytes]:
    """Yield a JSON text with one to three of its values replaced, taken out or put in twice; every other one is `damaged`."""
    rng = np.random.default_rng(seed)
    whole = json.dumps(tree).encode()
    yield DEEP.encode()
    for number, cut in enumerate(damaged(whole, count - 1, seed)):
        if number % 2:
            yield cut
            continue
        changed = copy.deepcopy(tree)
        for _ in range(int(rng.integers(1, 4))):
            places = list(_places(changed))
            if not places:
                break
            holder, key = places[int(rng.integers(len(places)))]
            match int(rng.integers(4)):
                case 0:
                    del holder[key]
                case 1 if isinstance(holder, list):
                    holder.insert(key, copy.deepcopy(holder[key]))
                case _:
                    holder[key] = copy.deepcopy(_STRANGERS[int(rng.integers(len(_STRANGERS)))])
        yield json.dumps(changed).encode()


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the places of all values: what holds it, and its key or number there."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in list(items):
        yield tree, key
        yield from _places(value)


def survives(
    path: Path,
    data: bytes,
    read: Callable[[], object],
    is_right: Callable[[object], bool],
    inputs: Iterable[bytes] | None = None,
) -> int:
    """Write damaged files to `path` and read each: a right answer or an error that its user can mend.

    Time and memory are bounded: `SECONDS` of the processor for each, and `BYTES` for all.

    Parameters
    ----------
    path, data
        The file and its right content.
    read
        Reads it.
    is_right
        Whether what was read from a damaged file may be said of it.
    inputs
        The damaged contents; `damaged` by default.

    Returns
    -------
    int
        How many were refused.
    """
    refused, before = 0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number, changed in enumerate(damaged(data) if inputs is None else inputs):
        path.write_bytes(changed)
        started = time.process_time()
        try:
            answer = read()
        except UserError as error:
            assert str(error).strip(), number
            refused += 1
        else:
            assert changed == data or is_right(answer), f"input {number} was taken for another file: {answer!r:.300}"
        assert time.process_time() - started < SECONDS, f"input {number} took too long"
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        assert grown < BYTES, f"input {number} took {grown / 2**20:.0f} MiB"
    return refused
