"""Parts of a whole: made by one process or by many, in shares, merged by one writer."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from pose_cache.errors import PoseCacheError
from pose_cache.parts import Part, PartsFolder, join_parts, make_parts, missing
from pose_cache.pieces import Share, Spread


def square(piece: Sequence[int]) -> np.ndarray:
    return np.array(piece, np.int64) ** 2


def squares(pieces: Sequence[Sequence[int]]) -> Iterator[np.ndarray]:
    return map(square, pieces)


def parts_in(folder: Path) -> list[Part[range]]:
    return [Part(folder / f"{start}.npy", range(start, start + 3), 3) for start in range(0, 12, 3)]


def make(parts: list[Part[range]], spread: Spread) -> list[tuple[int, int]]:
    heard: list[tuple[int, int]] = []
    make_parts(missing(spread.mine(parts)), spread, squares, square, lambda *progress: heard.append(progress))
    return heard


@pytest.mark.parametrize("spread", [Spread(), Spread(2, "threading")])
def test_parts_join_to_the_whole(tmp_path: Path, spread: Spread) -> None:
    parts = parts_in(tmp_path)
    heard = make(parts, spread)
    assert join_parts(parts).tolist() == [n**2 for n in range(12)]
    assert heard == ([] if spread.alone else [(3, 12), (6, 12), (9, 12), (12, 12)])
    assert make(parts, spread) == []


def test_a_part_that_is_cut_or_of_another_length_is_made_again(tmp_path: Path) -> None:
    parts = parts_in(tmp_path)
    make(parts, Spread())
    parts[0].path.write_bytes(parts[0].path.read_bytes()[:-1])
    parts[1].path.write_bytes(b"")
    np.save(parts[2].path, np.arange(2))
    assert missing(parts) == parts[:3]
    make(parts, Spread())
    assert join_parts(parts).tolist() == [n**2 for n in range(12)]


def test_the_shares_that_are_missing_are_named(tmp_path: Path) -> None:
    folder = PartsFolder(tmp_path / "out.shards", tmp_path / "out")
    with folder.held(None):
        assert str(folder.unfinished("parts are missing")) == "parts are missing; run the rest without shares"
    for job in (3, 1):
        with folder.held(Share(job, 4)):
            with pytest.raises(PoseCacheError, match=f"the share {job}/4 of .*out is being written by process"):
                folder.held(Share(job, 4)).__enter__()
            with pytest.raises(PoseCacheError, match="out is being written by 1 jobs: process"):
                folder.held(None).__enter__()
            with folder.held(Share(2, 4)):
                pass
            folder.finish(Share(job, 4))
    error = folder.unfinished("parts are missing")
    assert (str(error), error.parameter) == ("parts are missing; run the shares 2/4, 4/4", "shard")
    with folder.held(Share(3, 4)):
        assert folder.absent() == [Share(2, 4), Share(3, 4), Share(4, 4)], "a share that is done again is not done"
    folder.remove()
    assert not folder.path.exists()


@pytest.mark.parametrize("options", [{"workers": 0}, {"share": Share(1, 2), "merge": True}])
def test_options_that_contradict_each_other_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(PoseCacheError, match="expected"):
        Spread(**options)  # type: ignore[arg-type]
