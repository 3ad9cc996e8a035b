"""Names in a report in Markdown are names: no code, no links, no columns, no HTML."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.console import one_line
from pipelines.markdown import code, plain

markdown_it = pytest.importorskip("markdown_it")  # comes with rich
PAGE = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table")
LETTERS = st.text("`*[]<>|\\()!&#ab \n\x1b", min_size=1, max_size=12).map(str.strip).filter(bool)


def words(tokens: list[object]) -> str:
    return "".join(inner.content for token in tokens for inner in token.children or ())  # type: ignore[attr-defined]


@given(LETTERS)
def test_a_name_is_one_cell_of_text(name: str) -> None:
    tokens = PAGE.parse(f"| camera | x |\n|---|---|\n| {plain(name)} | 1 |\n")
    cells = [token for token in tokens if token.type == "inline"]
    assert len(cells) == 4 and cells[3].content == "1"
    assert {inner.type for inner in cells[2].children} <= {"text"}
    assert words(cells[2:3]) == one_line(name)


@given(LETTERS)
def test_code_is_one_span(name: str) -> None:
    (line,) = [token for token in PAGE.parse(f"path: {code(name)}, then") if token.type == "inline"]
    assert [inner.type for inner in line.children] == ["text", "code_inline", "text"]
    assert line.children[1].content.strip() == name.replace("\n", "\\n").replace("\x1b", "\\x1b").strip()


def test_plain_names_stay_as_they_are() -> None:
    for name in ("mars", "2024-11-25", "people #2", "cam_1", "Zoë", "a: b"):
        assert plain(name) == name
    assert code(Path("runs/mars")) == "`runs/mars`"
    assert plain("Bob [front]|x") == r"Bob \[front\]\|x"
