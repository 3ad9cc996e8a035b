"""Readers of skeleton data sets, each on a miniature in its true format and on broken ones, and how sequences are divided."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from csip.config import DatasetSettings
from csip.data import kgbd, kinect_frames, transg
from csip.data.readers import load_dataset
from csip.data.sequences import (
    SkeletonDataset,
    SkeletonSequence,
    fingerprint_sequences,
    hold_out_sequences,
    random_split,
    windows,
)
from csip.data.skeleton_readers import load_skeleton_set
from csip.errors import CsipError
from pipelines.advice import advice
from pose_cache.joints import KINECT20, KINECT25

SHARED = Path(os.environ.get("CSIP_SHARED", Path(__file__).parents[4] / "shared"))
REAL = SHARED / "data" / "kgbd"


def body(frames: int, joints: int = 20, seed: int = 0) -> np.ndarray:
    """Random joints in a sensor's axes, rounded as the text files round them."""
    return np.random.default_rng(seed).uniform(-0.9, 0.9, (frames, joints, 3)).round(4).astype(np.float32)


# --- KGBD


def write_kgbd(root: Path, walks: dict[int, int], frames: int = 7) -> None:
    for person, count in walks.items():
        folder = root / f"Person{person:03d}"
        folder.mkdir(parents=True)
        for k in range(1, count + 1):
            lines = [
                ";".join([kgbd.FILE_ORDER[j], *(f"{v:.4f}" for v in point)])
                for frame in body(frames, seed=10 * person + k)
                for j, point in enumerate(frame)
            ]
            (folder / f"{k}.txt").write_text("\r\n".join(lines) + "\r\n")


def everything(dataset: SkeletonDataset) -> dict[str, SkeletonSequence]:
    return {s.name: s for part in (dataset.train, dataset.probe, dataset.gallery) for s in part}


@pytest.mark.parametrize("folder", ["", "Data", "kinect gait raw dataset"])
def test_kgbd_text(tmp_path: Path, folder: str) -> None:
    write_kgbd(tmp_path / folder, {1: 5, 15: 3, 164: 4})
    dataset = kgbd.load(tmp_path, seed=0)
    assert [Counter(s.pid for s in part) for part in (dataset.train, dataset.probe, dataset.gallery)] == [
        {1: 2, 15: 1, 164: 1},
        {1: 1, 15: 1, 164: 1},
        {1: 2, 15: 1, 164: 2},
    ]
    walks = everything(dataset)
    assert len(walks) == 12 and dataset.joint_set == "kinect20"
    raw = body(7, seed=10 * 1 + 3)
    named = dict(zip(kgbd.FILE_ORDER, raw[2] * [1, -1, 1], strict=True))
    read = dict(zip(KINECT20.joints, walks["Person001_3"].joints[2], strict=True))
    for ours, theirs in {"hip_center": "Hip-centro", "head": "Head", "shoulder_center": "Shoulder-Center"}.items():
        np.testing.assert_allclose(read[ours], named[theirs], atol=1e-4)
    for part in (
        "Shoulder",
        "Elbow",
        "Wrist",
        "Hand",
        "Hip",
        "Knee",
        "Ankle",
        "Foot",
    ):  # the sensor sees a mirror image
        np.testing.assert_allclose(read[f"left_{part.lower()}"], named[f"{part}-Right"], atol=1e-4)
        np.testing.assert_allclose(read[f"right_{part.lower()}"], named[f"{part}-Left"], atol=1e-4)


def test_kgbd_text_and_archive_are_the_same(tmp_path: Path) -> None:
    write_kgbd(tmp_path / "text", {1: 4, 2: 3})
    stored = {
        f"Person{p:03d}_{k}": np.round((body(7, seed=10 * p + k) - kgbd.ORIGIN) / kgbd.UNIT).astype(np.int16)
        for p, count in ((1, 4), (2, 3))
        for k in range(1, count + 1)
    }
    (tmp_path / "packed").mkdir()
    np.savez(tmp_path / "packed/kgbd.npz", **stored)
    text, packed = kgbd.load(tmp_path / "text", seed=3), kgbd.load(tmp_path / "packed", seed=3)
    assert [s.name for s in text.probe] == [s.name for s in packed.probe]
    for name, walk in everything(text).items():
        np.testing.assert_allclose(walk.joints, everything(packed)[name].joints, atol=6e-5)
    assert [s.name for s in kgbd.load(tmp_path / "packed/kgbd.npz", seed=3).train] == [s.name for s in packed.train]
    np.savez(tmp_path / "packed/kgbd.npz", **{k: (v * kgbd.UNIT + kgbd.ORIGIN) for k, v in stored.items()})
    np.testing.assert_allclose(
        kgbd.load(tmp_path / "packed", seed=3).probe[0].joints, packed.probe[0].joints, atol=1e-5
    )


def break_file(change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(root: Path) -> None:
        file = root / "Person001/2.txt"
        file.write_text(change(file.read_text()))

    return apply


def empty_person(root: Path) -> None:
    (root / "Person009").mkdir()


def same_walk_twice(root: Path) -> None:
    (root / "Person001/02.txt").write_bytes((root / "Person001/2.txt").read_bytes())


def few_walks(root: Path) -> None:
    (root / "Person001/1.txt").unlink()
    (root / "Person001/2.txt").unlink()


def broken_archive(root: Path) -> None:
    (root / "kgbd.npz").write_bytes(b"PK nothing")


def wrong_shape(root: Path) -> None:
    np.savez(root / "kgbd.npz", Person001_1=np.zeros((5, 25, 3)))


def wrong_name(root: Path) -> None:
    np.savez(root / "kgbd.npz", walk=np.zeros((5, 20, 3)))


def not_finite(root: Path) -> None:
    np.savez(root / "kgbd.npz", Person001_1=np.full((5, 20, 3), np.nan))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_file(lambda text: text[: len(text) // 2].rsplit("\n", 1)[0]), "the file is cut short"),
        (
            break_file(lambda text: text.replace("Spine", "Spin", 1)),
            r"2.txt, line 11: expected joint Spine, got 'Spin'",
        ),
        (break_file(lambda text: text.replace("Head;", "Head;x", 1)), "line 1: expected Head;x;y;z"),
        (break_file(lambda text: "Head;1;2\n" + text), "line 1: expected Head;x;y;z"),
        (break_file(lambda text: ""), "no frames in it"),
        (empty_person, r"Person009: no walks \(1.txt"),
        (same_walk_twice, "walk Person001_2 is there twice"),
        (few_walks, "person 1 has 2 sequence"),
        (broken_archive, "kgbd.npz: not a readable .npz"),
        (wrong_shape, r"kgbd.npz: Person001_1: expected joints of the shape \(frames, 20, 3\), got \(5, 25, 3\)"),
        (wrong_name, "array 'walk': expected names PersonNNN_K"),
        (not_finite, "5 of 5 frames have coordinates that are not finite"),
    ],
)
def test_broken_kgbd_is_named(tmp_path: Path, damage: Callable[[Path], None], message: str) -> None:
    write_kgbd(tmp_path, {1: 4, 2: 3})
    damage(tmp_path)
    with pytest.raises(CsipError, match=message):
        kgbd.load(tmp_path, seed=0)


def test_missing_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(CsipError, match=r"no walks; expected kgbd\.npz or PersonNNN/K\.txt"):
        kgbd.load(tmp_path, seed=0)
    settings = DatasetSettings(name="kgbd", layout="kgbd", root=tmp_path / "nowhere")
    with pytest.raises(CsipError, match="nowhere: no such folder; put data set kgbd"):
        load_skeleton_set(settings, 0)
    with pytest.raises(CsipError, match="layout mars, which is one of images"):
        load_skeleton_set(DatasetSettings(name="m", layout="mars", root=tmp_path), 0)
    with pytest.raises(CsipError, match="has skeletons and no pictures") as refused:
        load_dataset(DatasetSettings(name="kgbd", layout="kgbd", root=tmp_path))
    assert advice(refused.value.parameter).startswith("; `csip train-skeleton`")


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="needs the real KGBD")
def test_real_kgbd() -> None:
    dataset = kgbd.load(REAL, seed=0)
    assert (len(dataset.train), len(dataset.probe), len(dataset.gallery)) == (331, 164, 327)
    walks = everything(dataset).values()
    assert len({s.pid for s in walks}) == 164 and sum(len(s.joints) for s in walks) == 491_747
    head, hip, foot = (KINECT20.joints.index(name) for name in ("head", "hip_center", "left_foot"))
    y = np.concatenate([s.joints[:, :, 1] for s in walks])
    assert (np.median(y, axis=0)[[head, hip, foot]].argsort() == [0, 1, 2]).all(), "y points down"
    assert 1.3 < np.median(y[:, foot] - y[:, head]) < 1.7, "metres"
    assert kgbd.load(REAL, seed=0).probe[0].name == dataset.probe[0].name
    assert [s.name for s in kgbd.load(REAL, seed=1).probe] != [s.name for s in dataset.probe]


# --- BIWI, IAS-Lab, KS20


def frame_text(points: np.ndarray, state: int = 2) -> str:
    return "".join(f"1,{x:.4f},{y:.4f},{z:.4f},320,240,{state},0,0,1,0,0,0,1\n" for x, y, z in points)


def write_tests(root: Path, parts: dict[str, list[str]], frames: int = 4) -> None:
    for p, (part, people) in enumerate(parts.items()):
        for q, person in enumerate(people):
            folder = root / part / person
            folder.mkdir(parents=True)
            for t, points in enumerate(body(frames, seed=100 * p + q)):
                (folder / f"{t:06d}-a_0000_skel.txt").write_text(frame_text(points))
                (folder / f"{t:06d}-a_0000_rgb.jpg").touch()


def write_biwi(root: Path) -> None:
    write_tests(
        root, {"Training": ["000", "001", "049"], "Testing/Still": ["000", "049"], "Testing/Walking": ["000", "049"]}
    )


def test_biwi(tmp_path: Path) -> None:
    write_biwi(tmp_path)
    dataset = kinect_frames.load_biwi(tmp_path)
    assert [[s.name for s in part] for part in (dataset.train, dataset.probe, dataset.gallery)] == [
        ["Training/000", "Training/001", "Training/049"],
        ["Testing/Still/000", "Testing/Still/049"],
        ["Testing/Walking/000", "Testing/Walking/049"],
    ]
    assert [s.pid for s in dataset.probe] == [0, 49]
    np.testing.assert_allclose(dataset.probe[1].joints, body(4, seed=101) * [1, -1, 1], atol=1e-4)
    reverse = kinect_frames.load_biwi(tmp_path, "Walking")
    assert [s.name for s in reverse.probe] == [s.name for s in dataset.gallery]
    assert "probe Walking against gallery Still" in reverse.protocol
    with pytest.raises(CsipError, match=r"dataset\.probe is 'Sitting', expected one of Still, Walking"):
        kinect_frames.load_biwi(tmp_path, "Sitting")


def test_frames_without_a_tracked_skeleton_are_left_out(tmp_path: Path) -> None:
    write_biwi(tmp_path)
    folder = tmp_path / "Testing/Still/000"
    files = sorted(folder.glob("*skel.txt"))
    files[1].write_text("")
    files[2].write_text(frame_text(body(1)[0], state=0))
    still = kinect_frames.load_biwi(tmp_path).probe[0]
    np.testing.assert_allclose(still.joints, body(4, seed=100)[[0, 3]] * [1, -1, 1], atol=1e-4)
    for file in files:
        file.write_text("")
    with pytest.raises(CsipError, match="none of the 4 frames of Testing/Still/000 has a tracked skeleton"):
        kinect_frames.load_biwi(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (frame_text(body(1)[0][:12]), r"000000-a_0000_skel\.txt: 12 joints, expected 20; the file is cut short"),
        (
            frame_text(body(1)[0]).replace(",320,240,2,0,0,1,0,0,0,1", "", 1),
            r"line 1: expected id,x,y,z,x2d,y2d,TrackingState",
        ),
        (frame_text(body(1)[0]).replace("1,", "1,x", 1), r"line 1: expected id,x,y,z"),
        (frame_text(body(1)[0]) + "\n" + frame_text(body(1)[0]), "40 joints, expected 20: these are 2 skeletons"),
        ("1,1_000,0,0,320,240,2\n" + "\n".join(frame_text(body(1)[0]).split()[1:]), r"line 1: expected id,x,y,z"),
    ],
)
def test_broken_frames_are_named(tmp_path: Path, text: str, message: str) -> None:
    write_biwi(tmp_path)
    (tmp_path / "Training/001/000000-a_0000_skel.txt").write_text(text)
    with pytest.raises(CsipError, match=message):
        kinect_frames.load_biwi(tmp_path)


def test_missing_and_empty_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(CsipError, match="Training: missing; expected a folder for each person"):
        kinect_frames.load_biwi(tmp_path)
    write_biwi(tmp_path)
    (tmp_path / "Training/050").mkdir()
    with pytest.raises(CsipError, match=r"Training/050: no frames \(\*skel.txt\) in it"):
        kinect_frames.load_biwi(tmp_path)


def test_ias_numbers_people_by_name(tmp_path: Path) -> None:
    write_tests(
        tmp_path, {"Training": ["anna", "bert", "carl"], "TestingA": ["bert", "carl"], "TestingB": ["carl", "bert"]}
    )
    dataset = kinect_frames.load_ias(tmp_path)
    assert [[(s.name, s.pid) for s in part] for part in (dataset.probe, dataset.gallery)] == [
        [("TestingA/bert", 2), ("TestingA/carl", 3)],
        [("TestingB/bert", 2), ("TestingB/carl", 3)],
    ]
    assert kinect_frames.load_ias(tmp_path, "B").probe[0].name == "TestingB/bert"


def write_ks20(root: Path, people: tuple[int, ...] = (1, 7), walks: tuple[int, ...] = (1, 2, 3)) -> None:
    for v, view in enumerate(kinect_frames.KS20_VIEWS):
        (root / view).mkdir(parents=True)
        for person in people:
            for walk in walks:
                for t, points in enumerate(body(3, 25, seed=1000 * v + 10 * person + walk)):
                    text = "".join(f"{j},{x:.4f},{y:.4f},{z:.4f}\n" for j, (x, y, z) in enumerate(points))
                    (root / view / f"gc{walk}_body{person}_{9 + t}.txt").write_text(text)  # 9, 10, 11: not by name


def test_ks20(tmp_path: Path) -> None:
    write_ks20(tmp_path)
    dataset = kinect_frames.load_ks20(tmp_path, seed=1)
    assert dataset.joint_set == "kinect25"
    walk_of = {}
    for part, sequences in (("train", dataset.train), ("probe", dataset.probe), ("gallery", dataset.gallery)):
        assert Counter(s.pid for s in sequences) == {1: 5, 7: 5}
        for pid in (1, 7):
            walks = {s.name.split("/")[1].split("_")[0] for s in sequences if s.pid == pid}
            assert len(walks) == 1, "one walk in all views"
            walk_of[part, pid] = walks.pop()
    for pid in (1, 7):
        assert len({walk_of[part, pid] for part in ("train", "probe", "gallery")}) == 3
    first = everything(dataset)["frontal/gc2_body7"]
    np.testing.assert_allclose(first.joints, body(3, 25, seed=72) * [1, -1, 1], atol=1e-4)
    assert first.joints.shape[1] == KINECT25.size


def test_broken_ks20_is_named(tmp_path: Path) -> None:
    write_ks20(tmp_path / "few", walks=(1, 2))
    with pytest.raises(CsipError, match=r"person 1 has 2 walk\(s\) \(gc1, gc2\); the split needs three"):
        kinect_frames.load_ks20(tmp_path / "few", 0)
    write_ks20(tmp_path / "whole")
    twin = tmp_path / "whole/frontal/gc1_body1_0009.txt"
    twin.write_text("")
    with pytest.raises(CsipError, match="are the same frame of the same walk"):
        kinect_frames.load_ks20(tmp_path / "whole", 0)
    twin.rename(twin.with_name("notes.txt"))
    with pytest.raises(CsipError, match=r"notes\.txt: expected a name like gc1_body7_000123\.txt"):
        kinect_frames.load_ks20(tmp_path / "whole", 0)
    with pytest.raises(CsipError, match="frontal: missing"):
        kinect_frames.load_ks20(tmp_path, 0)


# --- the preprocessed layout


def write_transg(root: Path, parts: tuple[str, str] = ("gallery", "probe"), frames: int = 6, joints: int = 20) -> None:
    people = np.array([1, 1, 1, 2, 2, 1])
    for p, (folder, prefix) in enumerate(
        (("train_npy_data", "source"), *((f"test_npy_data/{part}", "t_source") for part in parts))
    ):
        (root / folder).mkdir(parents=True)
        points = body(frames * len(people), joints, seed=p)
        for axis in range(3):
            np.save(root / folder / f"{prefix}_{'xyz'[axis]}_MINI_{frames}.npy", points[:, :, axis].astype(np.float64))
        np.save(root / folder / f"frame_id_MINI_{frames}.npy", people)
        np.save(root / folder / f"ids_MINI_{frames}.npy", {1: [0, 1, 2, 5], 2: [3, 4]}, allow_pickle=True)


@pytest.mark.parametrize(("parts", "probe"), [(("gallery", "probe"), "probe"), (("Walking", "Still"), "Still")])
def test_transg(tmp_path: Path, parts: tuple[str, str], probe: str) -> None:
    write_transg(tmp_path, parts)
    dataset = transg.load(tmp_path)
    assert f"probe {probe}" in dataset.protocol
    assert [(s.pid, len(s.joints), s.cut) for s in dataset.train] == [(1, 18, 6), (2, 12, 6), (1, 6, 6)]
    cut, owners = windows(dataset.probe, 6)
    np.testing.assert_allclose(cut, body(36, seed=2).reshape(6, 6, 20, 3) * [1, -1, 1], atol=1e-6)
    assert owners.tolist() == [0, 0, 0, 1, 1, 2]
    with pytest.raises(CsipError, match=r"windows of 6 frames, but skeleton_training\.frames is 3"):
        windows(dataset.probe, 3)


def test_broken_transg_is_named(tmp_path: Path) -> None:
    with pytest.raises(CsipError, match=r"dataset\.probe is None, expected a part that is there"):
        transg.load(tmp_path)
    write_transg(tmp_path)
    with pytest.raises(CsipError, match=r"test_npy_data/Still: missing"):
        transg.load(tmp_path, "Still")
    folder = tmp_path / "train_npy_data"
    whole = np.load(folder / "source_y_MINI_6.npy")
    np.save(folder / "source_y_MINI_6.npy", whole[:-1])
    with pytest.raises(
        CsipError, match=r"source_y has the shape \(35, 20\), expected \(6 x 6 windows, 20 or 25 joints\)"
    ):
        transg.load(tmp_path)
    (folder / "source_y_MINI_6.npy").unlink()
    with pytest.raises(CsipError, match=r"source_y_MINI_6\.npy: missing"):
        transg.load(tmp_path)
    np.save(folder / "source_y_MINI_6.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(CsipError, match=r"source_y_MINI_6\.npy: not a readable \.npy array"):
        transg.load(tmp_path)
    (folder / "source_x_MINI_6.npy").unlink()
    with pytest.raises(CsipError, match=r"expected one source_x_NAME_FRAMES\.npy, found 0"):
        transg.load(tmp_path)


# --- dividing and cutting


def sequence(pid: int, number: int, frames: int = 20, cut: int | None = None) -> SkeletonSequence:
    return SkeletonSequence(f"{pid}_{number}", pid, np.zeros((frames, 20, 3), np.float32), cut)


def test_a_split_is_a_function_of_its_seed_and_of_names_alone() -> None:
    walks = [sequence(pid, k) for pid in range(40) for k in range(5)]
    names = [[s.name for s in part] for part in random_split(walks, 0, Path("x"), 2)]
    assert names == [[s.name for s in part] for part in random_split(walks[::-1], 0, Path("x"), 2)]
    assert sorted(name for part in names for name in part) == sorted(s.name for s in walks)
    probes = Counter(s.name.split("_")[1] for seed in range(50) for s in random_split(walks, seed, Path("x"), 2)[1])
    assert all(300 < probes[str(k)] < 500 for k in range(5)), "each walk asks as often as any other"


def test_whole_walks_are_held_out_of_people_who_have_two() -> None:
    walks = [sequence(pid, k) for pid in range(20) for k in range(2)]
    train, held = hold_out_sequences(walks, 0.25)
    assert len(held) == 5 and {s.name for s in train} | {s.name for s in held} == {s.name for s in walks}
    assert len(train) == 35 and {s.pid for s in train} == set(range(20)), "everybody still trains"
    assert hold_out_sequences(walks, 0.0) == (tuple(walks), ())


def test_ends_are_held_out_where_people_have_one_sequence() -> None:
    walks = [sequence(pid, 0, 50, cut=6) for pid in range(4)]
    train, held = hold_out_sequences(walks, 0.2)
    assert [len(s.joints) for s in train] == [42] * 4 and [len(s.joints) for s in held] == [8] * 4
    assert not {s.name for s in held} & {s.name for s in train}


def test_windows_are_consecutive_and_whole() -> None:
    walk = SkeletonSequence("w", 1, np.arange(14 * 60, dtype=np.float32).reshape(14, 20, 3))
    cut, owners = windows([walk, walk], 6)
    assert cut.shape == (4, 6, 20, 3) and owners.tolist() == [0, 0, 1, 1]
    np.testing.assert_array_equal(cut[3], walk.joints[6:12])
    with pytest.raises(CsipError, match="w: 14 frames, too few for one window of 15"):
        windows([walk], 15)


def test_a_data_set_refuses_what_cannot_be_scored() -> None:
    one = (sequence(1, 0),)
    with pytest.raises(CsipError, match="there are no probe sequences"):
        SkeletonDataset("d", Path("x"), "kinect20", "", one, (), one)
    with pytest.raises(CsipError, match=r"1 sequences appear twice, e\.g\. 1_0"):
        SkeletonDataset("d", Path("x"), "kinect20", "", one, one, (sequence(1, 2),))


def test_fingerprints_see_every_coordinate() -> None:
    one, other = sequence(1, 0), sequence(1, 0)
    assert fingerprint_sequences([one]) == fingerprint_sequences([other])
    other.joints[19, 19, 2] = 1e-6
    assert fingerprint_sequences([one]) != fingerprint_sequences([other])
