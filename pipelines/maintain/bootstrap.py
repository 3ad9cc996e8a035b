"""Make ``.venv`` and install the pinned stack into it: ``python3 pipelines/maintain/bootstrap.py`` (``make setup``).

Runs before anything is installed, so it uses the standard library alone. It is needed because ``mmcv`` has no
wheel on PyPI and its compiled operators must be built against the torch that will load them: a plain
``pip install mmcv`` builds in isolation, finds no torch there, and silently leaves the operators out.

Each step is skipped when its result is there, so the command can be repeated at no cost.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import venv
import zipfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]
VENV = PROJECT / ".venv"
PYTHON = VENV / "bin" / "python"
CONSTRAINTS = Path(__file__).with_name("constraints.txt")
STAMP = VENV / "csip-setup.sha256"
PYTHON_VERSION = (3, 11)  # the one that the pinned set was tested with

# Compiling mmcv's 77 C++ files takes 722 s plainly, 293 s with light optimisation, and 103 s (2 cores) when the torch
# header that every one of them includes is precompiled. The flags of the two compilations must agree.
LIGHT = ["-O1", "-g0", "-w"]
HEADER_FLAGS = ["-std=c++17", "-fPIC", "-DTORCH_API_INCLUDE_EXTENSION_H", "-DTORCH_EXTENSION_NAME=_ext"]


def main() -> int:
    """Bring the environment up to date; return the exit code."""
    if sys.version_info[:2] != PYTHON_VERSION:
        return fail(
            f"Python 3.11 is needed, this is {sys.version.split()[0]} ({sys.executable}).",
            "make setup PYTHON=python3.11",
        )
    wanted = fingerprint()
    if STAMP.exists() and STAMP.read_text() == wanted and PYTHON.exists():
        return 0
    if shutil.which("g++") is None:
        return fail("no C++ compiler (g++) found; mmcv's operators have to be compiled.", "apt-get install g++")
    started = time.monotonic()
    try:
        install()
    except subprocess.CalledProcessError as error:
        command = " ".join(map(str, error.cmd))
        return fail(
            f"this step failed with exit code {error.returncode}:\n  {command}", "mend it, then `make setup` again"
        )
    STAMP.write_text(wanted)
    say(f"done in {time.monotonic() - started:.0f} s")
    return 0


def install() -> None:
    """Run the steps: environment, torch, mmcv's wheel, everything else."""
    pins = exact_pins()
    if not PYTHON.exists():
        say(f"making {VENV.name} with Python {sys.version.split()[0]}")
        venv.create(VENV, with_pip=True, clear=VENV.exists())
    say(f"installing torch {pins['torch']} (the largest download)")
    pip("install", f"torch=={pins['torch']}", f"numpy=={pins['numpy']}", "setuptools<81", "wheel", "ninja")

    torch = json.loads(
        ask_python(
            "import json, torch; from torch.utils.cpp_extension import include_paths, CUDA_HOME;"
            "print(json.dumps(dict(version=torch.__version__, cuda=torch.version.cuda, home=CUDA_HOME,"
            "include=include_paths())))"
        )
    )
    # With nvcc of a CUDA build the GPU operators are compiled too. Without nvcc, a CUDA torch gets the CPU operators: models
    # run on the GPU all the same, only mmcv's own operators (rotated boxes, NMS) stay on the CPU.
    with_cuda = bool(torch["cuda"] and torch["home"])
    kind = f"cu{torch['cuda']}" if with_cuda else "cpu"
    tag = f"py{sys.version_info[0]}{sys.version_info[1]}-torch{torch['version']}-{kind}"
    wheels = Path(os.environ.get("CSIP_WHEELS", PROJECT / ".wheels")) / tag
    if not has_operators(wheels, pins["mmcv"]):
        build_mmcv(wheels, pins["mmcv"], torch["include"], with_cuda)

    say("installing MMPose, OpenCLIP and the rest")
    # Isolation off: xtcocotools and chumpy (which mmpose lists) need numpy to be there while they build.
    pip("install", "--no-build-isolation", "--find-links", str(wheels), "-c", str(CONSTRAINTS), "-e", f"{PROJECT}[dev]")


def build_mmcv(wheels: Path, version: str, include: list[str], with_cuda: bool) -> None:
    """Compile mmcv with its operators into ``wheels``."""
    wheels.mkdir(parents=True, exist_ok=True)
    say(
        f"compiling mmcv {version} with its {'CPU and GPU' if with_cuda else 'CPU'} operators, "
        "once: 2 to 5 minutes, silent until done"
    )
    environment = os.environ | {
        "MMCV_WITH_OPS": "1",
        "FORCE_CUDA": str(int(with_cuda)),
        "MAX_JOBS": str(os.cpu_count() or 2),
        "PATH": f"{VENV / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "CFLAGS": " ".join(LIGHT),
    }
    if not with_cuda:
        header = wheels / "pch.hpp"
        header.write_text("#include <torch/types.h>\n")
        includes = [f"-I{path}" for path in [*include, python_include()]]
        run(["g++", *LIGHT, *HEADER_FLAGS, *includes, "-x", "c++-header", str(header), "-o", f"{header}.gch"])
        environment["CFLAGS"] += f" -include {header}"
    pip(
        "wheel",
        "--no-build-isolation",
        "--no-deps",
        "--no-cache-dir",
        "--no-binary",
        "mmcv",
        "-w",
        str(wheels),
        f"mmcv=={version}",
        env=environment,
    )
    for leftover in wheels.glob("pch.hpp*"):
        leftover.unlink()
    if not has_operators(wheels, version):
        raise SystemExit(
            f"setup: the mmcv wheel in {wheels} holds no compiled operators; delete the folder and try again"
        )


def has_operators(wheels: Path, version: str) -> bool:
    """Whether ``wheels`` holds an mmcv wheel with its compiled extension."""
    return any(
        any(Path(name).match("mmcv/_ext*.so") for name in zipfile.ZipFile(wheel).namelist())
        for wheel in wheels.glob(f"mmcv-{version}-*.whl")
    )


def exact_pins() -> dict[str, str]:
    """Return ``{package: version}`` for the dependencies that pyproject.toml pins with ``==``."""
    dependencies = read_pyproject()["project"]["dependencies"]
    return dict(line.split("==") for line in dependencies if "==" in line)


def read_pyproject() -> dict:
    import tomllib  # Python 3.11 has it; an older one is told so by main

    return tomllib.loads((PROJECT / "pyproject.toml").read_text())


def fingerprint() -> str:
    """Digest of what decides the environment: Python, this recipe and the dependencies."""
    project = read_pyproject()
    parts = [
        sys.version,
        str(PROJECT),
        Path(__file__).read_text(),
        CONSTRAINTS.read_text(),
        json.dumps(
            [
                project["project"]["dependencies"],
                project["project"]["optional-dependencies"],
                project["project"]["scripts"],
            ]
        ),
    ]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def python_include() -> str:
    return ask_python("import sysconfig; print(sysconfig.get_paths()['include'])")


def ask_python(code: str) -> str:
    return subprocess.run([PYTHON, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def pip(*arguments: str, env: dict[str, str] | None = None) -> None:
    run([str(PYTHON), "-m", "pip", "--disable-pip-version-check", *arguments[:1], "--quiet", *arguments[1:]], env)


def run(command: list[str], env: dict[str, str] | None = None) -> None:
    subprocess.run(command, check=True, env=env)


def say(text: str) -> None:
    print(f"setup: {text}", flush=True)


def fail(problem: str, fix: str) -> int:
    print(f"setup: {problem}\n  fix: {fix}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
