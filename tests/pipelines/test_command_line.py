"""The command line as a program: its help, its version, what it lists, and how quickly it starts."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.main import get_command
from typer.testing import CliRunner

from csip.config import load_settings
from csip.config.listing import as_markdown, list_settings
from csip.errors import CsipError
from pipelines.cli import app
from pipelines.paths import run_folder, settings_for

PROJECT = Path(__file__).parents[2]
PANELS = ("Data", "Videos and search", "Train", "Evaluate", "Inspect", "Maintain")


def commands(group: object = None, names: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the words of every command, those of skeletons included."""
    for name, command in (group or get_command(app)).commands.items():  # type: ignore[attr-defined]
        yield (*names, name)
        if hasattr(command, "commands"):
            yield from commands(command, (*names, name))


COMMANDS = list(commands())


def command_of(words: tuple[str, ...]) -> typer.core.TyperCommand:
    command = get_command(app)
    for word in words:
        command = command.commands[word]  # type: ignore[attr-defined]
    return command  # type: ignore[return-value]


def run(*arguments: str) -> str:
    result = CliRunner(env={"COLUMNS": "120", "NO_COLOR": "1"}).invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.output


def test_help_shows_every_command_in_a_panel() -> None:
    text = run("--help")
    assert [panel for panel in PANELS if f"─ {panel} ─" in text] == list(PANELS)
    assert "─ Commands ─" not in text, "a command without a panel"
    for words in COMMANDS:
        assert re.search(rf"│ {words[0]} ", text)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_explains_itself(words: tuple[str, ...]) -> None:
    text = run(*words, "--help")
    examples = [line.strip() for line in text.partition("Example:")[2].splitlines() if line.strip().startswith("csip ")]
    assert examples and examples[0].startswith(" ".join(("csip", *words)))
    for parameter in command_of(words).params:
        if parameter.name == "help":
            continue
        help_text = getattr(parameter, "help", None)
        assert help_text, f"{parameter.name} has no help"
        assert help_text[0].isupper() or help_text.split(":")[0] in ("hog", "rtmdet"), help_text
        assert help_text.endswith("."), help_text


def example_lines() -> Iterator[str]:
    for words in COMMANDS:
        for line in (command_of(words).help or "").partition("Example:")[2].splitlines():
            if line.strip().startswith("csip "):
                yield line.strip().partition(" > ")[0]


@pytest.mark.parametrize("line", example_lines())
def test_examples_are_commands(line: str) -> None:
    """Their options exist and their values are taken; running them is for the guide's test."""
    _, *arguments = shlex.split(line)
    command = get_command(app)
    context = typer.Context(command)
    while hasattr(command, "commands") and arguments and arguments[0] in command.commands:
        command = command.commands[arguments.pop(0)]
    command.make_context("csip", arguments, parent=context)


def test_help_imports_nothing_slow() -> None:
    """Its time is in docs/python.md; what would take it is imported by the commands that need it."""
    code = "import sys; sys.argv = ['csip', *sys.argv[1:]]; from pipelines.cli import main; main()"
    shown = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code, "--help"], capture_output=True, text=True, check=True, cwd=PROJECT
    )  # fmt: skip
    assert "train-stage2" in shown.stdout
    assert not re.search(r"\| +(torch|numpy|mmengine|cv2|pydantic|markdown_it|h5py)$", shown.stderr, re.MULTILINE)
    imports = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code, "--version"], capture_output=True, text=True, check=True, cwd=PROJECT
    )  # fmt: skip
    assert re.fullmatch(r"csip \d+\.\d+\S*( \([0-9a-f]{7,}(-dirty)?\))?\n", imports.stdout)
    assert not re.search(r"\| +(torch|numpy|mmengine|cv2)$", imports.stderr, re.MULTILINE)


def test_completion_knows_settings_and_data_sets() -> None:
    from pipelines.cli import options

    assert "mars" in options._data_sets("ma")
    assert "stage1.epochs=" in options._settings("stage1.")
    assert "stage2" in options._keys("stage")
    assert "--install-completion" in run("--help")


# ---- settings --------------------------------------------------------------------------------------------------------


def test_every_setting_has_a_description() -> None:
    listed = list_settings()
    assert len([setting for setting in listed if not setting.section]) >= 132
    for setting in listed:
        assert setting.description.endswith("."), f"{setting.key}: write its description below it, one sentence"
        assert setting.expected


def test_the_page_of_settings_is_up_to_date() -> None:
    page = (PROJECT / "docs/settings.md").read_text()
    assert page == as_markdown(list_settings()), "run: csip settings --markdown > docs/settings.md"


def test_settings_as_a_table() -> None:
    text = run("settings", "stage1")
    assert "stage1.epochs" in text and "an integer >= 1" in text and "stage2" not in text
    assert "stage1.batches" in text and "one of random, camera" in text
    demo = run("settings", "stage1.epochs", "--dataset", "demo", "--set", "stage1.epochs=7")
    assert re.search(r"stage1\.epochs +7 ", demo)
    assert re.search(r"dataset\.name +required ", run("settings", "dataset"))


@pytest.mark.parametrize("arguments", [[], ["--dataset", "mars"], ["--config", str(PROJECT / "configs/kgbd.yaml")]])
def test_settings_as_a_file_that_is_read_back(arguments: list[str], tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(run("settings", "--yaml", *arguments))
    read = load_settings(file)
    if arguments:
        name = {"--dataset": "mars", "--config": "kgbd"}[arguments[0]]
        assert read == load_settings(PROJECT / f"configs/{name}.yaml")
    else:
        assert read == load_settings(PROJECT / "configs/folder.yaml", [("dataset.name", "NAME")])
    part = run("settings", "skeleton_training.window", "--yaml", *arguments)
    assert part.startswith("skeleton_training:\n") and "width:" in part


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("csip train-st", {"train-stage1", "train-stage2"}),
        ("csip train-stage1 --set stage1.warm", {"stage1.warmup_epochs="}),
        ("csip evaluate --dataset lsv", {"lsvid"}),
        ("csip settings skeleton_training.wind", {"skeleton_training.window"}),
    ],
)
def test_the_shell_completes(words: str, expected: set[str]) -> None:
    code = "import sys; sys.argv = ['csip']; from pipelines.cli import main; main()"
    environment = os.environ | {
        "_CSIP_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1),
    }  # fmt: skip
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, cwd=PROJECT
    )
    assert expected <= set(result.stdout.split()), result.stderr


def test_a_typo_gets_a_suggestion() -> None:
    with pytest.raises(CsipError, match="did you mean lsvid"):
        settings_for("lsvidd", None, None, [])
    result = CliRunner().invoke(app, ["settings", "stage3"])
    assert "did you mean stage" in str(result.exception)


# ---- names that are no YAML, no markup, no pattern -------------------------------------------------------------------

AWKWARD = [
    "people #2", "2024-11-25", "2024", "no", "1e3", "[old] people", "a: b", "null", "~", "a=b", "Bob [front]", "x[/x]", "-1",
    "'q'", "*", "{a}", "%d", "ünï",
]  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(AWKWARD),
    st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=12).filter(
        lambda name: name not in (".", "..") and not name.startswith("--")
    ),
)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(name=NAMES, root=NAMES)
def test_names_and_folders_reach_the_settings_as_they_are(
    name: str, root: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("names") / "mine.yaml"
    place = ("--config", str(PROJECT / "configs/demo.yaml"), f"--dataset={name}", f"--root={root}")
    for arguments in (place, (*place[:2], "--set", f"dataset.name={name}", "--set", f"dataset.root={root}")):
        file.write_text(run("settings", "--yaml", *arguments))
        dataset = load_settings(file).dataset
        assert (dataset.name, dataset.path) == (name, Path(root))
    run("settings", "dataset", *place)  # and a table shows them


@pytest.mark.parametrize("name", AWKWARD)
def test_a_folder_data_set_of_any_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data" / name).mkdir(parents=True)
    chosen = settings_for(name, None, None, [])
    assert chosen.dataset.path == Path("data") / name
    assert run_folder(chosen, None) == Path("runs") / name


def test_an_empty_path_is_no_path() -> None:
    result = CliRunner().invoke(app, ["settings", "--dataset", "demo", "--root", ""])
    assert result.exit_code == 2 and "empty" in result.output
