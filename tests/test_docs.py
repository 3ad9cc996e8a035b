"""The README and the pages of docs/: every command and example is run, and what they name exists.

All pages share one folder with rendered people under the names of the data sets and small settings. Commands run in the
order of `PAGES`, each once, since later ones use what earlier ones made. What would take minutes is shortened by
`SHORTER`; blocks that are not run are marked ``text``.
"""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer.main

from csip.config import valid_keys
from csip.data import mars
from csip.synthetic.world import load_truth
from pipelines.cli import app
from pipelines.maintain.pictures import DARK, LIGHT, draw_chain

PROJECT = Path(__file__).parents[1]
# In the order in which somebody new reads them.
PAGES = (
    "README.md", "docs/quickstart.md", "docs/install.md", "docs/datasets.md", "docs/training.md", "docs/skeletons.md",
    "docs/videos.md", "docs/cluster.md", "docs/python.md", "docs/settings.md", "docs/method.md", "docs/benchmarks.md",
    "docs/architecture.md", "docs/troubleshooting.md", "CONTRIBUTING.md", "CHANGELOG.md",
)  # fmt: skip
TEXT = {page: (PROJECT / page).read_text() for page in PAGES}
BLOCKS = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
PICTURES = PROJECT / "docs/images"

# The suite itself, and what installs; the gate runs them.
ELSEWHERE = {"make test", "make quick", "make lint", "make setup"}
SHORTER = {
    "csip synth --out data/crowd --train-ids 200 --test-ids 100 --cameras 6":
        "csip synth --out data/crowd --train-ids 2 --test-ids 2 --cameras 2 --frames 2",
    "csip synth --out data/motion --world motion":
        "csip synth --out data/motion --world motion --train-ids 8 --test-ids 8 --frames 8 --height 32 --width 16",
    "csip synth-videos --out scenes --people 6 --cameras 2 --seconds 12":
        "csip synth-videos --out scenes --people 3 --cameras 2 --seconds 5",
    "make ablate":
        "make ablate SEEDS=1 ABLATION='--train-ids 8 --test-ids 8 --tracklets 1 --frames 8' "
        "SET='clips.frames=4 clips.stride=1 stage1.epochs=1 stage2.epochs=1 stage2.reader_steps=2 skeleton_encoder.depth=1'",
    "csip review --dataset hall": "csip review --help",  # it serves until it is stopped: test_review_server.py
    'make review DATASET=shop VIDEOS=scenes/videos FROM=runs/demo INGEST="--detector boxes --boxes scenes/det --margin 0.05"':
        "make --dry-run review DATASET=shop VIDEOS=scenes/videos FROM=runs/demo",
    "csip train-demo-pose --out weights": "csip train-demo-pose --help",  # run by test_demo_pose.py
    "csip train-demo-vision --model vision/small.json --no-twins --people 600 --steps 1500 --seed 27182 "
    "--out weights/clothing.safetensors":
        "csip train-demo-vision --model vision/small.json --no-twins --people 4 --steps 1 --out weights/clothing.safetensors",
    "csip train-pose-vision --start weights/clothing.safetensors --out weights/poses.safetensors":
        "csip train-pose-vision --start weights/clothing.safetensors --out weights/poses.safetensors --people 4 --steps 1",
    "csip train-demo-vision --out weights/demo.safetensors":
        "csip train-demo-vision --out weights/demo.safetensors --people 64 --steps 1 --model vision/small.json",
}  # fmt: skip
SMALL = """
extends: {base}
dataset: {{name: {name}, layout: {layout}, val_ids: {val_ids}}}
estimator: demo
stage1: {{epochs: 1}}
stage2: {{epochs: 1, ids_per_batch: 2}}
skeleton_encoder: {{depth: 1}}
evaluation: {{compare_untrained: false}}
runtime: {{workers: 0}}
"""


# Processes of commands that end in "&".
STARTED: list[subprocess.Popen[bytes]] = []


def blocks(page: str, language: str) -> list[str]:
    return [block for marked, block in BLOCKS.findall(TEXT[page]) if marked == language]


def steps() -> Iterator[tuple[str, str, str]]:
    """Yield page, language and text of each command and example, in the order in which they stand on the pages."""
    for page, text in TEXT.items():
        for language, block in BLOCKS.findall(text):
            if language == "python" and page != "docs/python.md":  # run by test_python_api.py
                yield page, "python", block
            elif language == "bash":
                lines = block.replace("\\\n", " ").splitlines()
                yield from ((page, "bash", line.partition("  #")[0].strip()) for line in lines if line.strip())


STEPS: list[tuple[str, str, str]] = []
for step in steps():
    if step[1:] not in [known[1:] for known in STEPS]:
        STEPS.append(step)
COMMANDS = [text for _, language, text in STEPS if language == "bash"]


# ---- commands and examples -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def project(checkout: Callable[[str], Path]) -> Iterator[Path]:
    """A checkout with rendered people as its data sets; what its commands have started ends with it."""
    folder = checkout("docs")
    base = folder / "configs/rendered.yaml"
    for name, layout, val_ids in (("mars", "mars", 2), ("mine", "folder", 0)):
        text = SMALL.format(base=base, name=name, layout=layout, val_ids=val_ids)
        (folder / f"configs/{name}.yaml").write_text(text)
    small = folder / "configs/presets/small.yaml"
    small.write_text(small.read_text().replace("epochs: 20", "epochs: 1").replace("epochs: 10", "epochs: 1"))

    people = "--train-ids 6 --test-ids 4 --cameras 2 --tracklets 1 --frames 8"
    run(folder, f"csip synth --out {folder}/data/mars {people}")
    kinect = {}
    truths = {truth.name: truth for truth in load_truth(folder / "data/mars")}
    for tracklet in mars.load(folder / "data/mars").train:
        for name in ("mine", "visits"):
            place = folder / "data" / name / f"person{tracklet.pid}" / f"camera{tracklet.camera}"
            place.mkdir(parents=True)
            for frame in tracklet.frames:
                shutil.copy2(folder / "data/mars" / frame, place)
        joints = truths[tracklet.name].joints3d[:, np.arange(20) % 17] * [1, -1, 1]
        kinect[f"person{tracklet.pid}_camera{tracklet.camera}"] = joints
    np.savez(folder / "kinect.npz", **kinect)

    walks = {
        f"Person{p:03d}_{k}": joints[:6] + 0.01 * k for p, joints in enumerate(kinect.values()) for k in range(1, 6)
    }
    shutil.copytree(folder / "data/mine/person1/camera1", folder / "crops")
    (folder / "data/kgbd").mkdir()
    np.savez(folder / "data/kgbd/kgbd.npz", **walks)
    yield folder
    for process in STARTED:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def run(project: Path, command: str) -> None:
    """Run a command of a page: `csip` in this process, which spares its imports, and all else in a shell."""
    if command.startswith("csip "):
        assert not app(shlex.split(command)[1:], standalone_mode=False), command
        return
    environment = os.environ | {
        "PATH": f"{project / '.venv/bin'}:{os.environ['PATH']}",
        "OMP_NUM_THREADS": "1",
        "SYNTH": "--train-ids 8 --test-ids 8 --tracklets 1 --frames 8",
        "SET": "stage1.epochs=1 stage2.epochs=1 stage2.reader_steps=2 dataset.val_ids=2 skeleton_encoder.depth=1",
    }
    if not command.startswith("make demo"):
        del environment["SET"]
    if command.endswith(" &"):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        STARTED.append(subprocess.Popen(f"exec {command[:-2]}", shell=True, cwd=project, env=environment,
                                        start_new_session=True, **quiet))  # fmt: skip
        return
    result = subprocess.run(
        command, shell=True, cwd=project, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}\n{result.stderr}"


def test_the_pages_have_their_commands() -> None:
    assert COMMANDS[:2] == ["make demo", "make test"], "the two commands come first"
    assert len(COMMANDS) > 30
    assert SHORTER.keys() <= set(COMMANDS)
    assert all(language in ("bash", "python", "text") for text in TEXT.values() for language, _ in BLOCKS.findall(text))
    assert all(text.count("```") == 2 * len(BLOCKS.findall(text)) for text in TEXT.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "language", "text"),
    [step for step in STEPS if step[2] not in ELSEWHERE],
    ids=lambda part: part.removeprefix("docs/").partition("\n")[0][:60],
)
def test_it_runs(project: Path, page: str, language: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    if language == "bash":
        run(project, SHORTER.get(text, text))
    else:
        exec(compile(text, page, "exec"), {})


@pytest.mark.slow
def test_the_commands_left_the_files_they_promise(project: Path) -> None:
    for name in ("demo", "mars", "mine"):
        assert (project / f"runs/{name}/report.md").read_text().startswith(f"# {name}")
    for file in ("runs/visits/metrics.json", "runs/mars-authors/stage1/model.safetensors", "data/demo/skeletons.png",
                 "runs/kgbd/report.md", "runs/kgbd-1/metrics.json", "runs/kgbd-graph/skeleton/model.safetensors",
                 "runs/demo/report.html", "data/hall/labels.csv", "runs/hall/report.html", "runs/shop/search.csv",
                 "export/demo/model.onnx", "runs/ablation/ablation.md"):  # fmt: skip
        assert (project / file).exists()


# ---- what the pages name ---------------------------------------------------------------------------------------------


def test_no_page_is_left_out() -> None:
    pages = {path.relative_to(PROJECT).as_posix() for path in (*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md"))}
    assert pages == set(PAGES)


def test_tests_mirror_the_folders() -> None:
    folders = {path.parent.relative_to(PROJECT / "tests") for path in PROJECT.glob("tests/**/test_*.py")}
    assert {folder for folder in folders if not (PROJECT / folder).is_dir()} == {Path("benchmarks"), Path("device")}


def test_the_readme_is_short() -> None:
    assert len(TEXT["README.md"].splitlines()) <= 150


def prose(text: str) -> str:
    return BLOCKS.sub("", text)


def slug(title: str) -> str:
    """Return the anchor that GitHub gives a title."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")


def titles(text: str) -> list[str]:
    return re.findall(r"^#+ (.*)$", prose(text), re.MULTILINE)


@pytest.mark.parametrize("page", TEXT)
def test_links_resolve(page: str) -> None:
    text = prose(TEXT[page])
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"(?:src|srcset|href)=\"([^\"]+)\"", text)
    for link in links:
        if link.startswith(("http:", "https:")):
            continue
        file, _, anchor = link.partition("#")
        target = (PROJECT / page).parent / file if file else PROJECT / page
        assert target.exists(), link
        if anchor:
            assert anchor in {slug(title) for title in titles(target.read_text())}, link


@pytest.mark.parametrize("page", TEXT)
def test_titles_name_things(page: str) -> None:
    for title in titles(TEXT[page]):
        assert not re.match(r"(what|who|how|when|where|why|which)\b", title, re.IGNORECASE), title
        assert title[-1] not in ".?!:", title


# Not the field's words: split, metric, resume, non-finite, needs.
FOREIGN = re.compile(r"\b(divisions?|figures?|goes on where|no number|wants|who is who|last bits)\b", re.IGNORECASE)


@pytest.mark.parametrize("page", [page for page in TEXT if page not in ("docs/settings.md", "docs/python.md")])
def test_the_fields_terms_are_used(page: str) -> None:
    assert not FOREIGN.findall(prose(TEXT[page]))


def helps(command: Any) -> Iterator[str]:
    yield from (command.help or "", *(getattr(option, "help", None) or "" for option in command.params))
    for below in getattr(command, "commands", {}).values():
        yield from helps(below)


def test_help_and_report_use_the_fields_terms() -> None:
    page = (PROJECT / "pipelines/report_page/page.html").read_text()
    seen = re.sub(r"{[%{].*?[%}]}|<[^>]*>", " ", page, flags=re.DOTALL)
    assert "Ranked lists" in page and "gallery tracklets" in seen
    texts = [*helps(typer.main.get_command(app)), seen]
    assert len(texts) > 200
    assert not [text for text in texts if FOREIGN.search(text)]


def test_symbols_exist() -> None:
    """A link [`module:Class.method`](file) must lead to the file that defines it."""
    found = [(page, *link) for page in TEXT for link in re.findall(r"\[`([\w.]+):([\w.]+)`\]\(([^)]+)\)", TEXT[page])]
    assert len(found) > 30
    for page, module, symbol, file in found:
        path = ((PROJECT / page).parent / file).resolve()
        assert path == PROJECT / (module.replace(".", "/") + ".py"), f"{page}: {module}"
        scope: Any = ast.parse(path.read_text())
        for name in symbol.split("."):
            named = [node for node in scope.body if getattr(node, "name", None) == name]
            assert named, f"{page}: {module}:{symbol}"
            scope = named[0]


def test_a_clip_passes_nine_files() -> None:
    section = TEXT["docs/architecture.md"].partition("## One clip")[2].partition("\n## ")[0]
    stops = re.findall(r"^\| *(\d+) \| \[`([\w.]+):", section, re.MULTILINE)
    assert [int(number) for number, _ in stops] == list(range(1, len(stops) + 1))
    assert len({module for _, module in stops}) == len(stops) <= 9


def test_settings_that_pages_name_exist() -> None:
    keys = set(valid_keys())
    sections = "|".join({key.partition(".")[0] for key in keys if "." in key})
    for page, text in TEXT.items():
        if page == "docs/python.md":  # evaluation.metrics is an attribute there
            continue
        for named in re.findall(rf"(?:`|--set |[ \"']SET=\"?)((?:{sections})\.[a-z]\w*(?:\.\w+)*)", text):
            assert named in keys, f"{page}: {named}"


def test_commands_that_pages_mention_exist() -> None:
    """Inline commands and blocks that are not run name commands and options that there are."""
    program: Any = typer.main.get_command(app)
    mentioned = 0
    for page, text in TEXT.items():
        inline = re.findall(r"`(csip [^`]+)`", prose(text))
        for block in blocks(page, "text"):
            inline += re.findall(r"^(?:\w+=\S+ )*(csip .*?)(?:   .*)?$", block, re.MULTILINE)
        for line in inline:
            words = line.replace("...", "").split()[1:]
            command = program
            while words and words[0] in getattr(command, "commands", {}):
                command = command.commands[words.pop(0)]
            if command is program:
                assert not words or words[0].startswith("-"), f"{page}: {line}"
            options = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
            for word in words:
                if word.startswith("--") and not command.context_settings.get("ignore_unknown_options"):
                    assert word.partition("=")[0] in {*options, "--help"}, f"{page}: {line}"
            mentioned += 1
    assert mentioned > 20


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_pictures_are_small_and_for_light_and_dark_pages() -> None:
    pictures = sorted(path.name for path in PICTURES.iterdir())
    assert pictures == sorted(
        f"{name}-{theme}.{kind}"
        for name, kind in (
            ("chain", "svg"),
            ("report-lists", "png"),
            ("report-metrics", "png"),
            ("review-pairs", "png"),
            ("review-people", "png"),
            ("skeletons", "webp"),
        )
        for theme in ("light", "dark")
    )
    for name in pictures:
        assert (PICTURES / name).stat().st_size < 400_000, name
        assert f"docs/images/{name}" in TEXT["README.md"] or f'"images/{name}"' in TEXT["docs/videos.md"]


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=lambda theme: theme.name)
def test_the_chain_is_drawn_anew(theme: Any) -> None:
    """Otherwise: python -m pipelines.maintain.pictures."""
    assert (PICTURES / f"chain-{theme.name}.svg").read_text() == draw_chain(theme)
