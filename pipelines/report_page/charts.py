"""Charts as inline SVG. Colours come from the page's style sheet by class, so that they follow its light and dark scheme."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape

WIDTH, HEIGHT = 360, 230  # as narrow as a phone, so that its text is never scaled below legibility
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 38
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes
    ----------
    label
        For the legend; empty for none.
    x, y
        (N,) points.
    tone
        Class of its colour, ``tone-1`` to ``tone-8``; ``tone-0`` is a quiet grey.
    low, high
        (N,) band around it, optional.
    dots
        Whether the points are marked.
    dashed
        Whether the line is broken.
    """

    label: str
    x: np.ndarray
    y: np.ndarray
    tone: str = "tone-1"
    low: np.ndarray | None = None
    high: np.ndarray | None = None
    dots: bool = False
    dashed: bool = False


def line_chart(lines: Sequence[Line], title: str, x_label: str, percent: bool = False, log: bool = False) -> Markup:
    """Draw lines over common axes.

    Parameters
    ----------
    title
        What is read out in place of the picture.
    percent
        Whether y is a share, shown in per cent.
    log
        Whether y is logarithmic; values must be above 0.
    """
    xs = np.concatenate([line.x for line in lines]).astype(float)
    ys = np.concatenate([np.ravel(v) for line in lines for v in (line.y, line.low, line.high) if v is not None]).astype(
        float
    )
    scale = np.log10 if log else np.asarray
    low, high, ticks = _axis(float(ys.min()), float(ys.max()), percent, log)
    first, last = float(xs.min()), float(xs.max())
    span = last - first or 1.0

    def across(x: np.ndarray | float) -> np.ndarray:
        return LEFT + (np.asarray(x, float) - first) / span * (WIDTH - LEFT - RIGHT)

    def down(y: np.ndarray | float) -> np.ndarray:
        return TOP + (scale(high) - scale(np.asarray(y, float))) / (scale(high) - scale(low)) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for tick in ticks:
        y = float(down(tick))
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(
            f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{_number(tick, percent)}</text>'
        )
    for tick in _steps(first, last):
        x = float(across(tick))
        parts.append(f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{tick:g}</text>')
    for line in lines:
        if line.low is not None and line.high is not None:
            there, back = (across(line.x), down(line.low)), (across(line.x)[::-1], down(line.high)[::-1])
            points = f"{_points(*there)} {_points(*back)}"
            parts.append(f'<polygon class="band {line.tone}" points="{points}"/>')
    for line in lines:
        where = across(line.x), down(line.y)
        dash = " dashed" if line.dashed else ""
        parts.append(f'<polyline class="line {line.tone}{dash}" points="{_points(*where)}"/>')
        if line.dots or len(line.x) == 1:
            parts += [
                f'<circle class="dot {line.tone}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>'
                for x, y in zip(*where, strict=True)
            ]
    parts.append(
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>'
    )
    return _svg(title, parts)


def histogram(values: np.ndarray, title: str, x_label: str, bins: int = 24) -> Markup:
    """Draw how often values (whole numbers) fall into ranges of equal width."""
    low, high = int(values.min()), int(values.max())
    width = max(math.ceil((high - low + 1) / bins), 1)
    edges = np.arange(low, high + width + 1, width)
    counts = np.histogram(values, edges)[0]
    ticks = _steps(0, float(counts.max()))
    top = max(float(counts.max()), ticks[-1])
    inner, room = HEIGHT - TOP - BOTTOM, (WIDTH - LEFT - RIGHT) / len(counts)
    parts = []
    for tick in ticks:
        y = TOP + inner * (1 - tick / top)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:,.0f}</text>')
    every = max(math.ceil(len(counts) / 6), 1)
    for i, count in enumerate(counts):
        x, tall = LEFT + i * room, inner * count / top
        name = f"{edges[i]}" if width == 1 else f"{edges[i]} to {edges[i + 1] - 1}"
        bar = min(room - 1, 40) if room > 3 else room
        parts.append(
            f'<rect class="bar tone-1" x="{x + (room - bar) / 2:.1f}" y="{TOP + inner - tall:.1f}" width="{bar:.1f}" '
            f'height="{tall:.1f}"><title>{name}: {count:,}</title></rect>'
        )
        if i % every == 0:
            parts.append(
                f'<text class="tick" x="{x + room / 2:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{edges[i]}</text>'
            )
    parts.append(
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 5}" text-anchor="middle">{escape(x_label)}</text>'
    )
    return _svg(title, parts)


def legend(lines: Sequence[Line]) -> Markup:
    """Name the lines of a chart beside their colours."""
    keys = [
        f'<li><svg class="key" viewBox="0 0 18 8" aria-hidden="true"><line class="line {line.tone}'
        f'{" dashed" if line.dashed else ""}" x1="0" x2="18" y1="4" y2="4"/></svg>{escape(line.label)}</li>'
        for line in lines
        if line.label
    ]
    return Markup('<ul class="legend">{}</ul>').format(Markup("".join(keys))) if keys else Markup("")


def _svg(title: str, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
    )


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _axis(low: float, high: float, percent: bool, log: bool) -> tuple[float, float, list[float]]:
    """Return the ends of the y axis and its ticks."""
    if percent:
        floor = 0.0 if low < 0.4 else min(math.floor(low * 10) / 10, 0.9)
        step = 0.2 if 1 - floor > 0.5 else 0.1 if 1 - floor > 0.2 else 0.05
        return floor, 1.0, [float(t) for t in np.arange(floor, 1 + step / 2, step)]
    if log:
        bottom, top = math.floor(math.log10(low)), math.ceil(math.log10(high))
        top = max(top, bottom + 1)
        every = math.ceil((top - bottom) / 5)
        return 10.0**bottom, 10.0**top, [10.0**e for e in range(bottom, top + 1, every)]
    step = _step(low, high)
    ticks = [float(t) for t in np.arange(math.floor(low / step), math.ceil(high / step) + 1) * step]
    ticks += [ticks[-1] + step] if len(ticks) == 1 else []
    return ticks[0], ticks[-1], ticks


def _step(low: float, high: float, wanted: int = 5) -> float:
    """Choose a round step that divides a range into about as many parts as wanted."""
    raw = ((high - low) or abs(low) or 1.0) / wanted
    power = 10.0 ** math.floor(math.log10(raw))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)


def _steps(low: float, high: float) -> list[float]:
    """Choose round whole numbers from `low` to `high`: epochs, ranks and counts have no halves."""
    step = max(1.0, float(round(_step(low, high))))
    start = math.ceil(low / step) * step
    return [float(t) for t in np.arange(start, high + step / 1e6, step)]


def _number(value: float, percent: bool) -> str:
    if percent:
        return f"{100 * value:.0f} %"
    if value and abs(value) < 0.001:
        power = math.floor(math.log10(abs(value)) + 1e-9)
        factor = f"{value / 10**power:.2g}·" if not math.isclose(value, 10**power) else ""
        return f"{factor}10{str(power).translate(_RAISED)}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
