"""The pictures of the README, on rendered people."""

from __future__ import annotations

import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from csip.errors import CsipError
from pipelines.maintain.pictures import DARK, LIGHT, draw_chain, draw_report, draw_walkers

pytestmark = pytest.mark.slow

PAGE = """<style>body { background: #ffffff } @media (prefers-color-scheme: dark) { body { background: #000000 } }</style>
<section id="one" style="height: 300px"></section><section id="two" style="height: 116px"></section>"""
needs_browser = pytest.mark.skipif(
    not any(map(shutil.which, ("chromium", "google-chrome"))), reason="there is no Chromium"
)


def test_the_chain_is_a_drawing_within_its_frame() -> None:
    drawing = ElementTree.fromstring(draw_chain(LIGHT))
    width, height = (float(drawing.attrib[side]) for side in ("width", "height"))
    boxes = [box.attrib for box in drawing.iter() if box.tag.endswith("rect")]
    assert len(boxes) == 9
    for box in boxes:
        assert 0 < float(box["x"]) < float(box["x"]) + float(box["width"]) < width
        assert 0 < float(box["y"]) < float(box["y"]) + float(box["height"]) < height
    corners = {(box["x"], box["y"]) for box in boxes}
    assert len(corners) == len(boxes)
    assert DARK.ink in draw_chain(DARK)
    assert LIGHT.ink not in draw_chain(DARK)


def test_walkers_move(walkers: Path, tmp_path: Path) -> None:
    with Image.open(draw_walkers(walkers, tmp_path / "a.webp", DARK, people=2, height=64)) as film:
        assert film.n_frames == 6
        assert film.height == 64
        assert film.width == 2 * (32 + 38) + 14
        first = film.convert("RGB").tobytes()
        film.seek(3)
        assert film.convert("RGB").tobytes() != first


def test_without_a_demo_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(CsipError, match=r"skeletons\.h5: no such file; run `make demo`"):
        draw_walkers(tmp_path, tmp_path / "a.webp", LIGHT)
    with pytest.raises(CsipError, match=r"report\.html: no such file; run `make demo`"):
        draw_report(tmp_path / "report.html", "two", tmp_path / "a.png", LIGHT)


@needs_browser
@pytest.mark.parametrize(("theme", "colour"), [(LIGHT, (255, 255, 255)), (DARK, (0, 0, 0))], ids=["light", "dark"])
def test_the_report_is_photographed_in_the_page_s_theme(theme, colour, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.write_text(PAGE)
    with Image.open(draw_report(page, "two", tmp_path / "a.png", theme)) as picture:
        assert picture.size == (1200, 100)
        assert picture.convert("RGB").getpixel((100, 50)) == colour
