"""The tables and the picture of an ablation study."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from csip.retrieval.outcomes import MAP, RANK1, Difference, Outcomes, difference

GREY, BLUE = "#7d8590", "#2f81f7"  # readable on white and on black


@dataclass(frozen=True)
class Study:
    """What was measured.

    Attributes
    ----------
    seeds
        Of the trainings.
    rows
        By label, in the order of the table, the outcomes of each seed.
    comparisons
        Pairs of labels: what ought to be better, and what it is compared with.
    """

    seeds: tuple[int, ...]
    rows: Mapping[str, Sequence[Outcomes]]
    comparisons: Sequence[tuple[str, str]]

    @property
    def figures(self) -> list[str]:
        """Names of what was measured: `RANK1`, `MAP`, and the strata of twins."""
        return list(next(iter(self.rows.values()))[0].values)

    def means(self, label: str, figure: str) -> np.ndarray:
        """Return the figure of each seed, (seeds,)."""
        return np.array([one.values[figure].mean() for one in self.rows[label]])

    def as_dict(self) -> dict[str, Any]:
        """Return means by seed and differences as JSON has them."""
        return {
            "seeds": list(self.seeds),
            "rows": {
                label: {figure: self.means(label, figure).tolist() for figure in self.figures} for label in self.rows
            },
            "differences": [
                {"better": better, "worse": worse, "figure": figure, **asdict(self.difference(better, worse, figure))}
                for better, worse in self.comparisons
                for figure in self.figures
            ],
        }

    def difference(self, better: str, worse: str, figure: str) -> Difference:
        """Compare two rows on the same queries, over all seeds."""
        return difference(self.rows[better], self.rows[worse], figure)


def tables(study: Study) -> str:
    """Lay out the figures and their differences as Markdown, in per cent."""
    figures = study.figures
    names = [name if name in (RANK1, MAP) else f"own twin: {name}" for name in figures]
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for label in study.rows:
        cells = []
        for figure in figures:
            values = 100 * study.means(label, figure)
            spread = f" ± {np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            cells.append(f"{values.mean():.1f}{spread}")
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    seeds = ", ".join(map(str, study.seeds))
    lines += ["", f"Mean ± standard deviation over seeds {seeds}, per cent."]
    if any(name.startswith("own twin") for name in names):
        lines[-1] += " Own twin: nearer to the person than to the twin, at other cameras; chance 50."
    lines += ["", "| difference | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for better, worse in study.comparisons:
        cells = [_cell(study.difference(better, worse, figure)) for figure in figures]
        lines.append(f"| {better} - {worse} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "Points, with 95 % intervals: paired bootstrap over the people (or pairs of twins) of each seed. Bold: the interval "
        "excludes zero.",
        "",
    ]
    return "\n".join(lines)


def forest(study: Study) -> str:
    """Draw the differences with their intervals, a column for each figure but Rank-1; the text of an SVG file."""
    from matplotlib.figure import Figure  # slow to import

    figures, pairs = [name for name in study.figures if name != RANK1], study.comparisons
    picture = Figure(figsize=(3.6 + 1.9 * len(figures), 0.9 + 0.3 * len(pairs)), layout="constrained")
    picture.patch.set_alpha(0)
    all_axes = picture.subplots(1, len(figures), sharey=True, squeeze=False)[0]
    for axes, figure in zip(all_axes, figures, strict=True):
        axes.patch.set_alpha(0)
        axes.axvline(0, color=GREY, linewidth=1)
        for row, (better, worse) in enumerate(pairs):
            found = study.difference(better, worse, figure)
            tone = BLUE if found.excludes_zero else GREY
            axes.plot([100 * found.low, 100 * found.high], [row, row], color=tone, linewidth=2)
            axes.plot([100 * found.mean], [row], "o", color=tone, markersize=5)
        axes.set_title(figure if figure in (RANK1, MAP) else f"twins: {figure}", fontsize=9, color=GREY)
        axes.tick_params(colors=GREY, labelsize=8)
        for spine in axes.spines.values():
            spine.set_color(GREY)
    labels = [f"{better.removeprefix('+ ')} - {worse.removeprefix('+ ')}" for better, worse in pairs]
    all_axes[0].set_yticks(range(len(pairs)), labels)
    all_axes[0].invert_yaxis()
    picture.supxlabel("points, with 95 % intervals", fontsize=8, color=GREY)
    text = io.StringIO()
    picture.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _cell(found: Difference) -> str:
    text = f"{100 * found.mean:+.1f} ({100 * found.low:+.1f} to {100 * found.high:+.1f})"
    return f"**{text}**" if found.excludes_zero else text
