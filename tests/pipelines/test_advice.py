"""Messages of the libraries name no option; the options that the command line adds to them are there."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
from typer.main import get_command

from pipelines.advice import COMMANDS, OPTIONS, advice
from pipelines.cli import app

PROJECT = Path(__file__).parents[2]
SOURCES = [path for package in ("csip", "pose_cache") for path in sorted((PROJECT / package).rglob("*.py"))]
OPTION = re.compile(r"(?<!pip install )--[a-z][a-z-]*")
COMMAND = re.compile(r"\bcsip [a-z]+-?[a-z]*`|`csip |\bmake [a-z]+ [A-Z]+=")


def options(command: click.Command) -> Iterator[str]:
    for parameter in command.params:
        yield from (*parameter.opts, *parameter.secondary_opts)
    for below in getattr(command, "commands", {}).values():
        yield from options(below)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def calls(path: Path) -> Iterator[ast.Call]:
    """Yield what makes messages: errors, by how their classes are called, and what is said to a monitor."""
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Call) and (
            (isinstance(node.func, ast.Name) and node.func.id.endswith("Error"))
            or (isinstance(node.func, ast.Attribute) and node.func.attr in ("say", "progress"))
        ):
            yield node


def texts(node: ast.AST) -> str:
    return " ".join(str(one.value) for one in ast.walk(node) if isinstance(one, ast.Constant))


def test_messages_of_the_libraries_name_no_option_and_no_command() -> None:
    """What installs is no command of this program: see pose_cache/standins."""
    named = {f"{path.relative_to(PROJECT)}:{call.lineno}" for path in SOURCES for call in calls(path)
             if path.parent.name != "standins" and (OPTION.search(texts(call)) or COMMAND.search(texts(call)))}  # fmt: skip
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


def test_commands_that_advice_names_are_there() -> None:
    program: Any = get_command(app)
    named = {line for parameter in COMMANDS for line in re.findall(r"`csip ([^`]+)`", advice(parameter))}
    assert {"skeletons verify", "train-stage1", "doctor"} <= named
    for line in named:
        command = program
        for word in line.split():
            if not word.startswith("--"):
                command = command.commands[word]


def test_every_advice_is_for_an_error() -> None:
    """Kinds of models are given by the caller of `csip.models.checkpoints.load_model`."""
    words = {one.value for path in SOURCES for one in ast.walk(tree_of(path)) if isinstance(one, ast.Constant)}
    assert COMMANDS.keys() | OPTIONS.keys() <= words


@pytest.mark.parametrize(
    ("parameter", "words"),
    [("", ""), ("root", " (--root)"), ("reading.classes", " (--boxes-classes)"), ("onnx", "; `csip export` makes it")],
)
def test_advice(parameter: str, words: str) -> None:
    assert advice(parameter) == words
