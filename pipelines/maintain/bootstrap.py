"""Make ``.venv`` and install the tested set into it: ``python3 pipelines/maintain/bootstrap.py`` (``make setup``).

Runs before anything is installed, so it uses the standard library alone. Settings are environment variables, which Make
hands on (``make setup TORCH=cpu``):

``TORCH``
    Which build of torch. ``cpu``: PyTorch's own CPU build. ``cuda`` or ``pypi``: the one on PyPI, which on Linux is for
    CUDA. An ``https://`` address: that package index, of a mirror or of another build. Otherwise the CPU build where
    there is no NVIDIA GPU and PyTorch's index answers, and PyPI's in all other cases.
``INSTALLER``
    ``uv`` or ``pip``. Otherwise uv: the one on PATH, or else one inside the environment, and pip where there is none.
``OPS``
    ``compiled``: mmcv with its compiled operators (CPU), and xtcocotools; needs g++ and Python's headers, 2 to 5
    minutes. ``gpu``: also mmcv's GPU operators; needs the CUDA toolkit of the version that torch was built for.

An environment that is up to date is left alone, so the command can be repeated at no cost.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

PROJECT = Path(__file__).resolve().parents[2]
VENV = PROJECT / ".venv"
PYTHON = VENV / "bin" / "python"
CONSTRAINTS = Path(__file__).with_name("constraints.txt")
STAMP = VENV / "csip-setup.sha256"
OLDEST, NEWEST = (3, 11), (3, 14)
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PROBE_SECONDS = 4.0
OPERATORS = ("lite", "compiled", "gpu")

# Compiling mmcv's 77 C++ files takes 722 s plainly, 293 s with light optimisation, and 103 s (2 cores) when the torch
# header that every one of them includes is precompiled. The flags of the two compilations must agree.
LIGHT = ["-O1", "-g0", "-w"]
HEADER_FLAGS = ["-std=c++17", "-fPIC", "-DTORCH_API_INCLUDE_EXTENSION_H", "-DTORCH_EXTENSION_NAME=_ext"]
# The setup.py of mmcv and of xtcocotools read their version with exec, which since Python 3.13 writes into a copy of
# the local variables (PEP 667). With this on PYTHONPATH as sitecustomize.py it writes into the caller's own again.
OLD_EXEC = """\
import builtins, sys
_exec = builtins.exec
def exec(source, globals=None, locals=None, /, **more):
    frame = sys._getframe(1)
    if globals is None and locals is None and frame.f_locals is not frame.f_globals:
        globals, scope = frame.f_globals, dict(frame.f_locals)
        _exec(source, globals, scope, **more)
        frame.f_locals.update(scope)
    else:
        _exec(source, frame.f_globals if globals is None else globals, locals, **more)
builtins.exec = exec
"""


class SetupError(Exception):
    """What stops the installation, and how to mend it."""

    def __init__(self, problem: str, fix: str) -> None:
        super().__init__(problem)
        self.fix = fix


def main() -> int:
    """Bring the environment up to date; return the exit code."""
    started = time.monotonic()
    try:
        check_system()
        wanted, stamp = fingerprint(), read_stamp()
        operators = choose_operators(os.environ.get("OPS"), stamp.get("operators"))
        torch = os.environ.get("TORCH", "")
        asked_again = stamp.get("torch") in (torch, None) or not torch
        if stamp.get("fingerprint") == wanted and stamp.get("operators") == operators and asked_again and usable():
            return 0
        check_compiler(operators)
        install(torch, operators)
    except SetupError as error:
        return fail(str(error), error.fix)
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        return fail(
            f"this step failed with exit code {error.returncode}:\n  {command}", "mend it, then `make setup` again"
        )
    STAMP.write_text(json.dumps({"fingerprint": wanted, "operators": operators, "torch": torch}))
    say(f"done in {time.monotonic() - started:.0f} s")
    return 0


def check_system() -> None:
    """Refuse what cannot work, before anything is downloaded."""
    if os.name == "nt":
        raise SetupError(
            "Windows is not supported.", "use the Windows Subsystem for Linux: `wsl --install`, then the same there"
        )
    if not OLDEST <= sys.version_info[:2] <= NEWEST:
        raise SetupError(
            f"Python 3.11 to 3.14 is needed, this is {platform.python_version()} ({sys.executable}).",
            "make setup PYTHON=python3.13",
        )
    if not find_uv() and not has_module("ensurepip"):
        raise SetupError(
            f"{sys.executable} cannot make environments (no ensurepip), and there is no uv.",
            f"apt-get install python{sys.version_info[0]}.{sys.version_info[1]}-venv",
        )


def check_compiler(operators: str) -> None:
    """Ask for what compiling needs, where anything is to be compiled."""
    if operators == "lite":
        return
    if shutil.which("g++") is None:
        raise SetupError("OPS asks for compiled operators, and there is no C++ compiler.", "apt-get install g++")
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        raise SetupError(
            f"OPS asks for compiled operators, and the headers of {sys.executable} are not here.",
            f"apt-get install python{sys.version_info[0]}.{sys.version_info[1]}-dev",
        )


def choose_operators(asked: str | None, before: str | None) -> str:
    """Return which of mmcv's operators the environment is to have; what it had, if nothing is asked for."""
    chosen = asked or before or "lite"
    if chosen not in OPERATORS:
        raise SetupError(f"OPS={chosen} is unknown.", f"OPS is one of {', '.join(OPERATORS)}")
    if chosen == "lite" and before not in (None, "lite"):
        raise SetupError("this environment has compiled operators.", "rm -r .venv, then `make setup`")
    return chosen


def install(torch: str, operators: str) -> None:
    """Run the steps: environment, torch, everything else, and the compiled operators where they are asked for."""
    pins = exact_pins()
    uv = find_uv() if os.environ.get("INSTALLER") != "pip" else None
    if not usable():
        say(f"making {VENV.name} with Python {platform.python_version()}")
        # uv needs no pip, and installs it in a moment; ensurepip takes seconds.
        venv.create(VENV, with_pip=uv is None, clear=VENV.exists(), symlinks=True)
    if uv is None and os.environ.get("INSTALLER") != "pip":
        uv = fetch_uv()
    installer = Installer(uv)

    build, index = choose_torch(torch, installer.pips)
    say(f"installing torch {pins['torch']} with {installer.name}: {build}")
    if index is not None:  # without what they depend on, of which that index has a few old versions only
        installer.install("--no-deps", "--index-url", index, *(f"{n}=={pins[n]}" for n in ("torch", "torchvision")))
    say("installing MMPose, OpenCLIP and the rest")
    installer.install("--no-deps", f"mmpose=={bundled()['mmpose']}")
    # pip is for those who use the environment, where uv has made it.
    installer.install("-c", str(CONSTRAINTS), "pip", "-e", f"{PROJECT}[dev]")
    if sys.platform == "linux" and not loads("libGL.so.1"):
        say("there is no libGL here: OpenCV's build without windows is laid over the other")
        version = pins["opencv-python"]
        installer.install("--no-deps", installer.again, f"opencv-python-headless=={version}")
    if operators != "lite":
        compile_operators(installer, operators == "gpu")
    say(f"torch {torch_build()}, mmcv's operators: {operators}")


class Installer:
    """Installs packages into the environment, with uv or with pip."""

    def __init__(self, uv: str | None) -> None:
        self.uv = uv
        self.name = "pip" if uv is None else "uv"
        self.again = "--force-reinstall" if uv is None else "--reinstall"
        self.pips = pip_settings()
        self.environment = os.environ | ({} if uv is None else uv_settings(os.environ, self.pips))

    def install(self, *arguments: str) -> None:
        if self.uv is None:
            pip("install", *arguments)
            return
        run([self.uv, "pip", "install", "--quiet", "--python", str(PYTHON), *arguments], self.environment)


def find_uv() -> str | None:
    """Return the uv on PATH or in the environment."""
    inside = VENV / "bin" / "uv"
    return shutil.which("uv") or (str(inside) if inside.exists() else None)


def fetch_uv() -> str | None:
    """Put uv into the environment; None where there is none for this machine, or it cannot be had."""
    if subprocess.run([*PIP, "install", "--quiet", "uv>=0.9"], check=False).returncode:
        say("uv could not be installed; going on with pip, which takes two to three times as long")
        return None
    return find_uv()


def pip_settings() -> dict[str, str]:
    """Return what pip is configured with, by files and by the environment: {"find-links": "/srv/wheels"}."""
    command = [*(PIP if PYTHON.exists() and has_pip() else [sys.executable, "-m", "pip"]), "config", "list"]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    names = ("find-links", "index-url", "cert")
    settings = {n: os.environ[v] for n in names if (v := f"PIP_{n.upper().replace('-', '_')}") in os.environ}
    # Later ones win: files before the environment. Where pip is not there, the environment is all there is.
    for line in sorted(found.splitlines(), key=lambda line: line.startswith(":env:")):
        match = re.fullmatch(r"(?:global|install|:env:)\.([a-z-]+)='(.*)'", line.strip())
        if match:
            settings[match[1]] = match[2].replace("\\n", " ")
    return settings


def uv_settings(environment: dict[str, str] | os._Environ[str], pips: dict[str, str]) -> dict[str, str]:
    """Translate pip's settings for uv, which reads none of them, so that both install the same.

    uv leaves it to Python to keep what it compiles. Where Python may not, every process would compile torch again, in 12
    seconds and more; pip compiles anyway.
    """
    settings = {}
    if "find-links" in pips and "UV_FIND_LINKS" not in environment:
        settings["UV_FIND_LINKS"] = ",".join(pips["find-links"].split())
    if "index-url" in pips and not {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} & set(environment):
        settings["UV_DEFAULT_INDEX"] = pips["index-url"]
    if "cert" in pips and "SSL_CERT_FILE" not in environment:
        settings["SSL_CERT_FILE"] = pips["cert"]
    if environment.get("PYTHONDONTWRITEBYTECODE"):
        settings["UV_COMPILE_BYTECODE"] = "1"
    return settings


def choose_torch(asked: str, pips: dict[str, str]) -> tuple[str, str | None]:
    """Choose the build of torch: what it is, for people, and the index that has it, None for the usual sources."""
    usual = "PyPI's build, which is built for CUDA" if sys.platform == "linux" else "PyPI's build"
    if "find-links" in pips:
        usual = f"what is in pip's find-links ({pips['find-links']}), else {usual}"
    if asked.startswith(("https://", "http://", "file://")):
        return f"from {asked}", asked
    if asked in ("cuda", "pypi"):
        return f"{usual}, as TORCH={asked} says", None
    if asked not in ("", "cpu"):
        raise SetupError(f"TORCH={asked} is unknown.", "TORCH is cpu, cuda, pypi or the address of a package index")
    if asked == "" and sys.platform != "linux":
        return usual, None
    if asked == "" and has_nvidia():
        return f"{usual}, for the NVIDIA GPU here", None
    reason = unreachable(f"{CPU_INDEX}/torch/")
    if reason is None:
        return "PyTorch's CPU build (no NVIDIA GPU here)" if asked == "" else "PyTorch's CPU build", CPU_INDEX
    if asked == "cpu":
        raise SetupError(f"{CPU_INDEX} cannot be reached: {reason}", "TORCH=pypi, or TORCH= the address of a mirror")
    return f"{usual}; PyTorch's CPU builds cannot be reached ({reason})", None


def has_nvidia() -> bool:
    """Tell whether an NVIDIA driver is here."""
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def unreachable(address: str) -> str | None:
    """Return why an address does not answer, None if it does."""
    try:
        with urlopen(address, timeout=PROBE_SECONDS):
            return None
    except URLError as error:
        return str(error.reason)
    except OSError as error:
        return str(error)


def compile_operators(installer: Installer, with_gpu: bool) -> None:
    """Build mmcv with its operators and xtcocotools, unless that was done before, and install them."""
    extras = dict(line.split("==") for line in read_pyproject()["project"]["optional-dependencies"]["ops"])
    say("installing what the build needs")
    installer.install("-c", str(CONSTRAINTS), "cython", "ninja", "wheel")
    torch = json.loads(
        ask_python(
            "import json, torch; from torch.utils.cpp_extension import include_paths, CUDA_HOME;"
            "print(json.dumps(dict(version=torch.__version__, cuda=torch.version.cuda, home=CUDA_HOME,"
            "include=include_paths())))"
        )
    )
    if with_gpu:
        check_toolkit(torch["cuda"], torch["home"])
    kind = f"cu{torch['cuda']}" if with_gpu else "cpu"
    tag = f"py{sys.version_info[0]}{sys.version_info[1]}-torch{torch['version']}-{kind}"
    wheels = Path(os.environ.get("CSIP_WHEELS", PROJECT / ".wheels")) / tag
    wheels.mkdir(parents=True, exist_ok=True)
    (wheels / "sitecustomize.py").write_text(OLD_EXEC)
    try:
        if not has_operators(wheels, extras["mmcv"]):
            build_mmcv(wheels, extras["mmcv"], torch["include"], with_gpu)
        if not list(wheels.glob("xtcocotools-*.whl")):
            build_wheel(wheels, "xtcocotools", extras["xtcocotools"], {})
    finally:
        (wheels / "sitecustomize.py").unlink()
    # mmcv is laid over mmcv-lite, which is the same files without the operators.
    installer.install("--no-deps", installer.again, *map(str, sorted(wheels.glob("*.whl"))))


def check_toolkit(cuda: str | None, home: str | None) -> None:
    """Compare the CUDA toolkit with what torch was built for; a build with another one fails after minutes."""
    if cuda is None:
        raise SetupError("OPS=gpu needs a CUDA build of torch.", "rm -r .venv, then make setup TORCH=cuda OPS=gpu")
    compiler = Path(home or "/usr/local/cuda") / "bin" / "nvcc"
    said = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout if home else ""
    found = re.search(r"release (\d+\.\d+)", said)
    if found is None or found[1] != cuda:
        have = f"nvcc {found[1]} is in {compiler.parent}" if found else "there is no nvcc"
        raise SetupError(
            f"OPS=gpu needs the CUDA toolkit {cuda}, which torch was built for; {have}.",
            f"install CUDA {cuda} and set CUDA_HOME, or OPS=compiled: models run on the GPU without mmcv's GPU operators",
        )


def build_mmcv(wheels: Path, version: str, include: list[str], with_gpu: bool) -> None:
    """Compile mmcv with its operators into ``wheels``."""
    what = "CPU and GPU operators, once: half an hour" if with_gpu else "CPU operators, once: 2 to 5 minutes"
    say(f"compiling mmcv {version} with its {what}, silent until done")
    settings = {
        "MMCV_WITH_OPS": "1",
        "FORCE_CUDA": str(int(with_gpu)),
        "MAX_JOBS": str(os.cpu_count() or 2),
        "CFLAGS": " ".join(LIGHT),
    }
    header = wheels / "pch.hpp"
    if with_gpu:  # the toolkit's headers of cuSPARSE and others come with torch
        folders = [str(path) for path in sorted(VENV.glob("lib/python3*/site-packages/nvidia/cu*/include"))]
        settings["CPATH"] = os.pathsep.join([*folders, os.environ.get("CPATH", "")]).rstrip(os.pathsep)
    else:
        settings["CUDA_VISIBLE_DEVICES"] = ""  # mmcv's setup.py takes the GPU branch wherever torch sees a GPU
        if sys.platform == "linux":
            header.write_text("#include <torch/types.h>\n")
            includes = [f"-I{path}" for path in [*include, sysconfig.get_paths()["include"]]]
            run(["g++", *LIGHT, *HEADER_FLAGS, *includes, "-x", "c++-header", str(header), "-o", f"{header}.gch"])
            settings["CFLAGS"] += f" -include {header}"
    build_wheel(wheels, "mmcv", version, settings)
    for leftover in wheels.glob("pch.hpp*"):
        leftover.unlink()
    if not has_operators(wheels, version):
        raise SetupError(f"the mmcv wheel in {wheels} holds no compiled operators.", "delete that folder and try again")


def build_wheel(wheels: Path, name: str, version: str, settings: dict[str, str]) -> None:
    """Build a wheel from source with the packages that are installed, not in an environment of its own."""
    path = os.pathsep.join([str(VENV / "bin"), os.environ["PATH"]])
    options = ["--no-build-isolation", "--no-deps", "--no-cache-dir", "--no-binary", name, "-w", str(wheels)]
    pip("wheel", *options, f"{name}=={version}", env=os.environ | settings | {"PATH": path, "PYTHONPATH": str(wheels)})


def has_operators(wheels: Path, version: str) -> bool:
    """Whether ``wheels`` holds an mmcv wheel with its compiled extension."""
    return any(
        any(Path(name).match("mmcv/_ext*.so") for name in zipfile.ZipFile(wheel).namelist())
        for wheel in wheels.glob(f"mmcv-{version}-*.whl")
    )


def usable() -> bool:
    """Tell whether the environment is there and has this Python's version."""
    settings = VENV / "pyvenv.cfg"
    if not PYTHON.exists() or not settings.exists():
        return False
    found = re.search(r"^version(?:_info)? = (\d+\.\d+)", settings.read_text(), re.MULTILINE)
    return found is not None and found[1] == f"{sys.version_info[0]}.{sys.version_info[1]}"


def read_stamp() -> dict[str, str]:
    """Return what the environment was made from, {} where there is none."""
    try:
        return dict(json.loads(STAMP.read_text()))
    except (OSError, ValueError):
        return {}


def fingerprint() -> str:
    """Digest of what decides the environment: Python, this recipe and the dependencies."""
    project = read_pyproject()["project"]
    parts = [
        platform.python_version(),
        str(PROJECT),
        Path(__file__).read_text(),
        CONSTRAINTS.read_text(),
        json.dumps([project["dependencies"], project["optional-dependencies"], project["scripts"], bundled()]),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def exact_pins() -> dict[str, str]:
    """Return ``{package: version}`` for the dependencies that pyproject.toml pins with ``==``."""
    dependencies = read_pyproject()["project"]["dependencies"]
    return dict(line.split("==") for line in dependencies if "==" in line)


def bundled() -> dict[str, str]:
    """Return what is installed without its own dependencies: ``{"mmpose": version}``."""
    return dict(read_pyproject()["tool"]["csip"])


def read_pyproject() -> dict:
    import tomllib  # not in Python 3.10 and before, which check_system refuses

    return tomllib.loads((PROJECT / "pyproject.toml").read_text())


def torch_build() -> str:
    """Return the version of torch that was installed and what it was built for."""
    (file,) = VENV.glob("lib/python3*/site-packages/torch/version.py")
    found = dict(re.findall(r"^(__version__|cuda)[^=\n]*= '([^']+)'", file.read_text(), re.MULTILINE))
    return f"{found['__version__']} for " + (f"CUDA {found['cuda']}" if "cuda" in found else "processors")


def has_module(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def has_pip() -> bool:
    return any(VENV.glob("lib/python3*/site-packages/pip/__main__.py"))


def loads(library: str) -> bool:
    """Tell whether a shared library is on this system."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def ask_python(code: str) -> str:
    return subprocess.run([PYTHON, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


PIP = [str(PYTHON), "-m", "pip", "--disable-pip-version-check"]


def pip(command: str, *arguments: str, env: dict[str, str] | None = None) -> None:
    run([*PIP, command, "--quiet", *arguments], env)


def run(command: Sequence[str], env: dict[str, str] | None = None) -> None:
    subprocess.run(command, check=True, env=env)


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def fail(problem: str, fix: str) -> int:
    print(f"setup: {problem}\n  fix: {fix}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
