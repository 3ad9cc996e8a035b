"""The server of a review: who may ask it, what it answers, and that nothing that was said is lost."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from review_data import Hall, make_hall
from starlette.testclient import TestClient

from csip.config import Settings
from csip.errors import CsipError
from csip.files import write_text
from csip.review.journal import Journal
from csip.review.review import left_out
from csip.review.simulate import Annotator, Truth, truth_of_scenes
from pipelines import review_tracklets as stage
from pipelines import simulate_review
from pose_cache.errors import PoseCacheError
from pose_cache.lock import held

TOKEN, PORT = "token-of-a-test", 4321
HOST = f"127.0.0.1:{PORT}"
KILLS = int(
    os.environ.get("CSIP_KILLS", "2")
)  # a program takes seconds to start; of the journal there are twenty kills


@pytest.fixture
def hall(tmp_path: Path) -> Hall:
    return make_hall(tmp_path)


@pytest.fixture
def opened(hall: Hall) -> stage.Opened:
    return stage.open_data(hall.settings, hall.source)


@pytest.fixture
def client(opened: stage.Opened) -> Iterator[TestClient]:
    with TestClient(opened.server.app(TOKEN, PORT), base_url=f"http://{HOST}/{TOKEN}/") as client:
        yield client


def say(client: Any, what: str, **details: Any) -> Any:
    return client.post("do", json={"do": what, **details})


# ---- who may ask ------------------------------------------------------------------------------------------------------


def test_a_page_and_its_parts(client: TestClient) -> None:
    page = client.get("")
    assert page.status_code == 200 and "<title>csip review" in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy and "unsafe" not in policy
    for name in re.findall(r'(?:href|src)="([\w.]+)"', page.text):
        assert client.get(name).status_code == 200, name
    assert page.headers["referrer-policy"] == "no-referrer", "the token is in the address"


@pytest.mark.parametrize(
    "path", ["/", "/state", "/wrong/state", "/token-of-a-tes/state", "//state", "/TOKEN-of-a-test/"]
)
def test_without_the_token_there_is_nothing(client: TestClient, path: str) -> None:
    answer = client.get(f"http://{HOST}{path}")
    assert answer.status_code == 403 and "csip review" in answer.text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:4321", "127.0.0.1", "127.0.0.1:4322", "localhost.evil.example:4321", ""]
)
def test_another_name_of_this_machine_is_refused(client: TestClient, host: str) -> None:
    """A site can make its own name lead here; the Host header tells."""
    assert client.get("state", headers={"host": host}).status_code == 421
    assert client.get("state", headers={"host": f"localhost:{PORT}"}).status_code == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "https://127.0.0.1:4321", "http://127.0.0.1:80"])
def test_other_pages_are_refused(client: TestClient, opened: stage.Opened, origin: str) -> None:
    assert client.get("state", headers={"origin": origin}).status_code == 403
    assert client.post("do", json={"do": "undo"}, headers={"origin": origin}).status_code == 403
    assert client.get("strip/0.jpg", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert client.get("state", headers={"origin": f"http://{HOST}"}).status_code == 200
    assert opened.review.version == 0


def test_bodies_are_json_and_bounded(client: TestClient, opened: stage.Opened) -> None:
    assert client.post("do", content=b"x", headers={"content-type": "text/plain"}).status_code == 415
    json_type = {"content-type": "application/json"}
    assert client.post("do", content=b" " * (2 << 20), headers=json_type).status_code == 413
    chunks = (b" " * 65536 for _ in range(40))
    assert client.post("do", content=chunks, headers=json_type).status_code == 413, "without a length, too"
    for bad in (b"", b"[]", b"{", b'"do"', b'{"do": "fly"}', b'{"do": ["undo"]}', b'{"do": "compare"}', b"[" * 100_000):
        answer = client.post("do", content=bad, headers=json_type)
        assert answer.status_code == 400 and answer.json()["error"], bad
    assert client.put("do", json={}).status_code == 405
    assert opened.review.version == 0


@pytest.mark.parametrize(
    "path",
    ["strip/../../../etc/passwd", "strip/%2e%2e%2f%2e%2e%2fetc%2fpasswd.jpg", "strip/-1.jpg", "strip/0.jpg/..", "strip/a.jpg",
     "strip/999.jpg", "strip/99999999999999999999.jpg", "frame/0/3.jpg", "frame/0/-1.jpg", "../data", "tracklets.csv",
     "near/999", "near/0?count=nan", "near/0?from=x"],
)  # fmt: skip
def test_nothing_is_served_by_path(client: TestClient, path: str) -> None:
    answer = client.get(f"http://{HOST}/{TOKEN}/{path}")
    assert answer.status_code in (400, 403, 404, 405)
    assert "root:" not in answer.text and "crops/" not in answer.text


def test_pictures_are_small_and_by_number(client: TestClient) -> None:
    answer = client.get("strip/0.jpg")
    assert answer.status_code == 200 and answer.headers["content-type"] == "image/jpeg"
    assert answer.content[:2] == b"\xff\xd8" and len(answer.content) < 30_000
    assert client.get("frame/0/2.jpg").status_code == 200


def test_kept_pictures_are_bounded(opened: stage.Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipelines.review_page import pictures

    monkeypatch.setattr(pictures, "KEPT", 10_000)
    shown = opened.server.pictures
    first = shown.strip(0)
    for row in range(20):
        shown.strip(row)
    assert sum(map(len, shown._kept.values())) <= 10_000
    assert shown.strip(0) == first


# ---- what is said -----------------------------------------------------------------------------------------------------


def answer_all(client: Any, hall: Hall, most: int = 60) -> int:
    names = client.get("tracklets").json()["names"]
    for count in range(most):
        found = client.get("questions").json()["questions"]
        if not found:
            return count
        a, b = names[found[0]["a"]], names[found[0]["b"]]
        same = hall.people[a] == hall.people[b]
        assert say(client, "compare", a=a, b=b, answer="same" if same else "different").status_code == 200
    return most


def test_questions_lead_to_the_truth_and_to_labels(client: TestClient, hall: Hall, opened: stage.Opened) -> None:
    answered = answer_all(client, hall)
    assert 0 < answered < 60
    groups = {tuple(sorted(person["rows"])) for person in client.get("people").json()["people"]}
    names = opened.review.basis.names
    true = {tuple(row for row, name in enumerate(names) if hall.people[name] == who) for who in range(5)}
    assert groups == true
    assert client.get("state").json()["progress"]["to_go"] == 0
    assert say(client, "save").status_code == 200
    from csip.data import folder

    people = folder.read_people(hall.root)
    assert len(set(people.values())) == 5
    assert all((people[a] == people[b]) == (hall.people[a] == hall.people[b]) for a in names for b in names)
    states = (hall.root / "labels.csv").read_text()
    assert "confirmed" in states and states.startswith("tracklet,person,state")
    assert client.get("state").json()["saved"]


def test_an_answer_that_comes_twice_counts_once(client: TestClient, hall: Hall) -> None:
    a, b, *_ = hall.people
    for _ in range(3):
        assert say(client, "compare", a=a, b=b, answer="same", key="k1").json() == {"version": 1}
    assert say(client, "compare", a=a, b=b, answer="same", key="k2").json() == {"version": 2}


def test_undo_without_limit(client: TestClient, hall: Hall) -> None:
    before = client.get("people").json()["people"]
    done = answer_all(client, hall, 5)
    for _ in range(done):
        assert say(client, "undo").status_code == 200
    assert client.get("people").json()["people"] == before
    answer = say(client, "undo")
    assert answer.status_code == 400 and "nothing to undo" in answer.json()["error"]


def test_groups_are_changed_by_hand(client: TestClient, hall: Hall) -> None:
    answer_all(client, hall)

    def groups() -> dict[str, list[int]]:
        return {person["title"]: person["rows"] for person in client.get("people").json()["people"]}

    names = client.get("tracklets").json()["names"]
    first, second = list(groups().values())[:2]
    say(client, "move", names=[names[first[0]]], to=None)
    assert [first[0]] in groups().values() and first[1:] in groups().values()
    say(client, "move", names=[names[first[0]]], to=names[second[0]])
    assert sorted([*second, first[0]]) in groups().values()
    say(client, "move", names=[names[first[0]]], to=names[first[1]])
    assert first in groups().values() and second in groups().values(), "and back again"
    say(client, "merge", names=[names[first[0]], names[second[0]]])
    assert sorted([*first, *second]) in groups().values()
    say(client, "undo")
    say(client, "rename", name=names[first[0]], title=" Anna <b> ")
    assert groups()["Anna <b>"] == first
    say(client, "mark", names=[names[first[1]]], **{"as": "junk"})
    assert groups()["Anna <b>"] == [first[0], *first[2:]]
    say(client, "save")
    assert names[first[1]] not in (hall.root / "labels.csv").read_text()
    say(client, "mark", names=[names[first[1]]], **{"as": "person"})
    assert groups()["Anna <b>"] == first
    for bad in ({"names": []}, {"names": "x"}, {"names": ["nobody"]}, {"names": [1]}):
        assert say(client, "move", to=None, **bad).status_code == 400
    for title in ("", "  ", "a\nb", "x" * 500):
        assert say(client, "rename", name=names[0], title=title).status_code == 400


def test_filters_of_the_search(client: TestClient, hall: Hall) -> None:
    data = client.get("tracklets").json()
    found = client.get("near/0").json()["found"]
    assert len(found) == len(data["names"]) - 1
    assert [one["distance"] for one in found] == sorted(one["distance"] for one in found)
    other = client.get("near/0?camera=1&count=3").json()["found"]
    assert len(other) == 3 and {data["camera"][one["row"]] for one in other} == {1}
    assert client.get("near/0?state=c").json()["found"] == []
    late = client.get("near/0?from=10").json()["found"]
    assert late and all(data["start"][one["row"]] >= 10 for one in late)


def test_any_picture_is_a_query(hall: Hall, untrained: Callable[[Settings], Path], settings: Settings) -> None:
    """By the model that has described the tracklets, which is named once and described with once."""
    source = stage.Source(hall.run, model=untrained(settings))
    opened = stage.open_data(hall.settings, source)
    made = (hall.run / "review.h5").stat()
    assert opened.review.basis.model != "0123456789abcdef"
    opened = stage.open_data(hall.settings, source)
    assert (hall.run / "review.h5").stat().st_mtime_ns == made.st_mtime_ns, "described once"
    names = list(hall.people)
    crop = (hall.root / f"crops/{names[0]}/001.jpg").read_bytes()
    with TestClient(opened.server.app(TOKEN, PORT), base_url=f"http://{HOST}/{TOKEN}/") as client:
        assert client.get("near/0").json()["crops"] == [0, 1, 2]
        row = opened.review.basis.rows[names[0]]
        by_crop = client.post("find", json={"row": row, "frame": 1, "camera": "1", "count": 3}).json()["found"]
        cameras = client.get("tracklets").json()["camera"]
        assert len(by_crop) == 3 and {cameras[one["row"]] for one in by_crop} == {1}
        by_picture = client.post("find", json={"picture": base64.b64encode(crop).decode()}).json()["found"]
        assert row in [one["row"] for one in by_picture[:4]], "its own tracklet is like it"
        _, bomb = cv2.imencode(".png", np.zeros((9000, 9000), np.uint8))
        for data in (bomb.tobytes(), b"no picture", b"", crop[:200]):
            answer = client.post("find", json={"picture": base64.b64encode(data).decode()})
            assert answer.status_code == 400 and "cannot be used" in answer.json()["error"]
        wrong = ({"picture": "?"}, {"row": 99, "frame": 0}, {"row": 0, "frame": 3}, {"row": "0", "frame": 0}, {"row": 0}, {},
                 {"row": 0, "frame": 0, "from": "x"}, {"row": 0, "frame": 0, "count": "1e999"})  # fmt: skip
        assert [client.post("find", json=one).status_code for one in wrong] == [400] * len(wrong)
        large = base64.b64encode(bytes(800_000)).decode()
        assert client.post("find", json={"picture": large}).status_code == 413


def test_without_its_model_a_picture_is_refused(
    client: TestClient, hall: Hall, untrained: Callable[[Settings], Path], settings: Settings
) -> None:
    answer = client.post("find", json={"row": 0, "frame": 0})
    assert answer.status_code == 400 and "--model" in answer.json()["error"]
    other = stage.open_data(hall.settings, stage.Source(hall.run, hall.run / "descriptors.h5", untrained(settings)))
    with TestClient(other.server.app(TOKEN, PORT), base_url=f"http://{HOST}/{TOKEN}/") as client:
        answer = client.post("find", json={"row": 0, "frame": 0})
        assert answer.status_code == 400 and "described by another model" in answer.json()["error"]


def test_the_page_splits_and_counts_as_the_doctor_does(client: TestClient, hall: Hall) -> None:
    answer = client.post("split", json={"share": 0.4, "seed": 1})
    made = answer.json()
    assert answer.status_code == 200 and made["out"] == str(hall.root.with_name("hall-split"))
    counts = next(one["text"] for one in made["findings"] if one["what"] == "counts")
    from csip.data import folder

    dataset = folder.load(hall.root.with_name("hall-split"))
    assert counts.startswith(
        f"{len({t.pid for t in dataset.train})} training identities, {len(dataset.train)} training"
    )
    assert next(one for one in made["findings"] if one["what"] == "identities")["fix"] == ""
    assert client.get("state").json()["saved"]
    for bad in ({"share": 2}, {"share": "x"}, {"seed": 0.5}, {"seed": -1}):
        assert client.post("split", json=bad).status_code == 400


# ---- labels that somebody else has changed ----------------------------------------------------------------------------


def test_a_spreadsheet_is_merged_and_conflicts_are_shown(client: TestClient, hall: Hall, opened: stage.Opened) -> None:
    answer_all(client, hall)
    say(client, "save")
    path = hall.root / "labels.csv"
    rows = dict(line.split(",")[:2] for line in path.read_text().splitlines()[1:])
    people = sorted(set(rows.values()))
    mine, theirs = ([name for name in rows if rows[name] == person] for person in people[:2])

    def edit(**changed: str) -> None:
        write_text(
            path, "tracklet,person\n" + "".join(f"{name},{person}\n" for name, person in (rows | changed).items())
        )

    edit(**{mine[0]: people[1]})
    assert client.get("state").json()["conflicts"], "shown until it is saved or opened again"
    assert say(client, "save").status_code == 200
    titles, grouping = opened.review.titles(), opened.review.grouping.people
    assert titles[grouping[opened.review.row(mine[0])]] == people[1], "taken over"

    rows = dict(line.split(",")[:2] for line in path.read_text().splitlines()[1:])
    edit(**{theirs[0]: people[2]})
    say(client, "move", names=[theirs[0]], to=None)
    refused = say(client, "save")
    assert refused.status_code == 400 and theirs[0] in refused.json()["error"]
    (conflict,) = client.get("state").json()["conflicts"]
    assert conflict["tracklet"] == theirs[0] and conflict["file"] == people[2]
    assert say(client, "settle", name=theirs[0], keep="file").status_code == 200
    assert say(client, "save").status_code == 200
    assert f"{theirs[0]},{people[2]}," in path.read_text()


def test_labels_of_a_stranger_are_taken_over(hall: Hall) -> None:
    names = list(hall.people)
    write_text(hall.root / "labels.csv", "tracklet,person\n" + "".join(f"{n},P{hall.people[n]}\n" for n in names))
    opened = stage.open_data(hall.settings, hall.source)
    assert opened.labels.conflicts(opened.review) == []
    titles, people = opened.review.titles(), opened.review.grouping.people
    assert all(titles[people[row]] == f"P{hall.people[name]}" for row, name in enumerate(names))


# ---- a training round ------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_model_that_knows_more_asks_less(tmp_path: Path) -> None:
    """The same tracklets, described before and after: fewer answers until the labels are safe, and better labels."""
    asked, reached = [], []
    for noise in (0.6, 0.2):
        hall = make_hall(tmp_path / str(noise), people=12, cameras=2, noise=noise)
        opened = stage.open_data(hall.settings, hall.source)
        result = simulate_review.simulate(opened, Annotator(Truth(hall.people)))
        asked.append(len(result.curve) - 1)
        reached.append(result.curve[-1])
    assert asked[1] <= 0.7 * asked[0]
    assert reached[1] == 1.0 > reached[0] >= 0.9


def test_a_simulated_review_over_http_is_recorded(hall: Hall, tmp_path: Path) -> None:
    """From the true boxes of rendered videos; a tracklet of two people is marked, one of nobody, too."""
    table, names = hall.root / "tracklets.csv", list(hall.people)
    lines = table.read_text().splitlines()[1:]
    truth: dict[str, list[str]] = {"cam1": [], "cam2": []}
    for line in lines:
        name, _, camera, frame, _, _, number, *box = line.split(",")
        person = hall.people[name]
        if name == names[0]:
            person = 7 + int(frame[-5])  # another person in every frame
        if name != names[1]:
            truth[camera].append(",".join([number, str(person), *box]))
    for camera, boxes in truth.items():
        write_text(tmp_path / f"gt/{camera}.txt", "".join(f"{line},1,1,1\n" for line in boxes))
    found = truth_of_scenes(hall.root, tmp_path / "gt")
    assert found.marks == {names[0]: "mixed", names[1]: "junk"}
    assert {name: found.people[name] for name in names[2:]} == {name: hall.people[name] for name in names[2:]}
    result = simulate_review.run(hall.settings, hall.source, tmp_path / "gt")
    assert result.curve[-1] == 1.0
    record = json.loads((hall.run / "review.json").read_text())
    assert record == {"rate": 0.0, "tracklets": len(names), "curve": list(result.curve)}
    with pytest.raises(CsipError, match="there are answers already"):
        simulate_review.run(hall.settings, hall.source, tmp_path / "gt")


# ---- the journal ------------------------------------------------------------------------------------------------------


def test_the_same_state_after_a_restart(client: TestClient, hall: Hall, opened: stage.Opened) -> None:
    answer_all(client, hall, 6)
    say(client, "undo")
    say(client, "rename", name=next(iter(hall.people)), title="Anna")
    before = [client.get(what).json() for what in ("people", "questions")]
    again = stage.open_data(hall.settings, hall.source)
    with TestClient(again.server.app(TOKEN, PORT), base_url=f"http://{HOST}/{TOKEN}/") as other:
        assert [other.get(what).json() for what in ("people", "questions")] == before


def test_a_torn_last_line_is_dropped_with_a_word(tmp_path: Path) -> None:
    path, said = tmp_path / "review.jsonl", []
    journal = Journal(path, "hall")
    journal.add({"do": "undo", "of": 1})
    whole = path.read_bytes()
    for cut in range(1, 8):
        path.write_bytes(whole + b'{"do": "undo"}'[:cut])
        assert Journal(path, "hall", said.append).entries == [{"do": "undo", "of": 1}]
        assert path.read_bytes() == whole
    assert len(said) == 7 and "cut off" in said[0]
    path.write_bytes(whole + b"no json\n" + whole)
    with pytest.raises(CsipError, match="line 3 is damaged"):
        Journal(path, "hall")
    for entry, reason in (
        ('{"do": "undo"}', "undo.of: Field required"),
        ('{"do": "compare", "a": "x", "b": "y", "answer": "no"}', "compare.answer: .*found 'no'"),
        ('{"do": "fly"}', "found"),
        ('{"do": "mark", "names": "x", "as": "junk"}', "mark.names: "),
    ):
        path.write_bytes(whole + entry.encode() + b"\n")
        with pytest.raises(CsipError, match=f"line 3 is damaged .*{reason}"):
            Journal(path, "hall")
    path.write_bytes(whole)
    with pytest.raises(CsipError, match="expected answers about data set shop, found 'hall'"):
        Journal(path, "shop")


def test_other_commands_leave_a_journal_that_is_being_written_as_it_is(hall: Hall) -> None:
    path, names = hall.root / "review.jsonl", list(hall.people)
    assert left_out(hall.root, "hall") == {} and not path.exists()
    Journal(path, "hall").add({"do": "mark", "names": names[:2], "as": "junk"})
    content = path.read_bytes() + b'{"do": "mark", "names"'
    path.write_bytes(content)
    assert left_out(hall.root, "hall") == dict.fromkeys(names[:2], "junk")
    assert path.read_bytes() == content, "the rest of the line is on its way"
    with pytest.raises(CsipError, match="expected answers about data set shop"):
        left_out(hall.root, "shop")


def test_a_full_disk_loses_nothing_that_was_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "review.jsonl"
    journal = Journal(path, "hall")
    whole, write = path.read_bytes(), os.write

    def full(descriptor: int, data: bytes) -> int:
        write(descriptor, data[:5])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        journal.add({"do": "undo", "of": 1})
    monkeypatch.undo()
    assert path.read_bytes() == whole and journal.entries == []


def test_a_second_server_is_refused(hall: Hall) -> None:
    with held(hall.root / stage.LOCK, "the review"), pytest.raises(PoseCacheError, match="process"):
        stage.run(hall.settings, hall.source, browser=False)


WRITE = """
import sys
from pathlib import Path
from csip.review.journal import Journal
from csip.review.review import left_out
from csip.review.simulate import Annotator, Truth, truth_of_scenes
journal = Journal(Path(sys.argv[1]), "hall")
for line in sys.stdin:
    print(journal.add({"do": "compare", "a": "x", "b": "y", "answer": "same", "key": line.strip()}), flush=True)
"""


@pytest.mark.slow
def test_a_journal_killed_at_random_moments_has_every_answer_that_was_taken(tmp_path: Path) -> None:
    chance, path, taken = random.Random(3), tmp_path / "review.jsonl", 0
    for number in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdin is not None and process.stdout is not None
        for step in range(chance.randrange(4)):
            process.stdin.write(f"{number}-{step}\n")
            process.stdin.flush()
            assert int(process.stdout.readline()) > taken
            taken += 1
        process.stdin.write(f"{number}-in flight\n")
        process.stdin.flush()
        process.kill()
        process.wait()
        entries = [entry["key"] for entry in Journal(path, "hall").entries]
        assert len(entries) == len(set(entries)) and taken <= len(entries) <= taken + 1
        taken = len(entries)


@pytest.mark.slow
def test_killed_between_answers_nothing_is_lost_and_none_counts_twice(hall: Hall) -> None:
    """Killed at random moments, the answer in flight sent again under its key after the restart."""
    chance, names = random.Random(5), list(hall.people)
    told: list[str] = []
    for number in range(KILLS):
        process, address = start(hall)
        with httpx.Client(base_url=address, timeout=20) as client:
            if told:
                say(client, "compare", a=names[0], b=names[1], answer="same", key=told[-1])
            entries = Journal(hall.root / "review.jsonl", "hall").entries
            assert [entry["key"] for entry in entries] == told
            for step in range(chance.randrange(3)):
                told.append(f"{number}-{step}")
                say(client, "compare", a=names[0], b=names[1], answer="same", key=told[-1])
            # One more is on its way while the server dies.
            told.append(f"{number}-last")
            if chance.random() < 0.3:
                os.kill(process.pid, signal.SIGSTOP)
            last = {"do": "compare", "a": names[0], "b": names[1], "answer": "same", "key": told[-1]}
            with contextlib.suppress(httpx.HTTPError):
                client.post("do", json=last, timeout=chance.choice((0.001, 0.01, 0.05)))
            process.kill()
            process.wait()
    process, address = start(hall)
    with httpx.Client(base_url=address, timeout=20) as client:
        say(client, "compare", a=names[0], b=names[1], answer="same", key=told[-1])
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0, "which is how it is ended"
    assert [entry["key"] for entry in Journal(hall.root / "review.jsonl", "hall").entries] == told
    assert (hall.root / "labels.csv").exists(), "written when it is told to end"


def start(hall: Hall) -> tuple[subprocess.Popen[str], str]:
    options = ["--dataset", "hall", "--root", str(hall.root), "--run", str(hall.run), "--no-browser"]
    arguments = [sys.executable, "-u", "-m", "pipelines", "review", *options]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        found = re.search(r"http://\S+", line)
        if found:
            return process, found[0]
    raise AssertionError("it did not start")


def test_the_journal_is_lines_of_json(client: TestClient, hall: Hall) -> None:
    answer_all(client, hall, 3)
    lines = (hall.root / "review.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"format": 1, "dataset": "hall"}
    assert all(json.loads(line)["do"] == "compare" for line in lines[1:])


# ---- split ------------------------------------------------------------------------------------------------------------


def test_a_reviewed_data_set_is_divided(client: TestClient, hall: Hall, tmp_path: Path) -> None:
    from csip.data import folder
    from pipelines import split_dataset

    with pytest.raises(CsipError, match=r"labels\.csv: missing; `csip review`"):
        split_dataset.run(hall.settings)
    answer_all(client, hall)
    aside = next(iter(hall.people))
    say(client, "mark", names=[aside], **{"as": "mixed"})
    say(client, "save")
    result = split_dataset.run(hall.settings, seed=1)
    dataset = folder.load(hall.root.with_name("hall-split"))
    assert result.train + result.tested == 5
    assert {t.name for t in dataset.train} == {name for name, part in result.parts.items() if part == "train"}
    assert dataset.query == dataset.gallery and aside not in result.parts
    assert len(dataset.train) + len(dataset.query) == len(hall.people) - 1
    assert all((dataset.root / frame).is_file() for t in dataset.query for frame in t.frames)
    assert split_dataset.run(hall.settings, seed=1) == result, "again, over itself"
    (tmp_path / "other/crops").mkdir(parents=True)
    with pytest.raises(CsipError, match="expected a link"):
        split_dataset.run(hall.settings, tmp_path / "other")
    (tmp_path / "third/elsewhere").mkdir(parents=True)
    (tmp_path / "third" / folder.TABLE).write_text("of another data set")
    with pytest.raises(CsipError, match="elsewhere: expected a link"):
        split_dataset.run(hall.settings, tmp_path / "third")
    assert (tmp_path / "third" / folder.TABLE).read_text() == "of another data set"
