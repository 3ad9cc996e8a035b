"""The report's page in a real browser, headless: does it load alone, work by mouse and keyboard, and fit a phone?"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_runs import CAMERAS, HOSTILE, PEOPLE, TRAINED, Run, describe, figures_of, large_dataset, make_run

from csip.monitor import Silent
from csip.retrieval import projection
from pipelines.report_page import lists, page

pytestmark = pytest.mark.slow

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
TRACKLETS = PEOPLE * CAMERAS * 2

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tower: Path) -> Run:
    return make_run(tmp_path_factory.mktemp("report"), tower)


@pytest.fixture(scope="module")
def report(run: Run) -> Path:
    return page.write(run.settings, run.folder, None, run.cache, Silent())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def view(browser: Any) -> Iterator[Callable[..., Any]]:
    """Open a page from its file; at the end of the test nothing may have been asked of a network or complained of."""
    contexts, complaints = [], []

    def open_page(path: Path, width: int = 1280, height: int = 900, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda asked: complaints.append(asked.url) if asked.url != path.as_uri()
               and not asked.url.startswith("data:") else None)  # fmt: skip
        tab.goto(path.as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def names(tab: Any) -> list[str]:
    return tab.locator(".query h3").all_text_contents()


# ---- in the browser --------------------------------------------------------------------------------------------------


@needs_browser
def test_it_shows_every_part(view: Callable[..., Any], report: Path) -> None:
    tab = view(report)
    for part in ("figures", "ranked", "map", "attention", "training", "data", "model"):
        assert tab.locator(f"section#{part} h2").is_visible(), part
    assert tab.locator(".stat .value").count() == 4
    assert tab.locator("#training svg.chart").count() == 4
    assert tab.locator("#plane .point").count() == TRACKLETS
    assert tab.locator(".case .frame .heat").count() > 0
    decoded = "images => images.every(i => i.complete && i.naturalWidth > 0)"
    assert tab.locator("img").evaluate_all(decoded)
    assert TRAINED in tab.locator("#model").inner_text()


@needs_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_phone(view: Callable[..., Any], report: Path, scheme: str) -> None:
    tab = view(report, 390, 844, color_scheme=scheme, has_touch=True)
    tab.locator("details summary").click()
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    inside = "e => e.getBoundingClientRect().right <= 391 || e.closest('.scroll, .contents, .reel, pre')"
    assert tab.locator("body *").evaluate_all(f"all => all.every({inside})")
    dark = tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(15, 20, 25)"
    assert dark == (scheme == "dark")


@needs_browser
def test_lists_are_paged(view: Callable[..., Any], report: Path) -> None:
    tab = view(report)
    first = names(tab)
    assert len(first) == 10 and tab.locator("#page").inner_text() == "Page 1 of 4"
    assert tab.locator("#previous").is_disabled()
    seen = list(first)
    for number in (2, 3, 4):
        tab.locator("#next").click()
        assert tab.locator("#page").inner_text() == f"Page {number} of 4"
        seen += names(tab)
    assert tab.locator("#next").is_disabled() and len(seen) == len(set(seen)) == TRACKLETS
    tab.locator("#size").select_option("25")
    assert names(tab) == seen[:25] and tab.locator("#page").inner_text() == "Page 1 of 2"
    assert all(count == 10 for count in tab.locator(".found").evaluate_all("all => all.map(l => l.children.length)"))


@needs_browser
def test_lists_are_filtered_and_ordered(view: Callable[..., Any], report: Path, run: Run) -> None:
    tab = view(report)
    tab.locator("#size").select_option("25")
    d = run.descriptors
    camera = dict(zip(d.names, d.cameras.tolist(), strict=True))
    tab.locator("#by-camera").select_option("cam2")
    assert len(names(tab)) == TRACKLETS // 2 and {camera[name] for name in names(tab)} == {2}
    tab.locator("#by-camera").select_option("")

    tab.locator("#by-outcome").select_option("wrong")
    wrong = names(tab)
    assert wrong and tab.locator(".query .found li:first-child.is-right").count() == 0
    tab.locator("#by-outcome").select_option("right")
    assert tab.locator(".query .found li:first-child.is-wrong").count() == 0
    scored = json.loads((run.folder / "metrics.json").read_text())["figures"]
    assert tab.locator("#count").inner_text() == f"{round(scored['rank1'] * TRACKLETS)} of {TRACKLETS} queries"
    assert len(wrong) == round((1 - scored["rank1"]) * TRACKLETS)

    tab.locator("#by-outcome").select_option("")
    worst = names(tab)
    tab.locator("#order").select_option("best")
    assert names(tab)[-1] == worst[TRACKLETS - 25], "the other way round"
    tab.locator("#by-text").fill("WALK-3-1")
    assert sorted(names(tab)) == ["walk-3-1-0", "walk-3-1-1"]
    tab.locator("#by-text").fill("nobody")
    assert names(tab) == [] and tab.locator("#count").inner_text() == "No query is like that."


@needs_browser
def test_right_and_wrong_are_told_by_sign_and_aloud(view: Callable[..., Any], report: Path, run: Run) -> None:
    tab = view(report)
    tab.locator("#size").select_option("25")
    d = run.descriptors
    person = dict(zip(d.names, d.identities.tolist(), strict=True))
    for query in tab.locator(".query").all()[:6]:
        asked = query.locator("h3").inner_text()
        for place, item in enumerate(query.locator(".found li").all(), start=1):
            label = item.locator(".strip").get_attribute("aria-label")
            right = label.startswith(f"Rank {place}, right, ")
            assert right or label.startswith(f"Rank {place}, wrong, ")
            name = label.split(", ", 2)[2].rpartition(", distance")[0].rpartition(", person")[0]
            assert (person[name] == person[asked]) == right
            assert item.locator("b").inner_text() == f"{'✓' if right else '✗'} {place}"
            assert right == ("is-right" in item.get_attribute("class"))


@needs_browser
def test_the_keyboard_reaches_and_works_everything(view: Callable[..., Any], report: Path) -> None:
    tab = view(report)
    wanted = {"by-camera", "by-outcome", "order", "by-text", "motion", "bones", "next", "size", "plane", "heat"}
    reached = set()
    for _ in range(90):
        if reached == wanted:
            break
        tab.keyboard.press("Tab")
        here = tab.evaluate(
            "() => [document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle, "
            "parseFloat(getComputedStyle(document.activeElement).outlineWidth)]"
        )
        if here[0] in wanted:
            assert here[1] != "none" and here[2] >= 2, f"focus on {here[0]} is not to be seen"
            reached.add(here[0])
        if here[0] == "next":
            tab.keyboard.press("Enter")
            assert tab.locator("#page").inner_text().startswith("Page 2")
        if here[0] == "bones":
            tab.keyboard.press("Space")
        if here[0] == "plane":
            tab.keyboard.press("ArrowRight")
            before = tab.locator("#seen").inner_text()
            moves = ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp")
            after = []
            for key in moves:
                tab.keyboard.press(key)
                after.append(tab.locator("#seen").inner_text())
            assert any(text != before for text in after) and tab.locator("#plane .chosen").count() == 1
            tab.keyboard.press("Escape")
            assert tab.locator("#plane .chosen").count() == 0
    assert reached == wanted
    nameless = "all => all.filter(e => !e.labels?.length && !e.ariaLabel && !e.textContent.trim()).map(e => e.id)"
    assert tab.locator("button, input, select").evaluate_all(nameless) == []


@needs_browser
def test_pictures_move_unless_one_would_rather_not(view: Callable[..., Any], report: Path) -> None:
    running = "() => document.querySelector('#queries .reel.many').getAnimations().length"
    tab = view(report)
    assert tab.evaluate(running) == 1
    tab.locator("#motion").click()
    assert tab.evaluate(running) == 0 and tab.locator("#motion").get_attribute("aria-pressed") == "false"
    calm = view(report, reduced_motion="reduce")
    assert calm.evaluate(running) == 0
    calm.locator("#motion").click()
    assert calm.evaluate(running) == 1, "who asks for it gets it"


@needs_browser
def test_a_strip_shows_one_whole_frame_after_the_other(view: Callable[..., Any], report: Path) -> None:
    tab = view(report)
    places = tab.evaluate(
        """() => {
          const reel = document.querySelector('#queries .reel.many'), motion = reel.getAnimations()[0];
          const frames = Number(reel.style.getPropertyValue('--n')), length = motion.effect.getTiming().duration;
          motion.pause();
          return Array.from({length: frames}, (_, i) => {
            motion.currentTime = (i + 0.5) / frames * length;
            return (reel.parentElement.getBoundingClientRect().left + reel.parentElement.clientLeft
              - reel.getBoundingClientRect().left) / reel.parentElement.clientWidth;
          });
        }"""
    )
    assert places == pytest.approx([0, 1, 2, 3], abs=0.01)


@needs_browser
def test_skeletons_are_drawn_on_demand(view: Callable[..., Any], report: Path) -> None:
    tab = view(report)
    drawn = tab.locator("#queries .skeleton").first
    assert not drawn.is_visible()
    tab.locator("#bones").click()
    assert drawn.is_visible()
    # 4 frames, and of 18 lines the two at the wrist that was not found are left out
    lines = drawn.locator(".under").get_attribute("d").count("M")
    assert lines == 4 * (len(json.loads(tab.locator("#page-data").text_content())["bones"]) - 1)


@needs_browser
def test_the_map_shows_a_tracklet_and_its_person(view: Callable[..., Any], report: Path, run: Run) -> None:
    tab = view(report)
    tab.locator(".to-map").first.click()
    name = names(tab)[0]
    seen = tab.locator("#seen")
    assert name in seen.inner_text() and f"{2 * CAMERAS - 1} other tracklets of the same person" in seen.inner_text()
    assert tab.locator("#plane .link").count() == 2 * CAMERAS - 1
    tab.keyboard.press("Escape")
    point = tab.locator("#plane .point").nth(3)
    box = point.bounding_box()
    tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert tab.locator("#plane .chosen").count() == 1 and seen.locator(".strip").is_visible()
    for by, count in (("camera", CAMERAS), ("person", PEOPLE)):
        tab.locator(f"input[value={by}]").check()
        assert tab.locator("#map-legend li").count() == count


@needs_browser
def test_names_are_text_whatever_is_in_them(view: Callable[..., Any], report: Path) -> None:
    tab = view(report)
    tab.locator("#by-text").fill("script")
    assert names(tab) == [HOSTILE]
    tab.locator(".to-map").click()
    assert HOSTILE in tab.locator("#seen").inner_text()
    assert tab.title() == "figures: re-identification report"
    assert tab.locator("script").count() == 2 and tab.locator("img[src=x]").count() == 0


@needs_browser
def test_people_whom_nobody_has_named(view: Callable[..., Any], tmp_path: Path, tower: Path) -> None:
    run = make_run(tmp_path, tower, named=False)
    out = page.write(run.settings, run.folder, None, run.cache, Silent())
    tab = view(out)
    assert tab.locator("#ranked-title").inner_text() == "Nearest neighbours"
    assert tab.locator("#figures").count() == tab.locator("#by-outcome").count() == 0
    assert tab.locator(".sign, .is-right, .is-wrong").count() == 0
    assert "✓" not in tab.locator("body").inner_text() and "✗" not in tab.locator("body").inner_text()
    assert tab.locator("#plane .point").count() == TRACKLETS + 2 * CAMERAS, "everybody, as nobody trains"
    assert tab.locator("input[name=colour]").count() == 1
    own = tab.locator(".query").first
    assert own.locator("h3").inner_text() not in own.locator(".found").inner_text()

    rows = [f"walk-{p}-{c}-{w},group {p % 2}" for p in (2, 3, 4, 5) for c in (1, 2) for w in (0, 1)]
    (run.dataset.root / "labels.csv").write_text("\n".join(["tracklet,person", *rows]) + "\n")
    tab = view(page.write(run.settings, run.folder, None, run.cache, Silent()))
    tab.locator("#by-text").fill("group 1")
    assert len(names(tab)) == 8 and "the people of labels.csv" in tab.locator("#ranked").inner_text()
    tab.locator("input[value=person]").check()
    assert "group 0" in tab.locator("#map-legend").inner_text()
    assert tab.locator(".is-right, .is-wrong").count() == 0, "proposals are not the truth"


# ---- how large -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, run: Run) -> Path:
    """The report of a run as large as MARS."""
    base = tmp_path_factory.mktemp("large")
    dataset = large_dataset(base, queries=1980, gallery=11310)
    described = describe_large(dataset)
    from csip.retrieval.descriptors import write_descriptors

    write_descriptors(base / "run" / "descriptors.h5", described)
    (base / "run" / "metrics.json").write_text(json.dumps(figures_of(described)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page, "load_dataset", lambda _: dataset)
        patch.setattr(projection, "project", lambda features: np.random.default_rng(0).random((len(features), 2)))
        settings = run.settings.model_copy(
            update={"dataset": run.settings.dataset.model_copy(update={"name": dataset.name})}
        )
        return page.write(settings, base / "run", None, base / "skeletons.h5", Silent())


def describe_large(dataset: Any) -> Any:
    from dataclasses import replace

    tracklets = dataset.gallery
    folders = [replace(t, pid=t.pid or 700 + n % 50) for n, t in enumerate(tracklets)]
    one = describe(replace(dataset, query=tuple(folders[:1980]), gallery=tuple(folders)), "0" * 16, 32, 0.9)
    return replace(one, identities=np.array([t.pid for t in tracklets]))


def test_a_run_as_large_as_mars_stays_below_20_megabytes(large: Path) -> None:
    size = large.stat().st_size
    assert lists.STRIP_BUDGET * 0.8 < size < 20 * 10**6, "the room is used, and not exceeded"
    text = large.read_text()
    shown = re.search(r"(\d+) of 1,980 queries fit on this page \((\d+) worst, (\d+) middle, (\d+) best\)", text)
    assert shown is not None
    count, worst, middle, best = map(int, shown.groups())
    assert count == worst + middle + best >= 40 and abs(worst - 2 * best) <= 2 and abs(middle - best) <= 1
    data = json.loads(re.search(r'id="page-data">(.*?)</script>', text, re.DOTALL)[1])
    assert len(data["lists"]["queries"]) == count and 1900 < len(data["map"]["points"]) <= projection.LIMIT
    assert all(data["tracklets"][row]["strip"] for query in data["lists"]["queries"] for row in query["found"])


@needs_browser
def test_a_large_page_works_on_a_phone(view: Callable[..., Any], large: Path) -> None:
    tab = view(large, 390, 844)
    assert tab.evaluate("document.documentElement.scrollWidth") == 390
    tab.locator("#next").click()
    assert tab.locator("#page").inner_text().startswith("Page 2 of ")
    point = tab.locator("#plane .point").nth(1500)
    point.scroll_into_view_if_needed()
    box = point.bounding_box()
    tab.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    assert tab.locator("#seen .strip").is_visible()
