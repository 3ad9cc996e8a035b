"""Names from outside are shown as they are: no markup, no emoji, nothing that a terminal acts upon."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

import pipelines.console
from csip.errors import CsipError
from pipelines.cli.entry import _say
from pipelines.console import PlainConsole, RichMonitor, labelled, one_line, visible

HOSTILE = ["Bob [front]", "[/x]", "[bold]x[/bold]", "[link=file:///]x[/]", ":smile:", "\\[a]", "[@click=quit]", "a\\"]
NAMES = st.one_of(st.sampled_from(HOSTILE), st.text(min_size=1, max_size=12))


def said(*things: object, **options: object) -> str:
    console = PlainConsole(file=io.StringIO(), width=4000)
    for thing in things:
        console.print(thing, soft_wrap=True)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def table(name: str) -> Table:
    made = Table(name, title=name)
    made.add_row(name)
    made.add_row(labelled("wrong", "red", name))
    return made


@given(NAMES)
def test_names_are_shown_in_full_in_messages_and_tables(name: str) -> None:
    line = one_line(name)
    assert said(line) == f"{line}\n"
    if line.strip() == line:
        assert said(table(line)).count(line) >= 4


@given(NAMES)
def test_no_name_reaches_the_terminal_with_controls(name: str) -> None:
    text = said(name, table(name), f"error: {name}")
    assert not set(text) - {"\n"} & {
        chr(code) for code in (*range(32), *range(127, 160), 0x2028, 0x2029, 0x202E, 0x2066)
    }
    text.encode()  # nor bytes that are no text


@given(st.text(max_size=12))
def test_one_line_is_one_line(name: str) -> None:
    assert len(one_line(name).splitlines()) <= 1


def test_what_is_shown_for_controls() -> None:
    assert visible("a\x1b[2Jb\r\x9b\u202egpj.exe\udce9") == r"a\x1b[2Jb\r\x9b\u202egpj.exe\udce9"
    assert one_line("a\nerror: b\tc") == r"a\nerror: b\tc"
    assert visible("名前 Zoë 👩‍🚀 عربى\n") == "名前 Zoë 👩‍🚀 عربى\n"


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.parametrize("name", [*HOSTILE, "a\nb", "\x1b[31m"])
def test_progress_bars_and_notes(name: str, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    console = PlainConsole(file=io.StringIO(), width=200, force_terminal=terminal, color_system=None)
    monkeypatch.setattr(pipelines.console, "console", console)
    with RichMonitor() as monitor:
        for done in range(3):
            monitor.progress(f"reading {name}", done, 2, f"at {name}")
        monitor.say(f"{name} has no frames")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    shown = one_line(name)
    assert f"reading {shown}" in text and f"at {shown}" in text and f"{shown} has no frames\n" in text


@pytest.mark.parametrize("name", HOSTILE)
def test_errors(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines.console, "errors", PlainConsole(stderr=True))
    _say(str(CsipError(f"{name}: no such folder")))
    assert capsys.readouterr().err == f"{name}: no such folder\n"
