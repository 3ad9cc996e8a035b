"""Names of files and people as they are on people's disks."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csip.config import Settings
from csip.data import folder, health, kinect_frames, lsvid, prid2011
from csip.data.health import Finding
from csip.data.names import canonical, in_natural_order, natural_order
from csip.errors import CsipError
from csip.monitor import Silent
from csip.retrieval.frames import frames_in


def frames(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


def people(root: Path, *names: str) -> None:
    frames(root, *(f"{name}/{camera}/1.jpg" for name in names for camera in ("c1", "c2")))


def checked(root: Path) -> dict[str, Finding]:
    settings = Settings.model_validate({"dataset": {"name": "own", "layout": "folder", "root": root}})
    return {f.what: f for f in health.inspect(settings, root / "none.h5", 0, Silent())}


# ---- order -----------------------------------------------------------------------------------------------------------


def test_frames_count_as_people_count(tmp_path: Path) -> None:
    people(tmp_path, "bob")
    frames(tmp_path, *(f"ann/c1/{n}.jpg" for n in (1, 10, 11, 2, 9, 100)))
    dataset = folder.load(tmp_path)
    ann = next(t for t in (*dataset.train, *dataset.query) if t.name == "ann/c1")
    assert [Path(frame).stem for frame in ann.frames] == ["1", "2", "9", "10", "11", "100"]


@given(
    st.lists(st.integers(0, 10**6), unique=True, min_size=2), st.text(max_size=3), st.sampled_from([".jpg", "_x.png"])
)
def test_numbers_in_names_are_in_the_order_of_numbers(numbers: list[int], prefix: str, suffix: str) -> None:
    prefix = "".join(c for c in prefix if not c.isdigit())
    names = sorted((f"{prefix}{n}{suffix}" for n in numbers), key=natural_order)
    assert names == [f"{prefix}{n}{suffix}" for n in sorted(numbers)]


@given(st.lists(st.text(max_size=8)))
def test_any_names_have_one_order(names: list[str]) -> None:
    assert sorted(names, key=natural_order) == sorted(reversed(names), key=natural_order)


def test_a_folder_of_crops_counts_and_refuses_what_it_cannot_read(tmp_path: Path) -> None:
    frames(tmp_path, *(f"{n}.jpg" for n in (1, 10, 2)), ".hidden.jpg", "notes.txt")
    assert [frame.name for frame in frames_in(tmp_path)] == ["1.jpg", "2.jpg", "10.jpg"]
    frames(tmp_path, "3.heic")
    with pytest.raises(CsipError, match=r"1 pictures are of formats that cannot be read, e\.g\. 3\.heic"):
        frames_in(tmp_path)


@given(st.lists(st.integers(-(10**6), 10**6), unique=True, min_size=2))
def test_names_that_are_numbers_with_a_fraction_or_a_sign_are_in_the_order_of_values(thousandths: list[int]) -> None:
    names = [f"{n / 1000:.10g}.jpg" for n in sorted(thousandths)]  # as programs write times: 0.1, 0.15, 0.2
    assert in_natural_order(reversed(names)) == names


def test_numbers_of_chapters_are_no_fractions() -> None:
    names = [f"1.{n}.jpg" for n in range(1, 12)]
    assert in_natural_order(sorted(names)) == names


@pytest.mark.parametrize("parts", [
    ("Train", "Test"), ("training", "testing"), ("train", "query", "gallery"), ("bbox_train", "bbox_test"), ("TRAIN", "test"),
])  # fmt: skip
def test_folders_of_parts_are_no_people(tmp_path: Path, parts: tuple[str, ...]) -> None:
    frames(tmp_path, *(f"{part}/{person}{part[:2]}/c{c}/1.jpg" for part in parts for person in "ab" for c in (1, 2)))
    with pytest.raises(CsipError, match=f"{parts[-1]}.* are called as parts of a data set, not as people"):
        folder.load(tmp_path)


@pytest.mark.parametrize(
    "column", ["number", "Frame_ID", "frame idx", "frame_number", "frameid", "time", "timestamp", "Seconds"]
)
def test_a_table_has_a_clock_under_several_names(tmp_path: Path, column: str) -> None:
    lines = [f"{p}{c},{p},{c},{p}{c}/{n}.jpg,{n}" for p in "ab" for c in "xy" for n in (10, 9, 100)]
    (tmp_path / folder.TABLE).write_text("\n".join([f"tracklet,person,camera,frame,{column}", *lines]))
    assert folder.load(tmp_path).train[0].frames[0].endswith("/9.jpg")


def test_times_may_be_dates(tmp_path: Path) -> None:
    lines = [f"{p}{c},{p},{c},{p}{c}/{n}.jpg,2026-11-25T23:59:{n}" for p in "ab" for c in "xy" for n in (59, 10, 30)]
    (tmp_path / folder.TABLE).write_text("\n".join(["tracklet,person,camera,frame,timestamp", *lines]))
    assert [Path(frame).stem for frame in folder.load(tmp_path).train[0].frames] == ["10", "30", "59"]
    assert {seen.end - seen.start for seen in folder.read_sightings(tmp_path).values()} == {49}
    (tmp_path / folder.TABLE).write_text("\n".join(["tracklet,person,camera,frame,time", "a,a,x,1.jpg,noon"]))
    with pytest.raises(CsipError, match="line 2 has time noon; expected a number"):
        folder.load(tmp_path)


@pytest.mark.parametrize("other", ["./ax/9.jpg", "ax//9.jpg", "ax/./9.jpg"])
def test_one_frame_written_in_two_ways_is_one_frame(tmp_path: Path, other: str) -> None:
    lines = [f"{p}{c},{p},{c},{p}{c}/9.jpg" for p in "ab" for c in "xy"]
    (tmp_path / folder.TABLE).write_text("\n".join(["tracklet,person,camera,frame", *lines, f"by,b,y,{other}"]))
    with pytest.raises(CsipError, match=r"lines 2 and 6 are both frame ax/9\.jpg"):
        folder.load(tmp_path)


def test_padded_names_keep_their_order() -> None:
    names = [f"0001C1T0001F{n:03d}.jpg" for n in range(1, 200)]
    assert sorted(names, key=natural_order) == sorted(names)
    assert natural_order("1.jpg") != natural_order("01.jpg")


def test_the_other_readers_count_too(tmp_path: Path) -> None:
    for camera in prid2011.CAMERAS:
        for person in ("person_0001", "person_0002"):
            frames(tmp_path, *(f"prid_2011/multi_shot/{camera}/{person}/{n}.png" for n in range(1, 31)))
    first = prid2011.load(tmp_path).train[0].frames
    assert [int(Path(frame).stem) for frame in first] == list(range(1, 31))
    assert lsvid._beginning_with(["a_1.jpg", "a_10.jpg", "a_2.jpg", "b_1.jpg"], "a_") == [
        "a_1.jpg",
        "a_2.jpg",
        "a_10.jpg",
    ]
    line = "\n".join(f"{joint},{{x}},0,2,0,0,2,0" for joint in range(20))
    for part in ("Training", "Testing/Still", "Testing/Walking"):
        place = tmp_path / "biwi" / part / "1"
        place.mkdir(parents=True)
        for number in range(1, 13):
            (place / f"{number}skel.txt").write_text(line.format(x=number / 10))
    x = kinect_frames.load_biwi(tmp_path / "biwi").train[0].joints[:, 0, 0]
    assert (x[1:] > x[:-1]).all() and len(x) == 12


@pytest.mark.parametrize("column", ["number", "Frame Number", "frame_number", "time"])
def test_a_tables_frames_are_in_the_order_of_their_moments(tmp_path: Path, column: str) -> None:
    lines = [f"t{p}{c},p{p},c{c},{p}{c}/{n}.jpg,{n}" for p in (1, 2) for c in (1, 2) for n in (10, 2, 1, 30)]
    (tmp_path / "tracklets.csv").write_text("\n".join([f"tracklet,person,camera,frame,{column}", *lines]))
    dataset = folder.load(tmp_path)
    for tracklet in (*dataset.train, *dataset.query):
        assert [int(Path(frame).stem) for frame in tracklet.frames] == [1, 2, 10, 30]


def test_moments_that_order_nothing_are_refused_or_left_alone(tmp_path: Path) -> None:
    def written(*cells: str) -> Path:
        lines = [
            f"t{p}{c},p{p},c{c},{p}{c}/{n}.jpg,{cell}" for p in (1, 2) for c in (1, 2) for n, cell in enumerate(cells)
        ]
        (tmp_path / "tracklets.csv").write_text("\n".join(["tracklet,person,camera,frame,number", *lines]))
        return tmp_path

    assert folder.load(written("", "", ""), name="x").train[0].frames[0].endswith("/0.jpg")
    with pytest.raises(CsipError, match=r"number on 2 of its 3 lines"):
        folder.load(written("3", "", "1"))
    for cell in ("nan", "inf", "third"):
        with pytest.raises(CsipError, match=rf"line 2 has number {cell}"):
            folder.load(written(cell, "2", "1"))


# ---- one person ------------------------------------------------------------------------------------------------------


def test_a_name_in_both_of_unicodes_forms_is_one_person_and_one_camera(tmp_path: Path) -> None:
    composed, apart = (unicodedata.normalize(form, "José Nuñez") for form in ("NFC", "NFD"))
    assert composed != apart and canonical(apart) == composed
    people(tmp_path, "bob")
    hall, hall_apart = (unicodedata.normalize(form, "hallé") for form in ("NFC", "NFD"))
    frames(tmp_path, f"{composed}/{hall}/1.jpg", f"{apart}/{hall_apart}/2.jpg", f"{apart}/c2/3.jpg")
    dataset = folder.load(tmp_path)
    everyone = (*dataset.train, *dataset.query)
    assert len({t.pid for t in everyone}) == 2 and len({t.camera for t in everyone}) == 3
    assert all((tmp_path / frame).exists() for t in everyone for frame in t.frames), "paths are those on the disk"


def test_a_table_and_labels_in_both_forms_are_about_one_person(tmp_path: Path) -> None:
    forms = [unicodedata.normalize(form, "José") for form in ("NFC", "NFD")]
    lines = [f"t{n},{'bob' if n > 1 else forms[n]},c{n % 2},{n}.jpg" for n in range(4)]
    (tmp_path / "tracklets.csv").write_text("\n".join(["tracklet,person,camera,frame", *lines]))
    dataset = folder.load(tmp_path)
    assert len({t.pid for t in (*dataset.train, *dataset.query)}) == 2
    (tmp_path / "labels.csv").write_text(f"tracklet,person\nt2,{forms[1]}\nt3,{forms[0]}\nt0,eve\nt1,eve\n")
    dataset = folder.load(tmp_path)
    assert len({t.pid for t in (*dataset.train, *dataset.query)}) == 2


def test_frames_that_are_there_in_another_unicode_form_are_told_from_missing_ones(tmp_path: Path) -> None:
    lines = []
    for n in range(4):
        frames(tmp_path, unicodedata.normalize("NFD", f"é{n}/ü.jpg"))
        lines.append(f"t{n},p{n // 2},c{n % 2}," + unicodedata.normalize("NFC", f"é{n}/ü.jpg"))
    (tmp_path / "tracklets.csv").write_text("\n".join(["tracklet,person,camera,frame", *lines]))
    assert "NFC, NFD" in checked(tmp_path)["frames there"].fix
    (tmp_path / unicodedata.normalize("NFD", "é0/ü.jpg")).unlink()
    assert "unpack" in checked(tmp_path)["frames there"].fix


def test_a_person_in_train_and_in_test_is_one_and_the_doctor_says_so(tmp_path: Path) -> None:
    people(tmp_path, "train/ann", "train/bob", "test/bob", "test/eve")
    dataset = folder.load(tmp_path)
    trained, tested = ({t.pid for t in part} for part in (dataset.train, dataset.query))
    assert len(trained & tested) == 1 and len(trained | tested) == 3
    found = checked(tmp_path)["identities"]
    assert "1 identities train and are tested" in found.text and "train/bob/" in found.text and found.fix


# ---- what lies in folders --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".tif", ".TIFF", ".jfif", ".jpe", ".webp", ".bmp", ".avif", ".ppm"])
def test_every_format_that_is_decoded_is_a_frame(tmp_path: Path, suffix: str) -> None:
    frames(tmp_path, *(f"{person}/{camera}/1{suffix}" for person in ("ann", "bob") for camera in ("c1", "c2")))
    assert len(folder.load(tmp_path).query) == 2


@pytest.mark.parametrize("suffix", [".heic", ".HEIF", ".gif", ".jxl", ".dng"])
@pytest.mark.parametrize("beside", [True, False])
def test_pictures_that_cannot_be_read_are_refused_by_count_and_not_dropped(
    tmp_path: Path, suffix: str, beside: bool
) -> None:
    people(tmp_path, "ann", "bob")
    frames(tmp_path, *(f"eve/c1/{n}{suffix}" for n in range(3)), *(["eve/c1/9.jpg"] if beside else []))
    with pytest.raises(CsipError, match=rf"3 pictures are of formats that cannot be read \(3 {suffix.lower()}\)"):
        folder.load(tmp_path)
    assert "3 pictures" in checked(tmp_path)["index"].text
    for file in (tmp_path / "eve/c1").glob(f"*{suffix}"):
        file.rename(file.with_suffix(".png"))
    assert folder.load(tmp_path)


def test_frames_beside_tracklet_folders_are_a_tracklet(tmp_path: Path) -> None:
    people(tmp_path, "bob")
    frames(tmp_path, "ann/c1/1.jpg", "ann/c1/2.jpg", "ann/c1/later/3.jpg", "ann/c2/1.jpg")
    dataset = folder.load(tmp_path)
    ann = {t.name: len(t.frames) for t in (*dataset.train, *dataset.query) if t.name.startswith("ann")}
    assert ann == {"ann/c1": 2, "ann/c1/later": 1, "ann/c2": 1}


@pytest.mark.parametrize("stray", ["ann/portrait.jpg", "ann/c1/t1/deeper/1.jpg"])
def test_frames_where_nothing_reads_them_are_refused(tmp_path: Path, stray: str) -> None:
    people(tmp_path, "bob")
    frames(tmp_path, "ann/c1/t1/1.jpg", "ann/c2/1.jpg", stray)
    with pytest.raises(CsipError, match=r"lie (beside|deeper)"):
        folder.load(tmp_path)


def test_what_an_extraction_leaves_in_the_root_is_nobody(tmp_path: Path) -> None:
    people(tmp_path, "ann", "bob")
    frames(tmp_path, "skeletons.h5.shards/lock", "skeleton_3d/ann/c1/1.json")
    dataset = folder.load(tmp_path)
    assert len({t.pid for t in (*dataset.train, *dataset.query)}) == 2


def test_the_doctor_names_people_beside_train_and_test_and_files_of_no_tracklet(tmp_path: Path) -> None:
    people(tmp_path, "train/ann", "test/bob", "val/eve")
    frames(tmp_path, "train/ann/c1/notes.txt", "sheets/1.txt")
    found = checked(tmp_path)
    assert "val" in found["folders"].text and "sheets" not in found["folders"].text and found["folders"].fix
    assert "1 more files" in found["frames there"].text and "notes.txt" in found["frames there"].text


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    people(tmp_path, "ann", "bob")
    (tmp_path / "ann/c1/again").symlink_to(tmp_path / "ann")
    with pytest.raises(CsipError, match=r"no frames|deeper"):
        folder.load(tmp_path)


# ---- what is no name, and names that are nearly one ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["nan", "None", "NULL", "N/A", "-1", "unknown"])
def test_what_programs_write_for_nobody_is_no_person(tmp_path: Path, name: str) -> None:
    head, rows = "tracklet,person,camera,frame\n", "t1,ann,c1,a.jpg\nt2,ann,c2,b.jpg\nt3,bob,c1,c.jpg\n"
    (tmp_path / "tracklets.csv").write_text(f"{head}{rows}t4,{name},c2,d.jpg\n")
    with pytest.raises(CsipError, match=r"line 5 has the person .* leave the cell empty"):
        folder.load(tmp_path)
    (tmp_path / "tracklets.csv").write_text(f"{head}{rows}t4,,c2,d.jpg\n")
    assert sum(t.pid == 0 for t in folder.load(tmp_path).gallery) == 1
    (tmp_path / "labels.csv").write_text(f"tracklet,person\nt4,{name}\n")
    with pytest.raises(CsipError, match=r"labels\.csv: line 2 has the person .* delete the line"):
        folder.load(tmp_path)
    (tmp_path / "labels.csv").unlink()
    (tmp_path / "tracklets.csv").write_text(f"{head}{rows}t4,bob,{name},d.jpg\n")
    with pytest.raises(CsipError, match=r"line 5 has the camera .* name the camera"):
        folder.load(tmp_path)


def test_a_folder_of_unknown_people_is_no_person(tmp_path: Path) -> None:
    people(tmp_path, "ann", "bob", "unknown")
    with pytest.raises(CsipError, match="a person is called 'unknown'"):
        folder.load(tmp_path)


def test_a_folder_called_as_a_part_is_no_person(tmp_path: Path) -> None:
    people(tmp_path, "train/ann", "notes")
    with pytest.raises(CsipError, match="the folders train are called as parts of a data set, not as people"):
        folder.load(tmp_path)


def test_folders_that_systems_make_are_passed_over(tmp_path: Path) -> None:
    people(tmp_path, "ann", "bob")
    frames(tmp_path, "__MACOSX/ann/._1.jpg", "ann/c1/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/cat/c1/1.jpg")
    dataset = folder.load(tmp_path)
    assert {t.name for t in (*dataset.train, *dataset.gallery)} == {"ann/c1", "ann/c2", "bob/c1", "bob/c2"}


@pytest.mark.parametrize("other", ["Ann", "ann ", "ann_", "1.0", "001", "\uff11"])
def test_names_that_are_nearly_one_are_named_by_the_doctor(tmp_path: Path, other: str) -> None:
    people(tmp_path, "ann", "bob", "1", other)
    found = checked(tmp_path)["names of people"]
    assert repr(other)[1:-1] in found.text and found.hint and not found.fix
    assert "names of cameras" not in checked(tmp_path)
    frames(tmp_path, "ann/C1/1.jpg")
    assert "C1, c1" in checked(tmp_path)["names of cameras"].text


def test_people_of_different_names_are_not_named(tmp_path: Path) -> None:
    people(tmp_path, "ann", "anna", "1", "10", "1.5", "15", "a1", "a-10")
    assert not {what for what in checked(tmp_path) if what.startswith("names of")}


def test_the_number_of_a_frame_comes_before_other_columns_of_numbers(tmp_path: Path) -> None:
    head = "frame_id,tracklet,person,camera,frame,number\n"
    rows = [f"{9 - n},t{k},p{k},c{k % 2},{k}-{n}.jpg,{n}\n" for k in range(4) for n in (2, 1, 3)]
    (tmp_path / "tracklets.csv").write_text(head + "".join(rows))
    dataset = folder.load(tmp_path)
    for tracklet in (*dataset.train, *dataset.gallery):
        assert [frame[-5] for frame in tracklet.frames] == ["1", "2", "3"]


@pytest.mark.parametrize("column", ["number", "time"])
def test_two_numbers_in_one_cell_are_none(tmp_path: Path, column: str) -> None:
    (tmp_path / "tracklets.csv").write_text(f"tracklet,person,camera,frame,{column}\nt,ann,c,a.jpg,1_2\n")
    with pytest.raises(CsipError, match=rf"line 2 has {column} 1_2; expected a number"):
        folder.load(tmp_path)


def test_a_comma_in_a_name_does_not_cut_it(tmp_path: Path) -> None:
    rows = "".join(f"t{n},p{n // 2},c{n % 2},{n}.jpg\n" for n in range(4))
    (tmp_path / "tracklets.csv").write_text("tracklet,person,camera,frame\n" + rows)
    (tmp_path / "labels.csv").write_text("tracklet,person\nt0,Doe, Jane\nt1,Doe, John\n")
    with pytest.raises(CsipError, match=r"labels\.csv: line 2 has 3 cells, the head has 2 columns.*quotation marks"):
        folder.load(tmp_path)
    (tmp_path / "labels.csv").write_text('tracklet,person\nt0,"Doe, Jane"\nt1,"Doe, John",\n')
    assert folder.read_people(tmp_path)["t1"] == "Doe, John"


@pytest.mark.parametrize(("link", "to"), [("eve", "ann"), ("bob/c3", "bob/c1"), ("bob/c4", "ann/c1")])
def test_a_link_makes_no_second_person_and_no_second_camera(tmp_path: Path, link: str, to: str) -> None:
    people(tmp_path, "ann", "bob")
    (tmp_path / link).symlink_to(tmp_path / to)
    with pytest.raises(CsipError, match=rf"{to}.* are one folder, by a link"):
        folder.load(tmp_path)


def test_folders_that_are_links_to_elsewhere_are_read(tmp_path: Path) -> None:
    people(tmp_path / "disk", "ann", "bob")
    (tmp_path / "own").mkdir()
    for name in ("ann", "bob"):
        (tmp_path / "own" / name).symlink_to(tmp_path / "disk" / name)
    assert len({t.pid for t in (*folder.load(tmp_path / "own").train, *folder.load(tmp_path / "own").gallery)}) == 2


def test_names_of_a_table_and_its_labels_are_compared(tmp_path: Path) -> None:
    rows = "".join(f"t{n},{person},c{n % 2},{n}.jpg\n" for n, person in enumerate(("001", "001", "002", "")))
    (tmp_path / "tracklets.csv").write_text("tracklet,person,camera,frame\n" + rows)
    (tmp_path / "labels.csv").write_text("tracklet,person\nt3,1\n")
    assert "001, 1" in checked(tmp_path)["names of people"].text
