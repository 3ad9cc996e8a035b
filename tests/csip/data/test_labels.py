import math
from pathlib import Path

import pytest

from csip.config import DatasetSettings
from csip.data import folder
from csip.data.folder import Sighting, read_sightings
from csip.data.labels import check_replaceable, write_labels
from csip.data.readers import load_dataset, load_labelled
from csip.errors import CsipError
from pipelines.advice import advice

UNKNOWN = """tracklet,person,camera,frame,video,track,number,time
a1,,left,v/1.jpg,one.mp4,1,10,0.4
a1,,left,v/2.jpg,one.mp4,1,12,0.5
a2,,right,v/3.jpg,two.mp4,1,3,0.1
b1,,left,v/4.jpg,one.mp4,2,12,0.5
b2,,right,v/5.jpg,two.mp4,2,9,0.4
c1,,left,v/6.jpg,one.mp4,3,90,3.6
"""
LABELS = "tracklet,person\na1,ann\na2,ann\nb1,bob\nb2,bob\n"


def load(root: Path, labels: str | None = None, table: str = UNKNOWN) -> folder.Dataset:
    (root / "tracklets.csv").write_text(table)
    if labels is not None:
        (root / "labels.csv").write_text(labels)
    return folder.load(root)


def test_a_table_of_nobody_is_query_and_gallery(tmp_path: Path) -> None:
    dataset = load(tmp_path)
    assert dataset.train == () and dataset.query == dataset.gallery
    assert [(t.name, t.pid, t.camera) for t in dataset.query] == [
        ("a1", 0, 1), ("a2", 0, 2), ("b1", 0, 1), ("b2", 0, 2), ("c1", 0, 1)
    ]  # fmt: skip
    assert dataset.query[0].frames == ("v/1.jpg", "v/2.jpg")
    settings = DatasetSettings(name="hall", root=tmp_path, gallery="without_queries")
    assert load_dataset(settings).gallery == dataset.gallery, "nothing is taken out where nobody is asked for"
    with pytest.raises(CsipError, match=r"no tracklet has a person, which training needs; .*labels\.csv") as refused:
        load_labelled(settings, "training")
    assert advice(refused.value.parameter).startswith("; `csip cluster`")


def test_labels_fill_the_table_and_the_rest_are_distractors(tmp_path: Path) -> None:
    load(tmp_path)  # the kept index must notice the labels
    dataset = load(tmp_path, LABELS)
    by_name = {t.name: t for t in (*dataset.train, *dataset.gallery)}
    assert {name: t.pid for name, t in by_name.items()} == {"a1": 1, "a2": 1, "b1": 2, "b2": 2, "c1": 0}
    assert {t.pid for t in dataset.train}.isdisjoint({t.pid for t in dataset.query})
    assert "c1" not in {t.name for t in dataset.query} and "c1" in {t.name for t in dataset.gallery}
    assert load_labelled(DatasetSettings(name="folder", root=tmp_path), "training") == dataset
    again = load(tmp_path, LABELS.replace("b2,bob", "b2,eve"))
    assert {t.pid for t in (*again.train, *again.gallery)} == {0, 1, 2, 3}, "an edited file is read anew"


def test_labels_go_before_the_table(tmp_path: Path) -> None:
    table = UNKNOWN.replace("a1,,", "a1,joe,").replace("a2,,", "a2,joe,").replace("b1,,", "b1,bob,")
    dataset = load(tmp_path, "\ufefftracklet,person,confidence\r\na2,bob,0.5\r\n", table)
    assert {t.name: t.pid for t in (*dataset.train, *dataset.gallery)} == {"a1": 2, "a2": 1, "b1": 1, "b2": 0, "c1": 0}


def test_labels_and_parts(tmp_path: Path) -> None:
    head, *lines = UNKNOWN.splitlines()
    parts = ["train", "train", "train", "query", "gallery", "gallery"]
    table = "\n".join([f"{head},part", *(f"{line},{part}" for line, part in zip(lines, parts, strict=True))])
    dataset = load(tmp_path, LABELS, table)
    names = [[t.name for t in part] for part in (dataset.train, dataset.query, dataset.gallery)]
    assert names == [["a1", "a2"], ["b1"], ["b2", "c1"]]
    with pytest.raises(CsipError, match=r"tracklets\.csv: line 5 has no person, but part query"):
        load(tmp_path, LABELS.replace("b1,bob\n", ""), table)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (LABELS + "d9,eve\n", r"labels\.csv: line 6 is about tracklet d9, which tracklets\.csv does not have"),
        (LABELS.replace("b1,bob", "b1, "), "line 4 has no person for tracklet b1"),
        (LABELS.replace("b1,bob", "b1"), "line 4 has no person for tracklet b1"),
        (LABELS.replace("b1,bob", ",bob"), "line 4 has no tracklet"),
        (LABELS + "a2,bob\n", "lines 3 and 6 are both about tracklet a2"),
        ("name,person\na1,ann\n", "no column tracklet; found name, person"),
        ("", "no column tracklet, person; found nothing"),
        ("tracklet,person\na1,ann\na2,ann\n", "tracklets.csv and labels.csv name one person alone, ann; at least one"),
    ],
)
def test_labels_that_cannot_be_used(tmp_path: Path, labels: str, words: str) -> None:
    with pytest.raises(CsipError, match=words):
        load(tmp_path, labels)


def test_labels_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CsipError, match=r"labels\.csv: not UTF-8"):
        load(tmp_path)


def test_sightings(tmp_path: Path) -> None:
    assert read_sightings(tmp_path) == {}
    load(tmp_path)
    sightings = read_sightings(tmp_path)
    assert sightings["a1"] == Sighting("left", ("left", "one.mp4"), 10, 12)
    assert sightings["b2"] == Sighting("right", ("right", "two.mp4"), 9, 9)
    assert sightings["b2"].step == 0 < sightings["a1"].step <= 2, "from a frame to the next"
    assert sightings["a1"].second == pytest.approx(20) and math.isnan(sightings["b2"].second)
    head = UNKNOWN.splitlines()[0]
    lines = [line.split(",") for line in UNKNOWN.splitlines()[1:]]
    (tmp_path / "tracklets.csv").write_text("\n".join([head, *(",".join([*x[:6], "", x[7]]) for x in lines)]), "utf-8")
    assert read_sightings(tmp_path)["a1"] == Sighting("left", ("left", "one.mp4"), 0.4, 0.5), "seconds, without numbers"
    assert read_sightings(tmp_path)["a1"].second == pytest.approx(1)
    without = [line.rpartition(",")[0] + "," for line in UNKNOWN.splitlines()[1:]]
    (tmp_path / "tracklets.csv").write_text("\n".join([head, *without]), "utf-8")
    assert math.isnan(read_sightings(tmp_path)["a1"].second), "numbers alone"
    (tmp_path / "tracklets.csv").write_text("tracklet,person,camera,frame\na1,,left,v/1.jpg\n")
    assert read_sightings(tmp_path) == {"a1": Sighting("left", ("left", ""), None, None)}
    (tmp_path / "tracklets.csv").write_text(UNKNOWN.replace(",12,", ",x,", 1))
    with pytest.raises(CsipError, match=r"line 3 has number x; expected a number"):
        read_sightings(tmp_path)


def test_a_proposal_is_replaced_but_not_what_a_person_wrote(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    write_labels(path, [("a1", "1", 0.5), ('odd, "name"', "2", 1)])
    assert path.read_text() == 'tracklet,person,confidence\na1,1,0.500\n"odd, ""name""",2,1.000\n'
    write_labels(path, [("a1", "2", 0.5)])
    assert "a1,2" in path.read_text()
    path.write_text("tracklet,person\na1,ann\n")
    with pytest.raises(CsipError, match=r"labels\.csv: somebody has changed .* force its replacement") as refused:
        write_labels(path, [("a1", "3", 0.5)])
    assert refused.value.parameter == "force"
    assert "ann" in path.read_text()
    write_labels(path, [("a1", "3", 0.5)], force=True)
    check_replaceable(path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".labels.csv.sha256", "labels.csv"]
