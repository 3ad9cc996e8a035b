"""The page of a review in a real browser, headless: answers by mouse and keyboard, from the proposal to saved labels."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from review_data import Hall, make_hall

from csip.data import folder
from csip.data.dataset import Tracklet
from csip.files import write_text
from pipelines import review_tracklets as stage

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
GONE = "ERR_CONNECTION_REFUSED"  # what a browser says itself of a server that has been stopped

pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium"), pytest.mark.slow]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


class Served:
    """A review that is served by a thread."""

    def __init__(self, hall: Hall) -> None:
        self.hall = hall
        self.opened = stage.open_data(hall.settings, hall.source)
        self._running = contextlib.ExitStack()
        self.address = self._running.enter_context(stage.in_background(self.opened))

    def stop(self) -> None:
        self._running.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(make_hall(tmp_path))
    yield served
    served.stop()


@pytest.fixture
def view(browser: Any, served: Served) -> Iterator[Callable[..., Any]]:
    """Open the page; nothing may be asked of anybody else, or complained of."""
    contexts, complaints = [], []

    def open_page(width: int = 1280, height: int = 900, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text) if GONE not in message.text else None)
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        own = (served.address, "data:")
        tab.on("request", lambda asked: None if asked.url.startswith(own) else complaints.append(asked.url))
        tab.goto(served.address)
        tab.locator(".pair, .about").first.wait_for()
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def answers(tab: Any, count: int) -> None:
    tab.locator(f"html[data-answers='{count}']").wait_for()
    assert tab.locator("#progress").inner_text().startswith(f"{count} answer")


def shown(tab: Any) -> list[str]:
    return tab.locator(".pair .name").evaluate_all("all => all.map(e => e.firstChild.textContent)")


def people(tab: Any) -> dict[str, list[str]]:
    sections = tab.locator("#people .person")
    return {
        section.get_attribute("aria-label"): [
            cell.get_attribute("aria-label").split(",")[0] for cell in section.locator(".cell").all()
        ]
        for section in sections.all()
    }


def test_from_the_proposal_to_saved_labels_by_keyboard_alone(view: Callable[..., Any], served: Served) -> None:
    tab, truth = view(), served.hall.people
    count = 0
    while tab.locator(".pair").count() and count < 40:
        a, b = shown(tab)
        tab.keyboard.press("s" if truth[a] == truth[b] else "d")
        count += 1
        answers(tab, count)
    assert 0 < count < 40 and "No pair is left" in tab.locator("#pairs").inner_text()
    for _ in range(30):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.id") == "save":
            break
    assert tab.evaluate("parseFloat(getComputedStyle(document.activeElement).outlineWidth)") >= 2, "focus is to be seen"
    tab.keyboard.press("Enter")
    playwright.expect(tab.locator("#save")).to_have_text("Saved")
    found = folder.read_people(served.hall.root)
    assert all((found[a] == found[b]) == (truth[a] == truth[b]) for a in truth for b in truth)


def test_answers_by_mouse_undo_and_reload(view: Callable[..., Any], served: Served) -> None:
    tab = view()
    before = shown(tab)
    tab.get_by_role("button", name="Same").click()
    answers(tab, 1)
    tab.get_by_role("button", name="Not sure").click()
    answers(tab, 2)
    here = shown(tab)
    tab.reload()
    answers(tab, 2)
    assert shown(tab) == here
    tab.keyboard.press("u")
    answers(tab, 1)
    tab.get_by_role("button", name="Undo").click()
    answers(tab, 0)
    assert shown(tab) == before and tab.get_by_role("button", name="Undo").is_disabled()
    tab.get_by_role("button", name="Left: no person").click()
    answers(tab, 1)
    assert before[0] not in shown(tab)


def test_split_merge_move_and_name(view: Callable[..., Any], served: Served) -> None:
    tab = view()
    tab.get_by_role("tab", name="People").click()
    tab.locator("#people .person").first.wait_for()
    start = people(tab)
    names = next(names for names in start.values() if len(names) > 2)
    tab.get_by_role("button", name=f"{names[0]},").click()
    tab.get_by_role("button", name=f"{names[1]},").click()
    assert "2 tracklets chosen" in tab.get_by_role("group", name="Chosen tracklets").inner_text()
    tab.keyboard.press("x")
    answers(tab, 1)
    assert names[:2] in people(tab).values() and names[2:] in people(tab).values()
    for name in (names[0], names[2]):
        tab.get_by_role("button", name=f"{name},").focus()
        tab.keyboard.press("Space")
    tab.keyboard.press("m")
    answers(tab, 2)
    assert sorted(names) in [sorted(found) for found in people(tab).values()]
    here = next(title for title, found in people(tab).items() if names[0] in found)
    tab.get_by_role("button", name=f"Name: {here}").click()
    tab.get_by_role("textbox", name="Name of the person").fill("Anna <img src=x>")
    tab.keyboard.press("Enter")
    answers(tab, 3)
    assert "Anna <img src=x>" in people(tab) and tab.locator("img[src=x]").count() == 0
    other = next(title for title in people(tab) if not title.startswith("Anna"))
    tab.get_by_role("button", name=f"{names[0]},").drag_to(tab.get_by_role("heading", name=other))
    answers(tab, 4)
    assert names[0] in people(tab)[other]
    tab.get_by_role("button", name=f"{names[0]},").click()
    tab.keyboard.press("j")
    answers(tab, 5)
    assert people(tab)["Left out"] == [names[0]]
    for count in range(4, -1, -1):
        tab.keyboard.press("u")
        answers(tab, count)
    assert people(tab) == start


def test_merge_and_split_by_keyboard_alone(view: Callable[..., Any], served: Served) -> None:
    """From the tab to the people, by arrows, Tab, Space and letters."""
    tab = view()

    def focus(wanted: str, most: int = 60) -> None:
        for _ in range(most):
            if tab.evaluate(
                "document.activeElement.getAttribute('aria-label') || document.activeElement.textContent"
            ).startswith(wanted):
                return
            tab.keyboard.press("Tab")
        raise AssertionError(f"{wanted} was not reached")

    focus("Pairs")
    tab.keyboard.press("ArrowRight")
    tab.locator("#people .person").first.wait_for()
    names = next(names for names in people(tab).values() if len(names) > 2)
    for name in names[:2]:
        focus(f"{name},")
        tab.keyboard.press("Space")
    tab.keyboard.press("x")
    answers(tab, 1)
    assert names[:2] in people(tab).values()
    for name in (names[0], names[2]):
        for _ in range(120):
            if tab.evaluate("document.activeElement.getAttribute('aria-label') || ''").startswith(f"{name},"):
                break
            tab.keyboard.press("Tab")
        tab.keyboard.press("Space")
    tab.keyboard.press("m")
    answers(tab, 2)
    assert sorted(names) in [sorted(found) for found in people(tab).values()]
    tab.keyboard.press("u")
    answers(tab, 1)


def test_any_crop_and_any_picture_is_a_query(
    view: Callable[..., Any], served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the page sends; what a model makes of it is tested with the server."""
    sent: list[Any] = []

    class Search:
        def of_crop(self, tracklet: Tracklet, number: int) -> np.ndarray:
            sent.append((tracklet.name, number))
            return np.ones(12, np.float32)

        def of_upload(self, data: bytes) -> np.ndarray:
            sent.append(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape)
            return np.ones(12, np.float32)

    monkeypatch.setattr(served.opened.server, "_search", Search())
    tab, names = view(), list(served.hall.people)
    tab.get_by_role("tab", name="Search").click()
    tab.get_by_role("combobox", name="Tracklet").fill(names[0])
    tab.keyboard.press("Enter")
    frames = tab.get_by_role("group", name="Search with one frame").get_by_role("button")
    playwright.expect(frames).to_have_count(3)
    frames.nth(1).click()
    note = tab.locator("#search .count")
    playwright.expect(note).to_contain_text("nearest tracklets")
    playwright.expect(frames.nth(1)).to_have_attribute("aria-pressed", "true")
    assert tab.locator("#search .cells li").count() == len(names) - 1
    picture = served.hall.root / f"crops/{names[3]}/001.jpg"
    tab.get_by_label("Picture").set_input_files(picture)
    tab.get_by_role("img", name="The picture that is searched for").wait_for()
    playwright.expect(note).to_contain_text("nearest tracklets")
    assert tab.get_by_role("button", name="Same person").count() == 0, "a picture is no tracklet"
    assert tab.locator("#search .cells li").count() == min(24, len(names))
    cv2.imwrite(str(served.hall.root / "large.png"), np.zeros((3000, 1500, 3), np.uint8))
    tab.get_by_label("Picture").set_input_files(served.hall.root / "large.png")
    # Not wait_for_function, whose eval the page's policy may forbid.
    playwright.expect(tab.locator(".asked .picture")).to_have_js_property("naturalHeight", 512)
    playwright.expect(note).to_contain_text("nearest tracklets")
    assert sent == [(names[0], 1), (64, 32, 3), (512, 256, 3)], "large pictures are made small before they are sent"
    tab.get_by_label("Picture").set_input_files(served.hall.root / "tracklets.csv")
    playwright.expect(note).to_contain_text("no picture")


def test_the_split_shows_what_the_doctor_counts(view: Callable[..., Any], served: Served) -> None:
    tab = view(390, 844, has_touch=True)
    tab.get_by_role("tab", name="Split").click()
    tab.get_by_role("spinbutton", name="People who train (%)").fill("40")
    tab.get_by_role("spinbutton", name="Seed").fill("1")
    tab.get_by_role("button", name="Save labels and split").click()
    tab.locator("#split .findings").wait_for()
    assert "training identities" in tab.locator("#split .findings").inner_text()
    assert (served.hall.root.with_name("hall-split") / folder.TABLE).is_file()
    assert "Written to" in tab.locator("#split [role=status]").inner_text()
    assert tab.evaluate("document.documentElement.scrollWidth") == 390


def test_a_contradiction_is_shown(view: Callable[..., Any], served: Served) -> None:
    tab = view()
    a, b = list(served.hall.people)[:2]
    served.opened.review.compare(a, b, "same")
    note = tab.locator(".contradiction")
    note.wait_for()
    assert a in note.inner_text() and "Contradicts" in note.inner_text(), "both were in sight together"
    tab.keyboard.press("u")
    note.wait_for(state="detached")
    served.opened.review.compare(a, b, "same")
    note.get_by_role("button", name="Merge all the same").click()
    note.wait_for(state="detached")
    assert (0, 1) in served.opened.review.overlaps(), "and marked in the timeline"


def test_a_conflict_with_a_spreadsheet(view: Callable[..., Any], served: Served) -> None:
    tab, review = view(), served.opened.review
    tab.get_by_role("button", name="Same").click()
    answers(tab, 1)
    tab.get_by_role("button", name="Save").click()
    playwright.expect(tab.locator("#save")).to_have_text("Saved")
    path = served.hall.root / "labels.csv"
    name = review.basis.names[0]
    lines = path.read_text().splitlines()
    write_text(path, "".join(f"{name},Zoe\n" if line.startswith(f"{name},") else f"{line}\n" for line in lines))
    review.move([name], None)
    conflict = tab.locator(".conflict")
    conflict.wait_for()
    assert "Zoe" in conflict.inner_text()
    tab.get_by_role("button", name="Keep the file's").click()
    conflict.wait_for(state="detached")
    tab.get_by_role("tab", name="People").click()
    tab.locator("#people .person").first.wait_for()
    assert people(tab)["Zoe"] == [name]


def test_two_windows_stay_in_step(view: Callable[..., Any], served: Served) -> None:
    one, other = view(), view()
    one.keyboard.press("d")
    answers(one, 1)
    answers(other, 1)
    assert shown(one) == shown(other)
    other.keyboard.press("u")
    answers(one, 0)


def test_the_search_and_the_timeline(view: Callable[..., Any], served: Served) -> None:
    tab, names = view(), list(served.hall.people)
    tab.get_by_role("tab", name="Search").click()
    tab.get_by_role("combobox", name="Tracklet").fill(names[0])
    tab.keyboard.press("Enter")
    cells = tab.locator("#search .cells li")
    cells.first.wait_for()
    assert cells.count() == len(names) - 1
    tab.get_by_role("combobox", name="Camera").select_option("cam2")
    playwright.expect(cells).to_have_count(len(names) // 2)
    tab.get_by_role("button", name="Same person").first.click()
    answers(tab, 1)
    tab.get_by_role("tab", name="Timeline").click()
    playwright.expect(tab.locator("#timeline rect")).to_have_count(len(names))
    assert "no impossible overlaps" in tab.locator("#timeline .count").inner_text()
    served.opened.review.merge(names[:2])
    tab.locator("#timeline .clash").first.wait_for()
    assert "impossible overlap" in tab.locator("#timeline .count").inner_text()
    assert f"{names[0]} and {names[1]}" in tab.locator("#timeline .count").inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(view: Callable[..., Any], scheme: str) -> None:
    tab = view(390, 844, color_scheme=scheme, has_touch=True)
    for name in ("Pairs", "People", "Search", "Timeline", "Split"):
        tab.get_by_role("tab", name=name).click()
        tab.wait_for_timeout(150)
        assert tab.evaluate("document.documentElement.scrollWidth") == 390, name
        small = (
            "all => all.filter(e => e.offsetParent && e.getBoundingClientRect().height < 24).map(e => e.textContent)"
        )
        assert tab.locator("main button").evaluate_all(small) == []
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 20, 25)"
    assert dark == (scheme == "dark")


def test_everything_has_a_name_aloud(view: Callable[..., Any]) -> None:
    tab = view()
    nameless = (
        "all => all.filter(e => !e.labels?.length && !e.ariaLabel && !e.textContent.trim()).map(e => e.outerHTML)"
    )
    for name in ("Pairs", "People", "Search", "Timeline", "Split"):
        tab.get_by_role("tab", name=name).click()
        tab.wait_for_timeout(150)
        assert tab.locator("button, input, select").evaluate_all(nameless) == []
        assert tab.locator(".strip[role=img]:not([aria-label])").count() == 0
    assert tab.locator("[role=status]").count() >= 1 and tab.locator("h1").count() == 1


def test_the_page_says_that_the_server_has_gone(view: Callable[..., Any], served: Served) -> None:
    tab = view()
    served.stop()
    tab.locator("#message").wait_for()
    assert "start csip review again" in tab.locator("#message").inner_text()
