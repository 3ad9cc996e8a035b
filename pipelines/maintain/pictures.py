"""The pictures of the README, from the demo: the chain, tracklets with their skeletons, and the report.

    make demo
    python -m pipelines.maintain.pictures

Each is made twice, for light and for dark pages. The report needs Playwright and Chromium.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from xml.sax.saxutils import escape

import numpy as np
import typer
from PIL import Image, ImageDraw

from csip.errors import CsipError
from pipelines.console import console
from pose_cache.images import read_frame
from pose_cache.joints import COCO17, JointSet
from pose_cache.store import SkeletonStore

SANS = "-apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
MONO = "ui-monospace, SFMono-Regular, Menlo, Consolas, monospace"
LISTS = 668  # pixels of the ranked lists that are shown: one query
FRAMES = 16  # of a walk that are shown
SMOOTH = 4  # lines are drawn so many times as large and shrunk, which smooths them


@dataclass(frozen=True)
class Theme:
    """Colours of a page on GitHub."""

    name: str
    page: str
    panel: str
    edge: str
    ink: str
    soft: str
    blue: str
    orange: str
    green: str


LIGHT = Theme("light", "#ffffff", "#f6f8fa", "#d1d9e0", "#1f2328", "#59636e", "#0969da", "#bc4c00", "#1a7f37")
DARK = Theme("dark", "#0d1117", "#151b23", "#3d444d", "#f0f6fc", "#9198a1", "#4493f8", "#f0883e", "#3fb950")


def main(
    data: Annotated[Path, typer.Option(help="The demo's data set, with skeletons.")] = Path("data/demo"),
    run: Annotated[Path, typer.Option(help="The demo's run, with its report.")] = Path("runs/demo"),
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("docs/images"),
) -> None:
    """Make the pictures of the README from the demo."""
    out.mkdir(parents=True, exist_ok=True)
    made = []
    for theme in (LIGHT, DARK):
        chain = out / f"chain-{theme.name}.svg"
        chain.write_text(draw_chain(theme))
        made += [chain, draw_walkers(data, out / f"skeletons-{theme.name}.webp", theme)]
        for part, name, height in (("figures", "metrics", None), ("ranked", "lists", LISTS)):
            picture = out / f"report-{name}-{theme.name}.png"
            made.append(draw_report(run / "report.html", part, picture, theme, height))
    for path in made:
        console.print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


# ---- the chain -------------------------------------------------------------------------------------------------------


def draw_chain(theme: Theme) -> str:
    """Draw the chain, a box for each command, as SVG on a transparent background."""
    width, height, gap, top, below = 158, 76, 36, 66, 222
    data, training, use = theme.blue, theme.orange, theme.green

    def left(column: float) -> float:
        return 13 + column * (width + gap)

    def box(column: float, y: float, colour: str, title: str, command: str, note: str) -> str:
        x = left(column)
        middle = x + width / 2
        return (
            f'<rect x="{x:g}" y="{y}" width="{width}" height="{height}" rx="8" fill="{theme.panel}" stroke="{colour}" '
            'stroke-width="1.6"/>'
            + _text(middle, y + 25, title, theme.ink, 15, SANS, weight=600)
            + _text(middle, y + 45, command, colour, 12.5, MONO)
            + _text(middle, y + 64, note, theme.soft, 12, SANS)
        )

    def arrow(*points: tuple[float, float]) -> str:
        (x0, y0), (x1, y1) = points[-2:]
        length = max(abs(x1 - x0), abs(y1 - y0))
        dx, dy = (x1 - x0) / length, (y1 - y0) / length
        head = [(x1, y1), (x1 - 8 * dx - 5 * dy, y1 - 8 * dy - 5 * dx), (x1 - 8 * dx + 5 * dy, y1 - 8 * dy + 5 * dx)]
        line = [*points[:-1], (x1 - 7 * dx, y1 - 7 * dy)]
        return (
            f'<polyline points="{_points(line)}" fill="none" stroke="{theme.soft}" stroke-width="1.6" '
            f'stroke-linejoin="round"/><polygon points="{_points(head)}" fill="{theme.soft}"/>'
        )

    middle, right = top + height / 2, left(4) + width / 2
    boxes = [
        box(0, top, data, "Videos", "yours", "or MARS, LS-VID, …"),
        box(1, top, data, "Tracklets", "csip ingest", "crops of one person"),
        box(2, top, training, "3D skeletons", "csip skeletons", "pose, then lifting"),
        box(3, top, training, "Stage 1", "csip train-stage1", "skeletons ↔ images"),
        box(4, top, training, "Stage 2", "csip train-stage2", "prototypes, time"),
        box(1, below, use, "Export", "csip export", "ONNX, safetensors"),
        box(2, below, use, "Search", "csip search", "csip cluster"),
        box(3, below, use, "Descriptors", "csip embed", "one per tracklet"),
        box(4, below, use, "Evaluation", "csip evaluate", "csip report"),
    ]
    arrows = [arrow((left(c) + width, middle), (left(c + 1), middle)) for c in range(4)]
    images = left(1) + width / 2
    arrows += [
        arrow((images, top), (images, 38), (left(c) + width / 2, 38), (left(c) + width / 2, top)) for c in (3, 4)
    ]
    arrows.append(arrow((right, top + height), (right, below)))
    arrows.append(arrow((left(3), below + height / 2), (left(2) + width, below + height / 2)))
    turn = below - 30
    arrows += [arrow((right, turn), (left(c) + width / 2, turn), (left(c) + width / 2, below)) for c in (1, 3)]
    notes = [
        _text(left(2) + width / 2, 30, "images", theme.soft, 12.5, SANS),
        _text(
            left(2) - gap / 2, top + height + 26, "training: images and skeletons", training, 13, SANS, anchor="start"
        ),
        _text(left(0) + width / 2, below + 34, "test:", use, 13, SANS),
        _text(left(0) + width / 2, below + 54, "images only", use, 13, SANS),
    ]
    parts = "\n".join([*arrows, *boxes, *notes])
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 960 310" width="960" height="310" role="img">\n'
        "<title>The chain: videos, tracklets, skeletons, stage 1, stage 2, then descriptors, evaluation, search, export"
        f"</title>\n{parts}\n</svg>\n"
    )


def _text(
    x: float, y: float, text: str, colour: str, size: float, family: str, weight: int = 400, anchor: str = "middle"
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" fill="{colour}" font-size="{size}" font-family="{family}" font-weight="{weight}" '
        f'text-anchor="{anchor}">{escape(text)}</text>'
    )


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


# ---- tracklets with their skeletons ----------------------------------------------------------------------------------


def draw_walkers(
    data: Path, out: Path, theme: Theme, people: int = 3, height: int = 232, milliseconds: int = 110
) -> Path:
    """Draw tracklets as an animation: each crop with its 2D keypoints, and its 3D skeleton turned to the side.

    Raises
    ------
    CsipError
        The data set has no skeletons, or a frame cannot be read.
    """
    cache = data / "skeletons.h5"
    if not cache.exists():
        raise CsipError(f"{cache}: no such file; run `make demo`")
    with SkeletonStore(cache) as store:
        chosen = [store.read(name) for name in _most_lively(store, people)]
        joints = store.joint_set
    frames = min(FRAMES, *(len(tracklet.frames) for tracklet in chosen))
    pictures = []
    for number in range(frames):
        cells = []
        for tracklet in chosen:
            image = read_frame(data / tracklet.frames[number])
            if image is None:
                raise CsipError(f"{data / tracklet.frames[number]}: no image that can be read; run `make demo`")
            crop = Image.fromarray(image[..., ::-1].copy())
            scale = height / crop.height
            crop = crop.resize((round(crop.width * scale), height), Image.Resampling.LANCZOS)
            keypoints = (tracklet.keypoints2d[number, :, :2] + 0.5) * scale
            body = _side_view(tracklet.joints, joints)
            reach = np.abs(body).max(axis=(0, 1))
            body = body[number] * (height / max(reach[0] / 0.27, reach[1] / 0.46)) + (0.3 * height, 0.5 * height)
            blank = Image.new("RGB", (round(0.6 * height), height), theme.panel)
            cells += [_with_bones(crop, keypoints, COCO17, theme), _with_bones(blank, body, joints, theme)]
        pictures.append(_beside(cells, theme.page))
    pictures[0].save(
        out, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, quality=72, method=6
    )
    return out


def _most_lively(store: SkeletonStore, count: int) -> list[str]:
    """Choose tracklets of different people whose ankles move most, in which a pose was found in every frame."""
    joints = store.joint_set
    ankles = [joints.joints.index(f"{side}_ankle") for side in ("left", "right")]
    motion: dict[str, tuple[float, str]] = {}
    for name in store.names:
        tracklet = store.read(name)
        if not tracklet.valid.all():
            continue
        steps = tracklet.joints[:, ankles] - tracklet.joints[:, joints.root, None]
        person = tracklet.frames[0].split("/")[-2]
        motion[person] = max(motion.get(person, (0.0, "")), (float(steps.std(axis=0).sum()), name))
    return [name for _, name in sorted(motion.values(), reverse=True)[:count]]


def _side_view(joints: np.ndarray, joint_set: JointSet, degrees: float = 55) -> np.ndarray:
    """Turn joints (T, J, 3) about the vertical through the root; return x and y as they are then seen, (T, J, 2)."""
    centred = joints - joints[:, joint_set.root, None]
    angle = np.radians(degrees)
    return np.stack([centred[..., 0] * np.cos(angle) + centred[..., 2] * np.sin(angle), centred[..., 1]], axis=-1)


def _with_bones(picture: Image.Image, points: np.ndarray, joints: JointSet, theme: Theme) -> Image.Image:
    """Draw bones in the colour of their side: left blue, right orange, the middle green."""
    colours = {"left": theme.blue, "right": theme.orange}
    large = picture.resize((picture.width * SMOOTH, picture.height * SMOOTH), Image.Resampling.NEAREST)
    pen = ImageDraw.Draw(large)
    scaled = points * SMOOTH
    for a, b in joints.bones:
        sides = {joints.joints[a].partition("_")[0], joints.joints[b].partition("_")[0]} & colours.keys()
        colour = colours[sides.pop()] if len(sides) == 1 else theme.green
        pen.line([*scaled[a], *scaled[b]], fill=colour, width=3 * SMOOTH)
    for x, y in scaled:
        size = 2.2 * SMOOTH
        pen.ellipse([x - size, y - size, x + size, y + size], fill="#ffffff", outline="#1f2328", width=SMOOTH // 2)
    return large.resize(picture.size, Image.Resampling.BOX)


def _beside(cells: Sequence[Image.Image], page: str, gap: int = 14) -> Image.Image:
    """Put crops and skeletons in pairs side by side, a gap between the pairs."""
    width = sum(cell.width for cell in cells) + gap * (len(cells) // 2 - 1)
    picture = Image.new("RGB", (width, cells[0].height), page)
    x = 0
    for number, cell in enumerate(cells):
        picture.paste(cell, (x, 0))
        x += cell.width + (gap if number % 2 else 0)
    return picture


# ---- the report ------------------------------------------------------------------------------------------------------


def draw_report(page: Path, part: str, out: Path, theme: Theme, height: int | None = None) -> Path:
    """Photograph a section of a report in a browser of this theme.

    Parameters
    ----------
    page
        The report.
    part
        The section's id.
    out
        The PNG file to make.
    height
        Pixels from the section's top, if not all of it.

    Raises
    ------
    CsipError
        There is no such report, or no browser.
    """
    if not page.exists():
        raise CsipError(f"{page}: no such file; run `make demo`")
    with browser_tab(theme) as tab:
        tab.goto(page.resolve().as_uri())
        box = tab.locator(f"section#{part}").bounding_box()
        if box is None:
            raise CsipError(f"{page}: has no section {part}; run `make demo`")
        size: Any = {"x": 0, "y": box["y"] + 16, "width": 1200, "height": (height or box["height"]) - 16}
        tab.screenshot(path=out, clip=size, full_page=True)
    return with_few_colours(out)


@contextmanager
def browser_tab(theme: Theme) -> Iterator[Any]:
    """Open a tab of Chromium, without a window.

    Raises
    ------
    CsipError
        There is no browser.
    """
    browser = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
    if browser is None:
        raise CsipError("Chromium was not found, which photographs pages: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=browser, args=["--no-sandbox", "--disable-gpu"])
        scheme: Literal["dark", "light"] = "dark" if theme is DARK else "light"
        yield started.new_page(viewport={"width": 1200, "height": 1000}, color_scheme=scheme, reduced_motion="reduce")
        started.close()


def with_few_colours(out: Path) -> Path:
    """Make a PNG file small."""
    few = Image.open(out).convert("RGB").quantize(192, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(out, optimize=True)
    return out


if __name__ == "__main__":
    typer.run(main)
