"""Parts of a whole: made by one process or by many, in shares, merged by one writer."""

import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import h5py
import numpy as np
import pytest

from pose_cache.errors import PoseCacheError
from pose_cache.monitor import Silent
from pose_cache.parts import Part, PartsFolder, Work, joined_rows, write_rows
from pose_cache.pieces import Share, Spread

WHOLE = [n**2 for n in range(12)]


def square(piece: Sequence[int]) -> np.ndarray:
    return np.array(piece, np.int64) ** 2


def squares(pieces: Sequence[Sequence[int]]) -> Iterator[np.ndarray]:
    return map(square, pieces)


def parts_in(folder: Path) -> list[Part[range]]:
    return [Part(folder / f"{start}.npy", range(start, start + 3), 3) for start in range(0, 12, 3)]


class Heard(Silent):
    def __init__(self) -> None:
        self.done: list[int] = []
        self.said: list[str] = []

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        assert task == "squaring"
        self.done.append(done)

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def folder(tmp_path: Path) -> PartsFolder:
    return PartsFolder(tmp_path / "out.shards", tmp_path / "out")


def join(folder: PartsFolder, spread: Spread) -> tuple[list[int] | None, Heard]:
    heard, work = Heard(), Work("squaring", "numbers", squares, square)
    with joined_rows(folder, spread.mine(parts_in(folder.path)), spread, work, heard) as rows:
        return None if rows is None else np.concatenate(list(rows)).tolist(), heard


@pytest.mark.parametrize("spread", [Spread(), Spread(2, "threading")])
def test_parts_join_to_the_whole(folder: PartsFolder, spread: Spread) -> None:
    rows, heard = join(folder, spread)
    assert rows == WHOLE and heard.done == ([] if spread.alone else [3, 6, 9, 12]) and not heard.said
    assert not folder.path.exists()


def test_shares_join_to_the_whole(folder: PartsFolder) -> None:
    with pytest.raises(PoseCacheError, match="12 of 12 numbers are not done; run the rest without shares"):
        join(folder, Spread(merge=True))
    for job in (1, 3, 5):  # there are four pieces
        assert join(folder, Spread(2, "threading", Share(job, 5)))[0] is None
    with pytest.raises(PoseCacheError, match="6 of 12 numbers are not done; run the shares 2/5, 4/5"):
        join(folder, Spread(merge=True))
    rows, heard = join(folder, Spread())
    assert rows == WHOLE and heard.said == ["6 of 12 numbers are kept from before"]
    for job in (2, 1):
        join(folder, Spread(share=Share(job, 2)))
    assert join(folder, Spread(merge=True))[0] == WHOLE and not folder.path.exists()


def test_parts_stay_until_the_whole_is_written(folder: PartsFolder) -> None:
    work = Work("squaring", "numbers", squares, square)
    with pytest.raises(OSError, match="full"), joined_rows(folder, parts_in(folder.path), Spread(), work, Heard()):
        raise OSError("full")
    assert join(folder, Spread(merge=True))[0] == WHOLE


def test_a_part_that_is_cut_or_of_another_length_is_made_again(folder: PartsFolder) -> None:
    for job in (1, 2):
        join(folder, Spread(share=Share(job, 2)))
    parts = parts_in(folder.path)
    parts[0].path.write_bytes(parts[0].path.read_bytes()[:-1])
    parts[1].path.write_bytes(b"")
    np.save(parts[2].path, np.arange(2))
    rows, heard = join(folder, Spread())
    assert rows == WHOLE and heard.said == ["3 of 12 numbers are kept from before"]


def test_the_shares_that_are_missing_are_named(folder: PartsFolder) -> None:
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


def test_rows_are_written_a_part_at_a_time(tmp_path: Path) -> None:
    parts, rows = 24, 4096
    blocks = (np.full((rows, 64), number, np.float32) for number in range(parts))  # a MiB each
    with h5py.File(tmp_path / "out.h5", "w") as file:
        tracemalloc.start()
        write_rows(file, "rows", parts * rows, blocks)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 4 * 2**20
        assert np.array_equal(file["rows"][::rows, 0], np.arange(parts))


@pytest.mark.parametrize("count", [5, 7, 9])
def test_rows_that_are_too_few_or_too_many_are_no_whole(tmp_path: Path, count: int) -> None:
    with h5py.File(tmp_path / "out.h5", "w") as file, pytest.raises(ValueError, match=rf"expected {count} rows"):
        write_rows(file, "rows", count, [np.zeros((3, 2), np.float32)] * 2)
