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
from pose_cache.pieces import Spread

_LISTED = 10


def run(settings: Settings, cache: Path, frames: int | None, spread: Spread | None = None) -> bool:
    """Print what is in the data set and what is wrong with it; return whether nothing is.

    Parameters
    ----------
    frames
        How many to decode; None: all.
    spread
        Who decodes them. A share decodes its frames and looks at nothing else.
    """
    if spread is not None and spread.share is not None:
        return _decode_share(settings, frames, spread)
    with RichMonitor() as monitor:
        findings = inspect(settings, cache, frames, monitor, spread)
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


def inspect(
    settings: Settings, cache: Path, frames: int | None, monitor: Monitor, spread: Spread | None = None
) -> list[Finding]:
    """Check a data set as `csip.data.health.inspect` does, and name the commands that help."""
    findings = health.inspect(settings, cache, frames, monitor, spread)
    return [_advised(finding, settings.dataset.name) for finding in findings]


def _decode_share(settings: Settings, frames: int | None, spread: Spread) -> bool:
    assert spread.share is not None
    with RichMonitor() as monitor:
        found = health.decode_share(settings, frames, monitor, spread)
    console.print(f"{len(found.frames):,} frames decoded: {found}", soft_wrap=True)
    for frame, kind in found.bad[:_LISTED]:
        console.print(f"  {frame}: {kind.label}", soft_wrap=True)
    console.print(f"share {spread.share} is done; --merge checks the data set when all {spread.share.count} are")
    return True


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
