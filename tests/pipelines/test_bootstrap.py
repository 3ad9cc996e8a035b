"""What `make setup` decides before it installs anything: Python, the build of torch, the installer, the operators."""

from __future__ import annotations

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from pipelines.maintain import bootstrap
from pipelines.maintain.bootstrap import SetupError

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def index() -> Iterator[str]:
    """A package index that answers."""
    handler = http.server.SimpleHTTPRequestHandler
    handler.log_message = lambda *_: None  # type: ignore[method-assign]
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap.sys, "platform", "linux")
    monkeypatch.setattr(bootstrap, "has_nvidia", lambda: False)
    monkeypatch.setattr(bootstrap, "unreachable", lambda address: None)


@pytest.mark.usefixtures("linux")
def test_without_a_gpu_the_cpu_build_is_taken() -> None:
    build, index = bootstrap.choose_torch("", {})
    assert index == "https://download.pytorch.org/whl/cpu" and "no NVIDIA GPU" in build
    assert bootstrap.choose_torch("cpu", {})[1] == index


@pytest.mark.usefixtures("linux")
def test_with_a_gpu_or_asked_for_pypis_build_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert bootstrap.choose_torch("pypi", {})[1] is None and bootstrap.choose_torch("cuda", {})[1] is None
    monkeypatch.setattr(bootstrap, "has_nvidia", lambda: True)
    build, index = bootstrap.choose_torch("", {})
    assert index is None and "NVIDIA GPU here" in build


@pytest.mark.usefixtures("linux")
def test_where_the_cpu_index_does_not_answer_another_is_taken_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "unreachable", lambda address: f"no way to {address}")
    build, index = bootstrap.choose_torch("", {})
    assert (
        index is None and "no way to https://download.pytorch.org/whl/cpu/torch/" in build and "built for CUDA" in build
    )
    assert "pip's find-links (/srv/wheels)" in bootstrap.choose_torch("", {"find-links": "/srv/wheels"})[0]
    with pytest.raises(SetupError, match="cannot be reached"):
        bootstrap.choose_torch("cpu", {})


@pytest.mark.usefixtures("linux")
def test_an_address_is_taken_as_it_is_and_nonsense_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = "https://mirror.example.org/whl/cpu"
    assert bootstrap.choose_torch(mirror, {}) == (f"from {mirror}", mirror)
    with pytest.raises(SetupError, match="TORCH=gpu is unknown"):
        bootstrap.choose_torch("gpu", {})
    monkeypatch.setattr(bootstrap.sys, "platform", "darwin")
    assert bootstrap.choose_torch("", {}) == ("PyPI's build", None)


def test_an_index_is_asked_whether_it_answers(index: str) -> None:
    assert bootstrap.unreachable(index) is None
    assert bootstrap.unreachable(f"{index}/nothing") is not None
    assert bootstrap.unreachable("http://127.0.0.1:9/whl") is not None


def test_where_pip_looks_uv_looks() -> None:
    pips = {"find-links": "/srv/wheels /more", "index-url": "https://mirror.example.org/simple", "cert": "/etc/ca.pem"}
    assert bootstrap.uv_settings({}, pips) == {
        "UV_FIND_LINKS": "/srv/wheels,/more",
        "UV_DEFAULT_INDEX": "https://mirror.example.org/simple",
        "SSL_CERT_FILE": "/etc/ca.pem",
    }
    own = {"UV_FIND_LINKS": "/mine", "UV_INDEX_URL": "https://mine.example.org", "SSL_CERT_FILE": "/mine.pem"}
    assert bootstrap.uv_settings(own, pips) == {}, "what uv is told comes first"
    assert bootstrap.uv_settings({}, {}) == {}
    assert bootstrap.uv_settings({"PYTHONDONTWRITEBYTECODE": "1"}, {}) == {"UV_COMPILE_BYTECODE": "1"}


def test_pips_settings_are_read_from_files_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nfind-links = /one\n    /two\nindex-url = https://files.example.org/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    found = bootstrap.pip_settings()
    assert found["find-links"].split() == ["/one", "/two"] and found["index-url"] == "https://files.example.org/simple"
    monkeypatch.setenv("PIP_FIND_LINKS", "/three")
    assert bootstrap.pip_settings()["find-links"] == "/three"


def test_a_wrong_python_is_refused_before_anything_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ((3, 10, 1), (3, 15, 0)):
        monkeypatch.setattr(bootstrap.sys, "version_info", version)
        with pytest.raises(SetupError, match=r"Python 3\.11 to 3\.14 is needed"):
            bootstrap.check_system()


def test_windows_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap.os, "name", "nt")
    with pytest.raises(SetupError, match="Windows is not supported") as error:
        bootstrap.check_system()
    assert "wsl --install" in error.value.fix


def test_what_the_system_has_to_have_is_named_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "find_uv", lambda: None)
    monkeypatch.setattr(bootstrap, "has_module", lambda name: name != "ensurepip")
    with pytest.raises(SetupError, match="no ensurepip") as error:
        bootstrap.check_system()
    assert f"python3.{sys.version_info[1]}-venv" in error.value.fix
    monkeypatch.setattr(bootstrap, "find_uv", lambda: "/usr/bin/uv")
    bootstrap.check_system()  # uv needs no ensurepip

    bootstrap.check_compiler("lite")
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    with pytest.raises(SetupError, match="no C\\+\\+ compiler"):
        bootstrap.check_compiler("compiled")
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(bootstrap.sysconfig, "get_paths", lambda: {"include": "/nowhere"})
    with pytest.raises(SetupError, match="headers of") as error:
        bootstrap.check_compiler("compiled")
    assert f"python3.{sys.version_info[1]}-dev" in error.value.fix


def test_operators_stay_as_they_are_until_asked_for_otherwise() -> None:
    assert bootstrap.choose_operators(None, None) == "lite"
    assert bootstrap.choose_operators("", "compiled") == "compiled"
    assert bootstrap.choose_operators("compiled", "lite") == "compiled"
    with pytest.raises(SetupError, match="OPS=fast is unknown"):
        bootstrap.choose_operators("fast", None)
    with pytest.raises(SetupError, match="has compiled operators"):
        bootstrap.choose_operators("lite", "compiled")


def test_gpu_operators_need_the_toolkit_that_torch_was_built_for(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="CUDA build of torch"):
        bootstrap.check_toolkit(None, None)
    with pytest.raises(SetupError, match=r"CUDA toolkit 13\.0.*there is no nvcc"):
        bootstrap.check_toolkit("13.0", None)
    (tmp_path / "bin").mkdir()
    nvcc = tmp_path / "bin/nvcc"
    nvcc.write_text("#!/bin/sh\necho 'Cuda compilation tools, release 12.4, V12.4.99'\n")
    nvcc.chmod(0o755)
    with pytest.raises(SetupError, match=r"nvcc 12\.4 is in"):
        bootstrap.check_toolkit("13.0", str(tmp_path))
    bootstrap.check_toolkit("12.4", str(tmp_path))


def test_what_the_setup_scripts_of_openmmlab_do_works_on_todays_python(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(bootstrap.OLD_EXEC)
    code = (
        "def version():\n    exec(compile(\"__version__ = '2.1.0'\", 'v', 'exec'))\n    return locals()['__version__']\n"
        "print(version())\nexec('b = 2\\ndef f(): return b')\nprint(f())\nspace = {}\nexec('a = 1', space)\nprint(space['a'])"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert result.stdout == "2.1.0\n2\n1\n", result.stderr


def test_the_environment_is_known_by_its_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "VENV", tmp_path)
    monkeypatch.setattr(bootstrap, "PYTHON", tmp_path / "bin/python")
    assert not bootstrap.usable()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").touch()
    for line, expected in ((f"version = 3.{sys.version_info[1]}.9", True), ("version = 3.9.1", False),
                           (f"version_info = 3.{sys.version_info[1]}.0", True)):  # fmt: skip
        (tmp_path / "pyvenv.cfg").write_text(f"home = /usr/bin\n{line}\n")
        assert bootstrap.usable() is expected


def test_pins_are_those_of_the_project() -> None:
    pins = bootstrap.exact_pins()
    assert {"torch", "torchvision", "mmcv-lite", "opencv-python"} <= set(pins)
    constraints = bootstrap.CONSTRAINTS.read_text().splitlines()
    assert f"opencv-python=={pins['opencv-python']}" in constraints
    assert not [line for line in constraints if "+" in line or line.startswith("torch==")], "no build of torch"


@pytest.fixture
def pythons(tmp_path: Path) -> Path:
    """A folder to be PATH, with the tools that the search needs."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/sh").symlink_to(shutil.which("sh") or "/bin/sh")
    return tmp_path


def fake_python(path: Path, version: str, *, works: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    minor = int(version.split(".")[1])
    fits = works and 11 <= minor <= 14
    path.write_text(f"#!/bin/sh\nexit {0 if fits else 1}\n")
    path.chmod(0o755)


def find_python(pythons: Path) -> str:
    environment = {"PATH": str(pythons / "bin"), "HOME": str(pythons)}
    script = PROJECT / "pipelines/maintain/find_python.sh"
    command = [str(pythons / "bin/sh"), str(script)]
    return subprocess.run(
        command, cwd=pythons, env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_newest_python_is_found(pythons: Path) -> None:
    assert find_python(pythons) == ""
    fake_python(pythons / "bin/python3", "3.12")
    assert find_python(pythons) == "python3"
    fake_python(pythons / "bin/python3.11", "3.11")
    assert find_python(pythons) == "python3.11"
    fake_python(pythons / "bin/python3.13", "3.13", works=False)  # a shim without a version, or without venv
    fake_python(pythons / ".pyenv/versions/3.12.1/bin/python", "3.12")
    assert find_python(pythons) == str(pythons / ".pyenv/versions/3.12.1/bin/python")
    fake_python(pythons / ".venv/bin/python", "3.11")
    assert find_python(pythons) == ".venv/bin/python", "an environment stays what it is"


def test_make_says_what_to_do_where_there_is_no_python(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy2(PROJECT / name, tmp_path)
    result = subprocess.run(["make", "setup", "PYTHON="], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode != 0
    assert "no Python 3.11 to 3.14" in result.stderr and "apt-get install python3 python3-venv" in result.stderr


def test_an_environment_that_is_up_to_date_is_left_alone(tmp_path: Path) -> None:
    """The whole program, with an environment whose stamp says that nothing is to be done."""
    project = tmp_path / "project"
    shutil.copytree(PROJECT / "pipelines/maintain", project / "pipelines/maintain")
    shutil.copy2(PROJECT / "pyproject.toml", project)
    (project / ".venv/bin").mkdir(parents=True)
    (project / ".venv/bin/python").symlink_to(sys.executable)
    (project / ".venv/pyvenv.cfg").write_text(f"version = 3.{sys.version_info[1]}.0\n")
    code = "import sys; sys.path.insert(0, sys.argv[1]); import bootstrap; print(bootstrap.fingerprint())"
    folder = project / "pipelines/maintain"
    command = [sys.executable, "-c", code, str(folder)]
    fingerprint = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    stamp = {"fingerprint": fingerprint, "operators": "compiled", "torch": "cpu"}
    (project / ".venv/csip-setup.sha256").write_text(json.dumps(stamp))
    environment = {k: v for k, v in os.environ.items() if k not in ("TORCH", "OPS", "INSTALLER")}
    result = subprocess.run(
        [sys.executable, str(folder / "bootstrap.py")], env=environment, capture_output=True, text=True
    )
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    refused = subprocess.run(
        [sys.executable, str(folder / "bootstrap.py")],
        env=environment | {"OPS": "lite"},
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 1 and "fix: rm -r .venv" in refused.stderr


def test_constraints_name_all_that_is_installed() -> None:
    """From the project's dependencies on; torch's own build brings its libraries along."""
    constraints = {
        line.split("==")[0].lower().replace("_", "-") for line in bootstrap.CONSTRAINTS.read_text().splitlines()
    }
    brought = {"torch", "torchvision", "triton", "setuptools", "csip", "mmcv-lite", "pip"}
    project = bootstrap.read_pyproject()["project"]
    todo, seen = [*project["dependencies"], *project["optional-dependencies"]["dev"]], set[str]()
    while todo:
        requirement = Requirement(todo.pop())
        name = requirement.name.lower().replace("_", "-")
        if name in seen or (requirement.marker is not None and not requirement.marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        try:
            needed = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        if name != "torch":
            todo.extend(needed)
        for extra in requirement.extras:
            todo.extend(
                line.replace(f'extra == "{extra}"', "python_version > '3'") for line in needed if f'"{extra}"' in line
            )
    assert len(seen) > 80
    assert sorted(name for name in seen - constraints - brought if not name.startswith(("nvidia-", "cuda-"))) == []
