"""`csip doctor --dataset`: what is in a data set and what is wrong with it, as a table."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path

from rich.table import Table

from csip.config import Settings
from csip.data import health
from csip.data.health import Finding, Remedy
from csip.monitor import Monitor
from pipelines.console import RichMonitor, console, labelled


def run(settings: Settings, cache: Path, frames: int | None) -> bool:
    """Print what is in the data set and what is wrong with it; return whether nothing is."""
    with RichMonitor() as monitor:
        findings = inspect(settings, cache, frames, monitor)
    table = Table("", "found", title=f"{settings.dataset.name}, {settings.dataset.path}", title_justify="left")
    for finding in findings:
        advice = [f"{what}: {text}" for what, text in (("fix", finding.fix), ("next", finding.hint)) if text]
        text = "\n".join((finding.text, *advice))
        table.add_row(finding.what, labelled("wrong", "red", f"  {text}") if finding.fix else text)
    console.print(table)
    wrong = [finding.what for finding in findings if finding.fix]
    left = [finding.text.partition("\n")[0] for finding in findings if finding.hint]
    if wrong:
        console.print(f"{len(wrong)} of {len(findings)} are wrong: {', '.join(wrong)}")
    else:
        console.print(f"nothing is wrong; {'; '.join(left)}" if left else "all is well", soft_wrap=True)
    return not wrong


def inspect(settings: Settings, cache: Path, frames: int | None, monitor: Monitor) -> list[Finding]:
    """Check a data set as `csip.data.health.inspect` does, and name the commands that help."""
    return [_advised(finding, settings.dataset.name) for finding in health.inspect(settings, cache, frames, monitor)]


def _advised(finding: Finding, name: str) -> Finding:
    name = shlex.quote(name)
    make = f"`csip skeletons --dataset {name}`"
    match finding.remedy:
        case Remedy.EXTRACT if not finding.fix:
            return replace(finding, text=f"{finding.text}: run {make}")
        case Remedy.EXTRACT:
            return replace(finding, fix=f"{finding.fix}: run {make}")
        case Remedy.EXTRACT_ANEW:
            return replace(finding, fix=f"{finding.fix}: run {make} with --force")
        case Remedy.NAME_PEOPLE:
            steps = f"`csip embed --dataset {name} --model RUN`, then `csip cluster --dataset {name}`"
            return replace(finding, hint=f"{finding.hint}: {steps}")
    return finding
