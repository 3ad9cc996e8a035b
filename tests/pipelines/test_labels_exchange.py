"""Labels go out in every format and come back as they were; what a tool changes is taken over, what is damaged is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from review_data import Hall, make_hall

from csip.data import folder, mars
from csip.errors import CsipError
from csip.files import write_text
from csip.review.interchange import coco, cvat, fiftyone, mot
from csip.review.interchange.tracks import LabelledTrack, first_frames
from csip.video.boxes import Shown, read_boxes
from csip.video.geometry import Geometry
from pipelines import exchange_labels as stage
from pipelines import paths, review_tracklets, split_dataset
from pipelines.exchange_labels import Format

FORMATS: tuple[Format, ...] = ("mot", "coco", "cvat", "fiftyone", "mars")
NAMES = ("Zoë & <Max>", "7", '"Ünal, A."', "p 10", "p 9")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Hall:
    """A data set with videos, whose labels are true."""
    hall = make_hall(tmp_path_factory.mktemp("exchange"))
    (hall.root.parent / "videos").mkdir()
    for camera in ("cam1", "cam2"):
        video = cv2.VideoWriter(
            str(hall.root.parent / f"videos/{camera}.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 5, (128, 64)
        )
        for shade in (40, 90):
            video.write(np.full((64, 128, 3), shade, np.uint8))
        video.release()
    return hall


@pytest.fixture
def hall(made: Hall, tmp_path: Path) -> Hall:
    root = tmp_path / "data/hall"
    shutil.copytree(made.root, root)
    shutil.copytree(made.root.parent / "videos", tmp_path / "data/videos")
    label(root, {name: NAMES[person] for name, person in made.people.items()})
    return Hall(root, made.run, made.people, paths.settings_for("hall", None, root, []))


def label(root: Path, people: dict[str, str]) -> None:
    from csip.data.csv_table import format_rows

    write_text(root / "labels.csv", format_rows([("tracklet", "person"), *people.items()]))


def export(hall: Hall, form: Format, out: Path) -> Path:
    settings = hall.settings
    if form == "mars":
        split_dataset.run(settings)
        settings = paths.settings_for("hall-split", None, hall.root.with_name("hall-split"), [])
    stage.export_labels(settings, form, out, hall.root.parent / "videos")
    return out


def take(hall: Hall, form: Format, source: Path, force: bool = True) -> stage.Matched:
    return stage.import_labels(hall.settings, form, source, hall.root.parent / "videos", force)


@pytest.mark.parametrize("form", FORMATS)
def test_there_and_back(hall: Hall, tmp_path: Path, form: Format) -> None:
    before = folder.read_people(hall.root)
    nobody = list(before)[3]
    label(hall.root, {name: person for name, person in before.items() if name != nobody})
    before = folder.read_people(hall.root)
    out = export(hall, form, tmp_path / "out")
    with pytest.raises(CsipError, match="expected a new or an empty folder"):
        stage.export_labels(hall.settings, form, out)
    (hall.root / "labels.csv").unlink()
    matched = take(hall, form, out)
    assert folder.read_people(hall.root) == before
    assert (matched.unknown, matched.missing, matched.mixed) == ((nobody,), (), ())
    assert not list(tmp_path.glob("**/*.partial"))


def edit_text(pattern: str, old: str, new: str) -> Callable[[Path], None]:
    def edit(out: Path) -> None:
        for path in sorted(out.glob(pattern)):
            text = path.read_text()
            write_text(path, re.sub(old, new, text))

    return edit


def renumber_cvat(out: Path) -> None:
    """What CVAT does with a track that somebody has given another person: new numbers, and no attribute of ours but that."""
    for path in out.glob("*.xml"):
        text = re.sub(r' *<attribute name="tracklet">.*\n', "", path.read_text())
        text = re.sub(r'track id="(\d+)"', lambda found: f'track id="{900 - int(found[1])}"', text)
        write_text(path, text.replace(">p 9<", ">p 10<"))


def move_mars(out: Path) -> None:
    """Give all pictures of one number to another, by the names of folders and files, as MARS means it."""
    numbers = {
        line.split(",")[1]: int(line.split(",")[0]) for line in (out / "people.csv").read_text().splitlines()[1:]
    }
    old, new = (f"{numbers[name]:04d}" for name in ("p 9", "p 10"))
    for part in ("train", "test"):
        for path in sorted((out / f"bbox_{part}" / old).glob("*.jpg")):
            (out / f"bbox_{part}" / new).mkdir(exist_ok=True)
            path.rename(out / f"bbox_{part}" / new / path.name.replace(f"{old}C", f"{new}C").replace("T00", "T01"))
        lists = out / f"info/{part}_name.txt"
        write_text(lists, re.sub(rf"^{old}(C\dT)00", rf"{new}\g<1>01", lists.read_text(), flags=re.MULTILINE))
        info = out / f"info/tracks_{part}_info.mat"
        from scipy.io import loadmat, savemat

        table = loadmat(info)[f"track_{part}_info"]
        table[:, 2][table[:, 2] == int(old)] = int(new)
        savemat(info, {f"track_{part}_info": table})


EDITS: dict[Format, Callable[[Path], None]] = {
    "mot": edit_text("people.csv", "p 9", "p 10"),
    "coco": edit_text("annotations.json", "p 9", "p 10"),
    "cvat": renumber_cvat,
    "fiftyone": edit_text("labels/*.json", "p 9", "p 10"),
    "mars": move_mars,
}


@pytest.mark.parametrize("form", FORMATS)
def test_what_a_tool_changes_is_taken_over(hall: Hall, tmp_path: Path, form: Format) -> None:
    out = export(hall, form, tmp_path / "out")
    EDITS[form](out)
    before = folder.read_people(hall.root)
    with pytest.raises(CsipError, match=r"somebody has edited it, and 4 tracklets would change"):
        take(hall, form, out, force=False)
    assert folder.read_people(hall.root) == before
    take(hall, form, out)
    assert folder.read_people(hall.root) == {n: "p 10" if person == "p 9" else person for n, person in before.items()}
    opened = review_tracklets.open_data(hall.settings, hall.source)
    titles, people = opened.review.titles(), opened.review.grouping.people
    assert {titles[people[row]] for row in range(len(people))} == set(NAMES) - {"p 9"}, "and the review goes on from it"


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "cut off": lambda content: content[: len(content) // 2 - 3],
    "empty": lambda content: b"",
    "no text": lambda content: bytes(range(256)) * 8,
    "a number is a word": lambda content: re.sub(rb"\d+\.\d+|(?<=,)5(?=,)", b"many", content),
}
MAIN: dict[Format, str] = {
    "mot": "cam1/gt/gt.txt", "coco": "annotations.json", "cvat": "cam1.xml", "fiftyone": "labels/cam1.json",
    "mars": "info/tracks_train_info.mat",
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("form", FORMATS)
def test_damaged_files_are_refused(hall: Hall, tmp_path: Path, form: Format, damage: str) -> None:
    path = export(hall, form, tmp_path / "out") / MAIN[form]
    content = path.read_bytes()
    broken = DAMAGE[damage](content)
    if broken == content:
        pytest.skip("it has no such number")
    if (form, damage) == ("mot", "cut off"):
        broken = content[: content.rfind(b",1,1,1") - 1].rpartition(b",")[0]  # a line without a height
    path.write_bytes(broken)
    before = (hall.root / "labels.csv").read_bytes()
    if (form, damage) == ("mot", "empty"):  # nobody was seen at that camera
        assert len(take(hall, form, tmp_path / "out").missing) == len(hall.people) // 2
        return
    with pytest.raises(CsipError, match=re.escape(path.name)):
        take(hall, form, tmp_path / "out")
    assert (hall.root / "labels.csv").read_bytes() == before


@pytest.mark.parametrize("form", FORMATS)
def test_another_format_and_another_data_set_are_refused(hall: Hall, tmp_path: Path, form: Format) -> None:
    other: Format = "coco" if form == "mot" else "mot"
    with pytest.raises(CsipError):
        take(hall, form, export(hall, other, tmp_path / "other"))
    with pytest.raises(CsipError, match="no such file"):
        take(hall, form, tmp_path / "nowhere")
    stranger = make_hall(tmp_path / "stranger", people=3, seed=9)
    label(stranger.root, {name: str(person) for name, person in stranger.people.items()})
    table = stranger.root / "tracklets.csv"
    write_text(table, table.read_text().replace(",5,12,30", ",500,12,30"))
    shutil.copytree(hall.root.parent / "videos", stranger.root.parent / "videos")
    with pytest.raises(CsipError, match="is it of this data set"):
        take(hall, form, export(stranger, form, tmp_path / "strange"))
    assert folder.read_people(hall.root) == {name: NAMES[person] for name, person in hall.people.items()}


def test_a_hostile_xml_is_refused(hall: Hall, tmp_path: Path) -> None:
    path = export(hall, "cvat", tmp_path / "out") / "cam1.xml"
    text = path.read_text()
    bomb = '<!DOCTYPE a [<!ENTITY b "bbbb"><!ENTITY c "&b;&b;">]>'
    write_text(path, text.replace("<annotations>", f"{bomb}<annotations>").replace(">p 9<", ">&c;<"))
    with pytest.raises(CsipError, match=r"cam1\.xml.*entities"):
        take(hall, "cvat", tmp_path / "out")
    label(hall.root, dict.fromkeys(hall.people, "bell\x07"))
    with pytest.raises(CsipError, match="a character that XML cannot"):
        export(hall, "cvat", tmp_path / "bell")
    assert not (tmp_path / "bell").exists()


def test_tracks_that_were_cut_joined_and_deleted(hall: Hall, tmp_path: Path) -> None:
    """Boxes decide: of a tracklet that two people share, and of one that was deleted, nobody knows."""
    out = export(hall, "mot", tmp_path / "out")
    path = out / "cam1/gt/gt.txt"
    lines = [line.split(",") for line in path.read_text().splitlines()]
    first, second, third = sorted({line[1] for line in lines})[:3]
    kept = []
    for line in lines:
        frame, number = int(line[0]), line[1]
        early = frame < 13  # everybody passes twice
        if number == first and early and frame % 3 == 0:
            line = [line[0], "77", *line[2:]]  # a new track takes over for some frames
        if number == second and early:
            continue
        if number == third and not early:
            line = [line[0], "78", *line[2:]]
        kept.append(",".join(line))
    write_text(path, "".join(f"{line}\n" for line in kept))
    before = folder.read_people(hall.root)
    matched = take(hall, "mot", out)
    after = folder.read_people(hall.root)
    assert len(matched.mixed) == len(matched.missing) == 1
    assert not {*matched.mixed, *matched.missing} & after.keys()
    changed = {name for name in after if after[name] != before[name]}
    assert {after[name] for name in changed} == {"78"}, "a number without a name is a person of that number"
    assert len(changed) == 1 and changed < {name for name in before if name.startswith("cam1/")}


def test_videos_without_a_file_keep_their_people(hall: Hall, tmp_path: Path) -> None:
    out = export(hall, "cvat", tmp_path / "out")
    renumber_cvat(out)
    (out / "cam2.xml").unlink()
    take(hall, "cvat", out)
    after = folder.read_people(hall.root)
    assert {after[name] for name in after if name.startswith("cam2/")} == set(NAMES)
    assert {after[name] for name in after if name.startswith("cam1/")} == set(NAMES) - {"p 9"}
    label(hall.root, {name: NAMES[person] for name, person in hall.people.items()})
    take(hall, "cvat", out / "cam1.xml")  # alone, as CVAT gives it
    assert folder.read_people(hall.root) == after


def test_tracklets_that_were_left_out_are_not_exported(hall: Hall, tmp_path: Path) -> None:
    opened = review_tracklets.open_data(hall.settings, hall.source)
    junk = next(iter(hall.people))
    opened.review.mark([junk], "junk")
    tree = json.loads((export(hall, "coco", tmp_path / "out") / "annotations.json").read_text())
    exported = {one["attributes"]["tracklet"] for one in tree["annotations"]}
    assert exported == hall.people.keys() - {junk}


# ---- what other programs expect ---------------------------------------------------------------------------------------


def test_motchallenge_has_ids_over_all_cameras(hall: Hall, tmp_path: Path) -> None:
    out = export(hall, "mot", tmp_path / "out")
    given = {camera: read_boxes(out / camera / "gt/gt.txt") for camera in ("cam1", "cam2")}
    assert all("MOTChallenge truth" in one.reading and one.tracked for one in given.values())
    assert set(given["cam1"].tracks.tolist()) == set(given["cam2"].tracks.tolist()) == {1, 2, 3, 4, 5}
    frames, numbers = given["cam1"].frames, given["cam1"].tracks
    assert len(set(zip(frames.tolist(), numbers.tolist(), strict=True))) == len(frames)


def test_coco_names_sizes_tracks_and_videos(hall: Hall, tmp_path: Path) -> None:
    tree = json.loads((export(hall, "coco", tmp_path / "out") / "annotations.json").read_text())
    assert [video["name"] for video in tree["videos"]] == ["cam1.mp4", "cam2.mp4"]
    assert {(image["width"], image["height"]) for image in tree["images"]} == {(128, 64)}
    assert len({image["id"] for image in tree["images"]}) == len(tree["images"])
    video = Shown(Geometry((128, 64)), name="cam2.mp4")
    given = read_boxes(tmp_path / "out/annotations.json", video=video)  # as `csip ingest` reads boxes
    assert "COCO" in given.reading and given.tracked


@pytest.mark.parametrize("start", [0, 1])
def test_frames_count_as_each_format_does(hall: Hall, tmp_path: Path, start: int) -> None:
    """`csip ingest` counts from 1; the pictures of a folder may count from 0."""
    table = hall.root / "tracklets.csv"
    shifted = re.sub(r"(\.mp4,)(\d+)", lambda found: f"{found[1]}{int(found[2]) + start}", table.read_text())
    write_text(table, shifted)
    for form in ("mot", "coco", "cvat", "fiftyone"):
        out = export(hall, form, tmp_path / form)
        assert not take(hall, form, out).missing
        text = (out / MAIN[form]).read_text()
        if form == "mot":
            assert min(int(line.split(",")[0]) for line in text.splitlines()) == start
        if form == "cvat":
            assert min(map(int, re.findall(r' frame="(\d+)"', text))) == 0
        if form == "fiftyone":
            assert min(map(int, json.loads(text)["frames"])) == 1


def test_cvat_tracks_end_where_the_person_leaves(hall: Hall, tmp_path: Path) -> None:
    from xml.etree import ElementTree

    root = ElementTree.parse(export(hall, "cvat", tmp_path / "out") / "cam1.xml").getroot()
    assert root.findtext("version") == "1.1" and root.findtext("meta/task/mode") == "interpolation"
    assert [one.text for one in root.findall("meta/task/labels/label/name")] == ["person"]
    tracks = root.findall("track")
    assert len(tracks) == len(hall.people) // 2
    for track in tracks:
        boxes = track.findall("box")
        assert [box.get("outside") for box in boxes] == ["0"] * (len(boxes) - 1) + ["1"]
        assert int(boxes[-1].get("frame", "")) == int(boxes[-2].get("frame", "")) + 1


def test_fiftyone_finds_videos_and_labels(hall: Hall, tmp_path: Path) -> None:
    out = export(hall, "fiftyone", tmp_path / "out")
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["type"] == "eta.core.datasets.LabeledVideoDataset"
    for entry in manifest["index"]:
        assert (out / entry["data"]).read_bytes() == (
            hall.root.parent / "videos" / Path(entry["data"]).name
        ).read_bytes()
        labels = json.loads((out / entry["labels"]).read_text())
        for number, frame in labels["frames"].items():
            assert frame["frame_number"] == int(number)
            for one in frame["objects"]["objects"]:
                box = one["bounding_box"]
                assert one["label"] == "person" and 1 <= one["index"] <= 5
                assert box["bottom_right"]["x"] - box["top_left"]["x"] == pytest.approx(12 / 128, abs=1e-5)
                assert {attribute["name"] for attribute in one["attrs"]["attrs"]} == {"person", "tracklet"}
    with pytest.raises(CsipError, match="name the folder of the videos"):
        stage.export_labels(hall.settings, "fiftyone", tmp_path / "more")


def test_mars_is_read_as_the_same_data_set(hall: Hall, tmp_path: Path) -> None:
    out = export(hall, "mars", tmp_path / "out")
    there, here = mars.load(out), folder.load(hall.root.with_name("hall-split"))
    for part in ("train", "query", "gallery"):
        ours, theirs = getattr(here, part), getattr(there, part)
        assert [(t.pid, t.camera, len(t.frames)) for t in ours] == [(t.pid, t.camera, len(t.frames)) for t in theirs]
        for mine, exported in zip(ours, theirs, strict=True):
            assert (here.root / mine.frames[1]).read_bytes() == (there.root / exported.frames[1]).read_bytes()


def test_names_of_videos_cannot_lead_out_of_the_folder(hall: Hall, tmp_path: Path) -> None:
    table = hall.root / "tracklets.csv"
    content = table.read_text()
    for name in ("../cam1.mp4", "/tmp/cam1.mp4"):
        write_text(table, content.replace(",cam1.mp4,", f",{name},"))
        with pytest.raises(CsipError, match="expected a path below the folder of videos"):
            stage.export_labels(hall.settings, "mot", tmp_path / "out")
    write_text(table, content.replace(",cam2.mp4,", ",cam1.avi,"))
    with pytest.raises(CsipError, match=r"cam1\.mp4 and cam1\.avi would share a file"):
        stage.export_labels(hall.settings, "mot", tmp_path / "out")
    write_text(table, content.replace("number,x,y", "number,a,b"))
    with pytest.raises(CsipError, match="no column x, y"):
        stage.export_labels(hall.settings, "mot", tmp_path / "out")


@pytest.mark.parametrize("first", [0, 1])
def test_frames_come_back_by_their_numbers(tmp_path: Path, first: int) -> None:
    frames = np.arange(first, first + 5)
    boxes = np.stack([20.0 * frames, 0 * frames, 20.0 * frames + 15, 0 * frames + 40], axis=1)
    tracks = [LabelledTrack("a-1", "a.mp4", "Anna", 1, frames, boxes)]
    assert first_frames(tracks) == {"a.mp4": first}
    (tmp_path / "a.mp4").touch()
    mot.write_mot(tracks, tmp_path / "mot")
    coco.write_coco(tracks, tmp_path / "coco", {})
    cvat.write_cvat(tracks, tmp_path / "cvat")
    fiftyone.write_fiftyone(tracks, tmp_path / "fiftyone", tmp_path, {"a.mp4": (200, 100)})
    for found in (
        mot.read_mot(tmp_path / "mot", ["a.mp4"]),
        coco.read_coco(tmp_path / "coco", ["a.mp4"]),
        cvat.read_cvat(tmp_path / "cvat", {"a.mp4": first}),
        fiftyone.read_fiftyone(tmp_path / "fiftyone", {"a.mp4": first}, {"a.mp4": (200, 100)}),
    ):
        assert found["a.mp4"].frames.tolist() == frames.tolist()
        assert np.allclose(found["a.mp4"].boxes, boxes, atol=0.01)
