"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from pose_cache.files import atomic, write_json, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_file_is_there_when_the_block_ends_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "new/figures.npz"
    with atomic(path) as temporary:
        np.savez(temporary, x=np.arange(3))
        assert not path.exists()
        assert temporary.parent == path.parent, "a rename must not cross file systems"
    assert np.load(path)["x"].tolist() == [0, 1, 2]
    assert names(path.parent) == ["figures.npz"]


@pytest.mark.parametrize("error", [RuntimeError("the model"), KeyboardInterrupt(), OSError("no number")])
def test_what_is_there_stays_when_the_block_raises(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "notes.txt"
    write_text(path, "old")

    def write() -> None:
        with atomic(path) as temporary:
            temporary.write_text("half of it")
            raise error

    with pytest.raises(type(error)):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["notes.txt"]


@pytest.mark.parametrize(
    "met",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("Can't write data (file write failed: errno = 28, error message = 'No space left on device')"),
        RuntimeError("[enforce fail at inline_container.cc] . No space left on device"),
    ],
    ids=["system", "hdf5", "torch"],
)
def test_a_full_disk_is_said_with_the_name_of_the_file(tmp_path: Path, met: Exception) -> None:
    def write() -> None:
        with atomic(tmp_path / "features.h5"):
            raise met

    with pytest.raises(OSError, match="No space left on device") as caught:
        write()
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename == str(tmp_path / "features.h5")


def test_an_error_about_another_file_keeps_its_name(tmp_path: Path) -> None:
    def write() -> None:
        with atomic(tmp_path / "copy"):
            (tmp_path / "source").read_bytes()

    with pytest.raises(FileNotFoundError) as caught:
        write()
    assert caught.value.filename == str(tmp_path / "source")


def test_a_folder_in_the_way_is_an_error_with_its_name(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(OSError, match=r"run/metrics\.json"):
        write_json(tmp_path / "run/metrics.json", {})


def test_the_file_and_its_folder_are_flushed_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[tuple[str, list[str]]] = []
    real = os.fsync

    def fsync(descriptor: int) -> None:
        flushed.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, names(tmp_path)))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "a.txt", "a")
    assert flushed == [(".a.txt.partial.txt", [".a.txt.partial.txt"]), (tmp_path.name, ["a.txt"])]


def test_json_has_no_nan(tmp_path: Path) -> None:
    write_json(tmp_path / "m.json", {"loss": float("nan"), "by": [1.5, float("inf")], "name": "Müller"})
    text = (tmp_path / "m.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"loss": None, "by": [1.5, None], "name": "Müller"}


def test_json_is_unicode_whatever_files_are_called(tmp_path: Path) -> None:
    tree = {"videos": ["ŀ\udcff.mp4", "é"]}
    write_json(tmp_path / "m.json", tree)
    assert json.loads((tmp_path / "m.json").read_text(encoding="utf-8")) == tree


def test_hdf5_files_too(tmp_path: Path) -> None:
    with atomic(tmp_path / "f.h5") as temporary, h5py.File(temporary, "w") as file:
        file["x"] = 1
    with h5py.File(tmp_path / "f.h5") as file:
        assert file["x"][()] == 1
