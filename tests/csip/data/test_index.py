import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from csip.data import folder, index
from csip.data.dataset import Dataset, Tracklet
from csip.data.index import FOLDER, Tree, indexed
from csip.errors import CsipError


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """People in folders, last changed an hour ago."""
    for person in ("ann", "bob", "eve", "zoë"):
        for camera in ("left", "right"):
            (tmp_path / person / camera).mkdir(parents=True)
            for i in range(3):
                (tmp_path / person / camera / f"{i}.jpg").touch()
    (tmp_path / "notes.txt").write_text("mine")
    return tmp_path


@pytest.fixture(autouse=True)
def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock that says whether a change is recent is an hour ahead."""
    monkeypatch.setattr(index.time, "time_ns", lambda now=time.time_ns: now() + 3600 * 10**9)


def counted(root: Path, read=folder._read) -> tuple[Dataset, int]:
    """The data set, and how often its reader ran for it."""
    runs = []

    def noted(tree: Tree) -> Dataset:
        runs.append(tree)
        return read(tree, "people", 0.5, 0)

    return indexed(root, "folder", "people", {}, noted), len(runs)


def test_second_reading_is_from_the_index_and_equal(tree: Path) -> None:
    first, runs = counted(tree)
    assert runs == 1 and len(list((tree / FOLDER).glob("*.npz"))) == 1
    second, runs = counted(tree)
    assert runs == 0
    assert second == first
    assert second.query[0] is second.gallery[0], "one tracklet is one object, as the reader made it"
    assert any("zoë" in t.name for t in (*second.train, *second.query))


CHANGES = {
    "a frame more": lambda r: (r / "ann/left/9.jpg").touch(),
    "a frame less": lambda r: (r / "zoë/right/1.jpg").unlink(),
    "a frame renamed": lambda r: (r / "bob/left/1.jpg").rename(r / "bob/left/7.jpg"),
    "a person more": lambda r: (r / "joe/left").mkdir(parents=True) or (r / "joe/left/0.jpg").touch(),
    "a camera renamed": lambda r: (r / "eve/left").rename(r / "eve/door"),
    "a table": lambda r: (r / "tracklets.csv").write_text(
        "tracklet,person,camera,frame\na,ann,x,ann/left/0.jpg\nb,bob,x,bob/left/0.jpg\n"
    ),
}


@pytest.mark.parametrize("recent", [False, True])
@pytest.mark.parametrize("what", CHANGES)
def test_a_changed_tree_is_read_again(tree: Path, what: str, recent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the clock cannot tell whether the folder changed since."""
    if recent:
        monkeypatch.undo()
    before, _ = counted(tree)
    assert counted(tree)[1] == 0
    CHANGES[what](tree)
    after, runs = counted(tree)
    assert runs == 1 and after != before
    assert counted(tree) == (after, 0)


def test_a_change_within_one_tick_of_the_clock_is_seen(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder's times are as before, as on file systems that count whole seconds."""
    monkeypatch.undo()
    counted(tree)
    status = (tree / "ann/left").stat()
    (tree / "ann/left/9.jpg").touch()
    os.utime(tree / "ann/left", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert counted(tree)[1] == 1


def test_a_file_is_known_by_its_content(tree: Path) -> None:
    def read(tree: Tree, *_: object) -> Dataset:
        name = tree.read("notes.txt", "text").decode()
        return Dataset("people", tree.root, (), (), (Tracklet(name, 1, 1, ("a.jpg",)),))

    assert counted(tree, read)[0].gallery[0].name == "mine"
    status = (tree / "notes.txt").stat()
    (tree / "notes.txt").write_text("your")
    os.utime(tree / "notes.txt", ns=(status.st_atime_ns, status.st_mtime_ns))
    dataset, runs = counted(tree, read)
    assert runs == 1 and dataset.gallery[0].name == "your"
    (tree / "notes.txt").unlink()
    with pytest.raises(CsipError, match=r"notes\.txt: missing; expected text"):
        counted(tree, read)


def test_options_have_an_index_each(tree: Path) -> None:
    one, other = folder.load(tree, seed=0), folder.load(tree, seed=5)
    assert {t.pid for t in one.train} != {t.pid for t in other.train}
    assert folder.load(tree, seed=0) == one and folder.load(tree, seed=5) == other
    assert folder.load(tree, name="mine").name == "mine"


@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: c[: len(c) // 2], lambda c: b"junk" * 50])
def test_a_damaged_index_is_made_anew(tree: Path, damage) -> None:
    first, _ = counted(tree)
    path = next((tree / FOLDER).glob("*.npz"))
    path.write_bytes(damage(path.read_bytes()))
    assert counted(tree) == (first, 1)
    assert counted(tree) == (first, 0)


def test_a_flipped_bit_is_seen(tree: Path) -> None:
    first, _ = counted(tree)
    path = next((tree / FOLDER).glob("*.npz"))
    content = bytearray(path.read_bytes())
    content[content.index(b"0.jpg")] ^= 1
    path.write_bytes(content)
    assert counted(tree) == (first, 1)


def test_no_index_where_nothing_can_be_written(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / FOLDER).write_text("in the way")
    first, runs = counted(tree)
    assert runs == 1 and counted(tree) == (first, 1)
    (tree / FOLDER).unlink()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    assert counted(tree) == (first, 1)
    assert list((tree / FOLDER).iterdir()) == []


def test_what_is_no_data_set_is_left_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(CsipError, match="at least one for training"):
        folder.load(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_linked_frame_and_a_linked_folder(tree: Path) -> None:
    (tree / "joe").symlink_to(tree / "ann", target_is_directory=True)
    (tree / "eve/left/linked.jpg").symlink_to(tree / "ann/left/0.jpg")
    listing = Tree(tree)
    assert "joe" in listing.folders() and listing.folders("joe") == ["left", "right"]
    assert listing.files("eve/left") == ["0.jpg", "1.jpg", "2.jpg", "linked.jpg"]
    assert listing.files("nowhere") == [] and not listing.has_file("eve/left/3.jpg")


def test_reading_an_index_needs_no_torch(tree: Path) -> None:
    """Listing data is quick also because it brings in nothing heavy."""
    code = "import sys; from csip.data import folder, lsvid, ilidsvid, prid2011; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
