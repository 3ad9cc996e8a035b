"""The floors of the house, drawn from the imports: an import goes down, never up, and never in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]

# From the ground up. What shares a floor must not know of each other.
FLOORS = (
    ("pose_cache",),
    ("csip.errors", "csip.monitor", "csip.version"),
    ("csip.config", "csip.files"),
    ("csip.runtime",),
    ("csip.data", "csip.synthetic"),
    ("csip.models", "csip.video"),
    ("csip.retrieval",),
    ("csip.export", "csip.review", "csip.training"),
    ("csip",),
    ("pipelines",),
)
ROOMS = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
MODULES = {
    ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("pose_cache", "csip", "pipelines")
    for path in (PROJECT / package).rglob("*.py")
    if "pose/demo" not in path.as_posix()  # MMPose's own configuration language
}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports_of(module: str, path: Path | None = None) -> Iterator[str]:
    """Yield the modules of this project that a module imports, wherever in it."""
    for node in ast.walk(tree_of(path or MODULES[module])):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name in MODULES)


def room_of(module: str) -> str:
    return max((room for room in ROOMS if module == room or module.startswith(f"{room}.")), key=len)


def faults(graph: dict[str, set[str]]) -> list[str]:
    """Name every import that climbs a floor or crosses one, and the first circle of modules."""
    climbs = [
        f"{module} imports {imported}: {room_of(imported)} is not below {room_of(module)}"
        for module, all_imported in sorted(graph.items())
        for imported in sorted(all_imported)
        if room_of(imported) != room_of(module) and ROOMS[room_of(imported)] >= ROOMS[room_of(module)]
    ]
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        climbs.append("a circle: " + " -> ".join(error.args[1]))
    return climbs


def test_imports_only_go_down() -> None:
    # A package's own name is imported by `from package import module`; that is no use of its face.
    graph = {
        module: {name for name in imports_of(module) if not module.startswith(f"{name}.") and name != module}
        for module in MODULES
    }
    assert len(graph) > 100
    assert faults(graph) == []


@pytest.mark.parametrize("room", ["csip.retrieval", "csip.models", "csip.video", "csip.data", "csip.export"])
def test_using_a_model_does_not_import_its_training(room: str) -> None:
    """Evaluating or searching must not bring TensorBoard and the training loops along."""
    todo = [module for module in MODULES if room_of(module) == room]
    seen: set[str] = set()
    while todo:
        module = todo.pop()
        if module not in seen:
            seen.add(module)
            todo.extend(imports_of(module))
    assert len(seen) > 5
    assert [module for module in seen if module.startswith(("csip.training", "pipelines"))] == []


def test_a_climb_a_crossing_and_a_circle_are_seen() -> None:
    assert faults({"csip.data.clips": {"csip.training.stage1"}}) == [
        "csip.data.clips imports csip.training.stage1: csip.training is not below csip.data"
    ]
    assert len(faults({"csip.video.find": {"csip.models.reid"}})) == 1
    assert len(faults({"pose_cache.store": {"csip.errors"}})) == 1
    assert faults({"csip.data.a": {"csip.data.b"}, "csip.data.b": {"csip.data.a"}})[0].startswith("a circle: ")
    assert faults({"csip.training.stage1": {"csip.models.reid"}}) == []


LINES, PARAMETERS = 80, 8


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.FunctionDef))


def test_functions_fit_a_screen() -> None:
    files = [*MODULES.values(), *(PROJECT / "tests").rglob("*.py")]
    long = {f"{path.relative_to(PROJECT)}:{one.name}" for path in files for one in functions(path)
            if (one.end_lineno or 0) - one.lineno >= LINES}  # fmt: skip
    assert not long


def test_functions_take_few_parameters() -> None:
    """Constructors of plain data are dataclasses, and commands are Typer's: neither is counted."""
    many = {}
    for module, path in MODULES.items():
        if module.startswith(("csip", "pose_cache")):
            for one in functions(path):
                names = [a.arg for a in (*one.args.posonlyargs, *one.args.args, *one.args.kwonlyargs)]
                if len([name for name in names if name not in ("self", "cls")]) > PARAMETERS:
                    many[f"{module}:{one.name}"] = names
    assert not many


def test_every_room_is_there() -> None:
    assert set(ROOMS) == {room_of(module) for module in MODULES}
