"""What the page shows, as the template reads it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from pipelines.report_page.cards import Card, Stat, Table


@dataclass
class Content:
    """Everything that the template shows. What is empty is left out."""

    title: str
    lead: str
    notes: list[str] = field(default_factory=list)
    """Warnings, at the top."""
    missing: list[str] = field(default_factory=list)
    """What is left out and how to get it, at the end."""
    stats: list[Stat] = field(default_factory=list)
    figures_note: str = ""
    tables: list[Table] = field(default_factory=list)
    charts: list[tuple[str, Markup, Markup]] = field(default_factory=list)
    """Title, chart and legend of each."""
    curves: list[tuple[str, Markup, Markup]] = field(default_factory=list)
    reviews: list[tuple[str, Markup, Markup]] = field(default_factory=list)
    cases: list[dict[str, Any]] = field(default_factory=list)
    data: Card = field(default_factory=Card)
    model: Card = field(default_factory=Card)
    lists: dict[str, Any] | None = None
    """Whether they are scored, and the queries; tracklets by their place in `tracklets`. The script reads it."""
    lists_note: str = ""
    skeletons_note: str = ""
    people_note: str = ""
    map: dict[str, Any] | None = None
    map_note: str = ""
    tracklets: list[dict[str, Any]] = field(default_factory=list)
