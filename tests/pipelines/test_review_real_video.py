"""A real video from `csip ingest` to reviewed labels, a split and a report; two parts of its picture are two cameras."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from ingest_scenes import write_video
from starlette.testclient import TestClient

from csip.config import Settings
from csip.data import folder
from csip.video.ingest import DetectorOptions
from csip.video.one_video import IngestOptions
from csip.video.tracklets import TrackletRules
from pipelines import embed_tracklets, ingest_videos, paths, split_dataset, write_report
from pipelines import review_tracklets as stage

REAL = Path(__file__).parents[3] / "shared/data/video/one-by-one-person-detection.mp4"
FIRST, LAST, SECOND = (
    130,
    300,
    212,
)  # frames that are used, and between which one person has left and the next one comes

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not REAL.exists(), reason="needs the real video beside the project")]


def two_views(out: Path) -> None:
    """Write the left and the right two thirds of the picture as the videos of two cameras."""
    left, right = [], []
    with av.open(str(REAL)) as container:
        for number, frame in enumerate(container.decode(video=0), start=1):
            if number > LAST:
                break
            if number >= FIRST:
                image = frame.to_ndarray(format="bgr24")
                left.append(np.ascontiguousarray(image[:, :512]))
                right.append(np.ascontiguousarray(image[:, 256:]))
    write_video(out / "left.mp4", left)
    write_video(out / "right.mp4", right)


def test_from_a_real_video_to_a_split_and_a_report(
    tmp_path: Path, settings: Settings, untrained: Callable[[Settings], Path]
) -> None:
    root, run = tmp_path / "data/passage", tmp_path / "runs/passage"
    two_views(tmp_path / "videos")
    options = IngestOptions(rate=5.0, rules=replace(TrackletRules(), min_frames=4))
    ingest_videos.run(tmp_path / "videos", root, DetectorOptions("hog"), options)
    dataset = paths.settings_for("passage", None, root, [])
    embed_tracklets.run(dataset, run, untrained(settings), part="all")
    who = {
        name: "first" if seen.start + FIRST < SECOND else "second" for name, seen in folder.read_sightings(root).items()
    }
    assert len(set(who.values())) == 2

    opened = stage.open_data(dataset, stage.Source(run))
    with TestClient(opened.server.app("token", 4321), base_url="http://127.0.0.1:4321/token/") as client:
        names = client.get("tracklets").json()["names"]
        assert all(len(client.get(f"strip/{row}.jpg").content) > 500 for row in range(len(names)))
        while questions := client.get("questions").json()["questions"]:
            a, b = names[questions[0]["a"]], names[questions[0]["b"]]
            answer = "same" if who[a] == who[b] else "different"
            assert client.post("do", json={"do": "compare", "a": a, "b": b, "answer": answer}).status_code == 200
        for row in range(1, len(names)):  # what distances alone keep apart, is put together by hand
            if who[names[row]] == who[names[0]]:
                client.post("do", json={"do": "merge", "names": [names[0], names[row]]})
        rest = [name for name in names if who[name] != who[names[0]]]
        # What the distances have joined as well, is told apart.
        apart = {"do": "compare", "a": names[0], "b": rest[0], "answer": "different"}
        assert client.post("do", json=apart).status_code == 200
        if len(rest) > 1:
            client.post("do", json={"do": "merge", "names": rest})
        assert client.post("do", json={"do": "save"}).status_code == 200
    people = folder.read_people(root)
    assert all((people[a] == people[b]) == (who[a] == who[b]) for a in names for b in names)

    result = split_dataset.run(dataset)
    assert (result.train, result.tested) == (1, 1)
    write_report.run(dataset, run, untrained(settings), root / "skeletons.h5")
    assert "<dt>Identities</dt><dd>2</dd>" in (run / "report.html").read_text()
