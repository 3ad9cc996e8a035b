"""Messages of the libraries name no option; the options that the command line adds to them are there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from typer.main import get_command

from pipelines.advice import advice
from pipelines.cli import app

PROJECT = Path(__file__).parents[2]
SOURCES = [path for package in ("csip", "pose_cache") for path in sorted((PROJECT / package).rglob("*.py"))]
OPTION = re.compile(r"(?<!pip install )--[a-z][a-z-]*")


def options(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for below in getattr(command, "commands", {}).values():
        yield from options(below)


def calls(path: Path) -> Iterator[ast.Call]:
    """Yield what makes errors: calls of classes that are called so."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("Error"):
            yield node


def texts(node: ast.AST) -> str:
    return " ".join(str(one.value) for one in ast.walk(node) if isinstance(one, ast.Constant))


def test_errors_of_the_libraries_name_no_option() -> None:
    named = {f"{path.relative_to(PROJECT)}:{call.lineno}" for path in SOURCES for call in calls(path)
             if OPTION.search(texts(call))}  # fmt: skip
    assert not named


def test_options_that_errors_are_about_are_there() -> None:
    known = set(options(get_command(app)))
    parameters = {
        keyword.value.value
        for path in SOURCES
        for call in calls(path)
        for keyword in call.keywords
        if keyword.arg == "parameter" and isinstance(keyword.value, ast.Constant)
    }
    assert {"overwrite", "force", "root", "reading.format"} <= parameters
    missing = {name: advice(name) for name in parameters if not set(OPTION.findall(advice(name))) <= known}
    assert not missing


@pytest.mark.parametrize(
    ("parameter", "words"), [("", ""), ("root", " (--root)"), ("reading.classes", " (--boxes-classes)")]
)
def test_advice(parameter: str, words: str) -> None:
    assert advice(parameter) == words
