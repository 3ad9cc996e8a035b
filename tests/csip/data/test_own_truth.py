"""An index that disagrees with its files is refused, and checks and scores count the same queries."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from csip.config import Settings
from csip.data import health, kgbd, mars
from csip.data.dataset import DISTRACTOR, JUNK, Dataset, Tracklet
from csip.data.health import Finding
from csip.data.index import Tree
from csip.data.lsvid import _tracklets
from csip.data.matching import Matching
from csip.data.sequences import from_sensor
from csip.errors import CsipError
from csip.monitor import Silent
from csip.retrieval.metrics import rank


class Mars:
    """A data set in MARS's layout: per tracklet identity, camera, the tracklet's number, and two frames."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.test = [(pid, camera, 1) for pid in (1, 2) for camera in (1, 2)] + [(0, 1, 1), (-1, 1, 1)]
        self.query = [1, 2, 3, 4]
        self.said: dict[int, int] = {}

    def name(self, pid: int, camera: int, number: int, frame: int) -> str:
        return f"{'00-1' if pid == JUNK else f'{pid:04d}'}C{camera}T{number:04d}F{frame:03d}.jpg"

    def write(self) -> Path:
        (self.root / "info").mkdir(exist_ok=True)
        for part, tracklets in (("train", [(3, 1, 1), (3, 2, 1)]), ("test", self.test)):
            names = [self.name(*tracklet, frame) for tracklet in tracklets for frame in (1, 2)]
            for name in names:
                place = self.root / f"bbox_{part}" / name[:4]
                place.mkdir(parents=True, exist_ok=True)
                (place / name).touch()
            (self.root / f"info/{part}_name.txt").write_text("\n".join(names))
            rows = [[2 * n + 1, 2 * n + 2, pid, camera] for n, (pid, camera, _) in enumerate(tracklets)]
            if part == "test":
                for row, pid in self.said.items():
                    rows[row][2] = pid
            scipy.io.savemat(self.root / f"info/tracks_{part}_info.mat", {f"track_{part}_info": np.array(rows, float)})
        scipy.io.savemat(self.root / "info/query_IDX.mat", {"query_IDX": np.array([self.query], float)})
        return self.root

    def checked(self) -> dict[str, Finding]:
        dataset = {"name": "own", "layout": "mars", "root": self.write()}
        settings = Settings.model_validate({"dataset": dataset})
        return {f.what: f for f in health.inspect(settings, self.root / "none.h5", 0, Silent())}


@pytest.fixture
def layout(tmp_path: Path) -> Mars:
    return Mars(tmp_path)


def test_a_right_index_is_read(layout: Mars) -> None:
    dataset = mars.load(layout.write())
    assert [t.pid for t in dataset.gallery] == [1, 1, 2, 2, 0] and len(dataset.query) == 4
    assert not any(finding.fix for finding in layout.checked().values())


def test_an_identity_in_the_index_that_is_not_the_names_is_refused(layout: Mars) -> None:
    for row, pid in ((1, 2), (4, 7), (5, 0), (0, -1)):
        layout.said = {row: pid}
        with pytest.raises(CsipError, match=rf"row {row + 1} is identity {pid}, but holds .* by its name"):
            mars.load(layout.write())
    assert "by its name" in layout.checked()["index"].text


def test_a_camera_of_the_index_is_the_whole_number_of_the_name(layout: Mars) -> None:
    layout.test = [(pid, camera, 1) for pid in (1, 2) for camera in (1, 12)]
    assert [t.camera for t in mars.load(layout.write()).gallery] == [1, 12, 1, 12]
    info = layout.root / "info/tracks_test_info.mat"
    rows = scipy.io.loadmat(info)["track_test_info"]
    rows[1, 3] = 1  # which C12 begins with
    scipy.io.savemat(info, {"track_test_info": rows})
    with pytest.raises(CsipError, match=r"row 2 is identity 1 at camera 1, but holds 0001C12T0001"):
        mars.load(layout.root)


def test_a_list_of_names_may_begin_with_a_byte_order_mark(layout: Mars) -> None:
    listed = layout.write() / "info/test_name.txt"
    listed.write_bytes(b"\xef\xbb\xbf" + listed.read_bytes())
    assert [t.pid for t in mars.load(layout.root).gallery] == [1, 1, 2, 2, 0]


def test_a_list_of_queries_that_counts_from_0_is_recognised(layout: Mars) -> None:
    layout.test = [(0, 1, 1), *layout.test[:4], (-1, 1, 1)]
    layout.query = [1, 2, 3, 4]  # of 0 to 5: from 1 it should be 2 to 5
    with pytest.raises(CsipError, match=r"query_IDX\.mat: its rows seem to count from 0"):
        mars.load(layout.write())
    assert "count from 0" in layout.checked()["index"].text
    layout.query = [2, 3, 4, 5]
    assert len(mars.load(layout.write()).query) == 4
    layout.query = [0, 1, 2, 3]
    with pytest.raises(CsipError, match="rows 0 to 3"):
        mars.load(layout.write())


def test_several_tracklets_a_camera_tell_a_list_from_0_too(layout: Mars) -> None:
    layout.test = [(pid, camera, number) for pid in (1, 2) for camera in (1, 2) for number in (1, 2)]
    layout.query = [1, 3, 5, 7]
    assert len(mars.load(layout.write()).query) == 4
    layout.test.insert(2, (1, 1, 3))  # now the first tracklets are 1, 4, 6, 8: from 0 they are 0, 3, 5, 7
    layout.query = [3, 2, 5, 7]
    with pytest.raises(CsipError, match="count from 0"):
        mars.load(layout.write())


@pytest.mark.parametrize(("row", "what"), [(5, "0000"), (6, "00-1")])
def test_distractors_and_junk_cannot_ask(layout: Mars, row: int, what: str) -> None:
    layout.query = [1, 2, row]
    with pytest.raises(CsipError, match=rf"1 of 3 queries are of nobody .*row {row}, test/{what}"):
        mars.load(layout.write())
    assert "of nobody" in layout.checked()["index"].text


def test_frames_of_several_tracklets_in_one_are_named_by_the_doctor(layout: Mars) -> None:
    layout.write()
    names = (layout.root / "info/test_name.txt").read_text().replace("0001C1T0001F002", "0001C1T0002F002")
    (layout.root / "info/test_name.txt").write_text(names)
    settings = Settings.model_validate({"dataset": {"name": "own", "layout": "mars", "root": layout.root}})
    found = {f.what: f for f in health.inspect(settings, layout.root / "none.h5", 0, Silent())}
    assert "1 tracklets hold frames of several tracklets" in found["tracklets"].text and found["tracklets"].fix


def test_a_frame_in_two_tracklets_is_named_by_the_doctor(tmp_path: Path) -> None:
    one, other = Tracklet("a", 1, 1, ("1.jpg", "2.jpg")), Tracklet("b", 2, 1, ("2.jpg",))
    settings = Settings.model_validate({"dataset": {"name": "own", "layout": "lsvid", "root": tmp_path}})
    (finding,) = health._layout(settings, [one, other])
    assert "1 frames are in two tracklets, e.g. 2.jpg in a and b" in finding.text and finding.fix
    assert not health._layout(settings, [one, Tracklet("b", 2, 1, ("3.jpg",))])


def test_one_name_under_two_identities_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "tracklet_train/0000"
    place.mkdir(parents=True)
    for number in (1, 2):
        (place / f"0000_000{number}_07_000001.jpg").touch()
    (tmp_path / "list_sequence").mkdir()
    listed = tmp_path / "list_sequence/list_seq_train.txt"
    listed.write_text("tracklet_train/0000/0000_0001 0\ntracklet_train/0000/0000_0002 1\n")
    with pytest.raises(CsipError, match=r"line 2 gives 0000_0002.* the identity 1, line 1"):
        _tracklets(Tree(tmp_path), "train")


def test_queries_without_an_identity_are_refused_where_others_have_one() -> None:
    known, nobody = Tracklet("a", 1, 1, ("1.jpg",)), Tracklet("b", DISTRACTOR, 2, ("2.jpg",))
    with pytest.raises(CsipError, match="1 queries have no identity"):
        Dataset("x", Path("x"), (known,), (known, nobody), (known, nobody))
    assert Dataset("x", Path("x"), (), (nobody,), (nobody,)).query == (nobody,)


def test_checks_and_scores_count_the_same_queries() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        query_ids, gallery_ids = rng.integers(-1, 6, 30), rng.integers(-1, 8, 20)
        query_cameras, gallery_cameras = rng.integers(1, 3, 30), rng.integers(1, 3, 20)
        labels = query_ids, query_cameras, gallery_ids, gallery_cameras
        scores = rank(rng.normal(size=(30, 4)), *labels[:2], rng.normal(size=(20, 4)), *labels[2:])
        np.testing.assert_array_equal(Matching(*labels).valid(), scores.valid)
        assert not scores.valid[query_ids == JUNK].any()
    parts = [
        tuple(Tracklet(f"{part}{n}", int(pid), int(camera), ("x",)) for n, (pid, camera) in enumerate(zip(*both, strict=True)))
        for part, both in (("q", labels[:2]), ("g", labels[2:]))
    ]  # fmt: skip
    asked = tuple(t for t in parts[0] if t.pid > 0)
    dataset = Dataset("x", Path("x"), (), asked, parts[1])
    counted = health._counts(dataset, Settings.model_validate({"dataset": {"name": "own"}})).text
    assert f"{int(scores.valid[query_ids > 0].sum())} queries with a match" in counted


# ---- skeletons alone -------------------------------------------------------------------------------------------------


def walk_text(scale: float = 1.0) -> str:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 1, (3, 20, 3)) * [0.5, 1.7, 0.3] * scale
    return "\n".join(
        f"{joint};{x};{y};{z}" for frame in points for joint, (x, y, z) in zip(kgbd.FILE_ORDER, frame, strict=True)
    )


@pytest.mark.parametrize("person", ["Person002", "person002", "PERSON2", "person_2"])
def test_a_folder_of_walks_is_read_however_it_is_written(tmp_path: Path, person: str) -> None:
    for name in ("Person001", person):
        (tmp_path / name).mkdir()
        for number in (1, 2, 3):
            (tmp_path / name / f"{number}.TXT").write_bytes(
                b"\xef\xbb\xbf" + walk_text().replace("\n", "\r\n").encode()
            )
    assert {s.pid for s in kgbd.load(tmp_path, 0).train} == {1, 2}


def test_walks_in_a_folder_of_another_name_are_not_dropped(tmp_path: Path) -> None:
    for name in ("Person001", "Walker002"):
        (tmp_path / name).mkdir()
        for number in (1, 2, 3):
            (tmp_path / name / f"{number}.txt").write_text(walk_text())
    with pytest.raises(CsipError, match=r"Walker002: expected a folder named PersonNNN"):
        kgbd.load(tmp_path, 0)


@pytest.mark.parametrize(("scale", "unit"), [(1000, "millimetres"), (100, "centimetres"), (10, "decimetres")])
def test_bodies_that_are_not_in_metres_are_refused(tmp_path: Path, scale: float, unit: str) -> None:
    (tmp_path / "Person001").mkdir()
    for number in (1, 2, 3):
        (tmp_path / f"Person001/{number}.txt").write_text(walk_text(scale))
    with pytest.raises(
        CsipError, match=rf"Person001/1\.txt: a body is .* look like {unit}: divide all coordinates by {scale}"
    ):
        kgbd.load(tmp_path, 0)
    settings = Settings.model_validate({"dataset": {"name": "own", "layout": "kgbd", "root": tmp_path}})
    (finding,) = health.inspect(settings, tmp_path / "none", None, Silent())
    assert unit in finding.text and finding.fix


def test_bodies_that_are_far_too_small_are_refused(tmp_path: Path) -> None:
    (tmp_path / "Person001").mkdir()
    (tmp_path / "Person001/1.txt").write_text(walk_text(1e-3))
    with pytest.raises(
        CsipError, match=r"Person001/1\.txt: a body is [\d.e-]+ units from end to end, expected about 2 metres"
    ):
        kgbd.load(tmp_path, 0)


def test_numbers_that_float32_does_not_hold_are_refused() -> None:
    joints = np.ones((2, 20, 3))
    joints[1, 3, 1] = 1e300
    with pytest.raises(CsipError, match="1 of 2 frames have coordinates that are not finite"):
        from_sensor(joints, 20, "x")
