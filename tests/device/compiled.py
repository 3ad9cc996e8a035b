"""Compile the simulated device, once for each version of torch and of its source."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

SOURCE = Path(__file__).with_name("simulated_cuda.cpp")


def compiler() -> str | None:
    """Return the C++ compiler, None where there is none."""
    return os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")


def library(folder: Path) -> Path:
    """Return the compiled device, a shared library in `folder`; it is made if it is not there.

    Raises
    ------
    subprocess.CalledProcessError
        The compiler has failed; what it said is in ``stderr``.
    """
    release = version("torch")
    key = hashlib.sha256(SOURCE.read_bytes() + release.encode()).hexdigest()[:12]
    path = folder / f"simulated_cuda-{key}.so"
    if path.exists():
        return path
    spec = find_spec("torch")
    assert spec is not None and spec.origin is not None
    torch = Path(spec.origin).parent
    include, libraries = torch / "include", torch / "lib"
    folder.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    command = [
        str(compiler()), "-shared", "-fPIC", "-std=c++20", "-O0", str(SOURCE), "-o", str(temporary),
        f"-I{include}", f"-I{include / 'torch/csrc/api/include'}", f"-L{libraries}", f"-Wl,-rpath,{libraries}",
        "-Wl,--no-as-needed", "-lc10", "-ltorch_cpu",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, text=True)
    temporary.replace(path)
    return path
