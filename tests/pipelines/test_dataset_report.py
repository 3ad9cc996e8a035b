"""`csip doctor --dataset` on a rendered data set, whole and with each thing wrong that it looks for."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from csip.config import Settings
from csip.data import health, mars
from csip.data.dataset import Dataset, Tracklet
from csip.data.health import Finding
from csip.data.sequences import SkeletonDataset, SkeletonSequence
from csip.monitor import Silent
from pipelines import check_dataset as dataset_report
from pipelines.check_dataset import inspect


@pytest.fixture
def copied(settings: Settings, walkers: Path, tmp_path: Path) -> Settings:
    root = tmp_path / "walkers"
    shutil.copytree(walkers, root)
    return settings.model_copy(update={"dataset": settings.dataset.model_copy(update={"root": root})})


def report(settings: Settings, frames: int | None = None) -> dict[str, Finding]:
    findings = inspect(settings, settings.dataset.path / "skeletons.h5", frames, Silent())
    return {finding.what: finding for finding in findings}


def named(settings: Settings, name: str, **changes: object) -> Settings:
    return settings.model_copy(update={"dataset": settings.dataset.model_copy(update={"name": name, **changes})})


def test_a_whole_data_set_is_well(copied: Settings) -> None:
    found = report(copied)
    assert not any(finding.fix for finding in found.values()), found
    dataset = mars.load(copied.dataset.path)
    assert "6 training identities, 24 training tracklets, 8 queries" in found["counts"].text
    assert f"{len(dataset.gallery)} gallery tracklets, 8 queries with a match, 2 cameras" in found["counts"].text
    assert "training: 1 (12), 2 (12)" in found["cameras (tracklets)"].text
    assert "0 of 6 training identities were seen by one camera only" in found["cameras (tracklets)"].text
    assert (
        "training: 6 to 6, median 6, 144 frames; 0 tracklets shorter than a clip of 4"
        in found["frames a tracklet"].text
    )
    frames = len({f for t in (*dataset.train, *dataset.query, *dataset.gallery) for f in t.frames})
    assert f"all {frames}" in found["frames there"].text
    assert f"{frames} of {frames} decoded: {frames} colour; height 64 to 64" in found["frames readable"].text
    assert "24 of 24 training tracklets, 144 of 144 frames, 100.0% with a pose" in found["skeletons"].text
    assert "5 of" in report(copied, frames=5)["frames readable"].text


def test_missing_and_broken_frames_are_counted_and_named(copied: Settings) -> None:
    root = copied.dataset.path
    frames = [frame for t in mars.load(root).train for frame in t.frames]
    (root / frames[0]).unlink()
    (root / frames[1]).unlink()
    (root / frames[9]).write_bytes(b"")
    (root / frames[20]).write_bytes((root / frames[20]).read_bytes()[:200])
    found = report(copied)
    assert "2 of" in found["frames there"].text and frames[0] in found["frames there"].text
    assert "1 zero bytes" in found["frames readable"].text and "1 truncated" in found["frames readable"].text
    assert found["frames there"].fix and found["frames readable"].fix
    assert not found["counts"].fix and not found["skeletons"].fix


def test_counts_are_compared_with_the_published_ones(copied: Settings) -> None:
    wrong = report(named(copied, "mars"), frames=0)["counts"]
    assert "published are 625 training identities, found 6; 8,298 training tracklets, found 24" in wrong.fix
    assert "11,310 gallery tracklets" in wrong.fix and "1,980 queries with a match" in wrong.fix
    less = report(named(copied, "mars", gallery="without_queries"), frames=0)["counts"]
    assert "9,330 gallery tracklets" in less.fix and "1,840 queries with a match" in less.fix


def test_published_counts_can_be_met(copied: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A made-up data set of MARS's size, at both policies."""

    def of(name: str, *counts: tuple[int, int, int]) -> list[Tracklet]:
        return [
            Tracklet(f"{name}{pid}.{camera}.{i}", pid, camera, ("0.jpg",))
            for pid, camera, count in counts for i in range(count)
        ]  # fmt: skip

    train = [Tracklet(f"train{i}", 1001 + i % 625, 1 + i % 6, ("0.jpg",)) for i in range(8298)]
    query = of("query", *((pid, camera, 1) for pid in range(1, 991) for camera in (1, 2)))
    # 140 queries have only each other.
    others = of("other", *((pid, 3, 1) for pid in range(71, 991)))
    distractors = of("none", (0, 4, 11310 - len(query) - len(others)))
    dataset = Dataset("mars", copied.dataset.path, tuple(train), tuple(query), tuple(query + others + distractors))
    for policy, chosen in (("with_queries", dataset), ("without_queries", dataset.without_queries())):
        finding = health._counts(chosen, named(copied, "mars", gallery=policy))
        assert not finding.fix and "as published" in finding.text


def test_an_index_that_cannot_be_read_is_one_finding(copied: Settings) -> None:
    (copied.dataset.path / "info/query_IDX.mat").write_bytes(b"junk")
    found = report(copied)
    assert list(found) == ["index"] and "not a readable .mat" in found["index"].text and found["index"].fix


def test_tracklets_of_nobody(
    tmp_path: Path, settings: Settings, walkers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = sorted(path.relative_to(walkers) for path in (walkers / "bbox_train").glob("*/*.jpg"))[:8]
    lines = [f"t{n // 2},,cam{n // 2 % 2},{frame}" for n, frame in enumerate(frames)]
    (tmp_path / "tracklets.csv").write_text("\n".join(["tracklet,person,camera,frame", *lines]))
    (tmp_path / "bbox_train").symlink_to(walkers / "bbox_train")
    hall = named(settings, "hall", layout="folder", root=tmp_path)
    found = report(hall)
    assert "counts" not in found and not any(finding.fix for finding in found.values())
    assert "nobody is named on any of 4 tracklets" in found["people"].text
    assert "1 (2), 2 (2)" in found["people"].text and "2 to 2, median 2" in found["people"].text
    assert (
        "csip cluster --dataset hall" in found["people"].hint and str(tmp_path / "labels.csv") in found["people"].hint
    )
    assert dataset_report.run(hall, tmp_path / "skeletons.h5", 0), "that is nothing wrong"
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("nothing is wrong; nobody is named") and "all is well" not in last

    (tmp_path / "labels.csv").write_text("tracklet,person\nt0,ann\nt1,ann\nt2,bob\nt3,bob\n")
    assert "2 queries with a match" in report(hall)["counts"].text


def test_skeletons_of_other_data_are_noticed(copied: Settings) -> None:
    cache = copied.dataset.path / "skeletons.h5"
    names = copied.dataset.path / "info/train_name.txt"
    names.write_text(names.read_text().replace("F001", "F101"))
    found = report(copied, frames=0)
    assert "120 of 144 frames" in found["skeletons"].text and "csip skeletons" in found["skeletons"].fix
    cache.write_bytes(cache.read_bytes()[:100])
    assert report(copied, frames=0)["skeletons"].fix
    cache.unlink()
    found = report(copied, frames=0)
    assert "none yet" in found["skeletons"].text and not found["skeletons"].fix


def test_people_who_train_and_are_tested_are_noticed() -> None:
    one = Tracklet("a", 3, 1, ("x.jpg",)), Tracklet("b", 4, 2, ("y.jpg",))
    assert "1 identities train and are tested, e.g. 4" in (
        found := health._identities(Dataset("x", Path("x"), one, one[1:], one[1:]))
    ).text  # fmt: skip
    assert found.fix


def test_the_exit_code_says_whether_all_is_well(
    copied: Settings, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import yaml

    from csip.config import dump_settings
    from pipelines.cli import main

    root = copied.dataset.path
    (root.parent / "walkers.yaml").write_text(dump_settings(copied))
    assert yaml.safe_load((root.parent / "walkers.yaml").read_text())["dataset"]["layout"] == "mars"
    command = ["csip", "doctor", "--config", str(root.parent / "walkers.yaml"), "--frames", "10"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code and "all is well" in capsys.readouterr().out
    shutil.rmtree(root / "bbox_train")
    monkeypatch.setattr("sys.argv", [*command, "--all-frames"])
    with pytest.raises(SystemExit) as stop:
        main()
    output = capsys.readouterr().out
    assert stop.value.code == 1 and "wrong: frames there, frames readable" in " ".join(output.split())


def test_skeletons_alone_are_counted_against_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """164 people with 822 sequences of 491,747 skeletons, then a sequence less, and one that stands still."""
    sizes = [598] * 821 + [491_747 - 598 * 821]
    people = [1 + i % 164 for i in range(822)]
    rng = np.random.default_rng(0)
    walks = [
        SkeletonSequence(f"s{i}", pid, np.broadcast_to(rng.normal(size=(size, 1, 1)), (size, 20, 3)))
        for i, (pid, size) in enumerate(zip(people, sizes, strict=True))
    ]
    settings = Settings.model_validate({"dataset": {"name": "kgbd", "layout": "kgbd"}})

    def found(train: list, probe: list, gallery: list) -> dict[str, Finding]:
        data = SkeletonDataset("kgbd", Path("x"), "kinect20", "split 0", tuple(train), tuple(probe), tuple(gallery))
        monkeypatch.setattr(health, "load_skeleton_set", lambda *_: data)
        return {f.what: f for f in inspect(settings, Path("none"), None, Silent())}

    whole = found(walks[328:], walks[:164], walks[164:328])
    assert not any(f.fix for f in whole.values()) and "494 training, 164 probe, 164 gallery" in whole["split"].text
    still = SkeletonSequence("s500", people[500], np.ones((598, 20, 3)))
    less = found([*walks[328:500], still, *walks[501:]], walks[1:164], walks[165:328])
    assert "822 sequences, found 820" in less["counts"].fix and "597 (0.1%) repeat" in less["skeletons"].text
    alone = found(walks[328:], walks[:164], walks[165:328])
    assert "1 people of the probe" in alone["people"].text and alone["people"].fix


def test_skeletons_that_are_not_there_are_one_finding(tmp_path: Path) -> None:
    settings = Settings.model_validate({"dataset": {"name": "kgbd", "layout": "kgbd", "root": tmp_path / "nowhere"}})
    (finding,) = inspect(settings, tmp_path / "none", None, Silent())
    assert finding.what == "index" and "no such folder" in finding.text and finding.fix
