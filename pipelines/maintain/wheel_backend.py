"""Builds the wheel: setuptools' own, and what it does not have.

Added are ``configs`` as ``csip/configs``, mmpose as ``pose_cache/vendored`` (it lists packages that cannot be installed in
the usual way, see pyproject.toml), and ``csip/revision.txt``, the commit. With mmpose installed at that version and
``--no-build-isolation`` nothing is downloaded (``make wheel``).
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    get_requires_for_build_editable,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

PROJECT = Path(__file__).resolve().parents[2]
VENDORED = "pose_cache/vendored"
# Of mmpose's configs those that estimators here are made of, and what they extend.
CONFIGS = ("_base_", "body_2d_keypoint/rtmpose", "body_3d_keypoint")


def get_requires_for_build_wheel(config_settings: dict[str, Any] | None = None) -> list[str]:
    """Ask for pip where mmpose has to be downloaded."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *([] if installed_mmpose() else ["pip"])]


def build_wheel(
    wheel_directory: str, config_settings: dict[str, Any] | None = None, metadata_directory: str | None = None
) -> str:
    """Build the wheel into a folder; return its name."""
    shutil.rmtree(PROJECT / "build", ignore_errors=True)  # setuptools keeps modules there that are gone
    name = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    shutil.rmtree(PROJECT / "build", ignore_errors=True)
    add(Path(wheel_directory) / name, dict(additions()))
    return name


def build_sdist(sdist_directory: str, config_settings: dict[str, Any] | None = None) -> str:
    """Refuse: a source distribution would lack the repository's history and configs."""
    raise NotImplementedError("csip is built from a clone: pip wheel --no-deps . (or make wheel)")


def additions() -> Iterator[tuple[str, bytes]]:
    """Yield what is added: the path in the wheel, and the content."""
    for path in sorted((PROJECT / "configs").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield f"csip/{path.relative_to(PROJECT).as_posix()}", path.read_bytes()
    for name, content in mmpose_files():
        configs = name.partition("mmpose/.mim/configs/")[2]
        if not configs or configs.startswith(CONFIGS):
            yield f"{VENDORED}/{name}", content
    sys.path.insert(0, str(PROJECT))  # a build backend sees its own folder alone
    from pose_cache.shipped import revision

    if commit := revision():
        yield "csip/revision.txt", f"{commit}\n".encode()


def mmpose_version() -> str:
    """Return the version of mmpose that pyproject.toml names."""
    return tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["csip"]["mmpose"]


def installed_mmpose() -> metadata.Distribution | None:
    """Return mmpose if it is installed here at the version that is wanted."""
    try:
        found = metadata.distribution("mmpose")
    except metadata.PackageNotFoundError:
        return None
    return found if found.version == mmpose_version() and found.files else None


def mmpose_files() -> Iterator[tuple[str, bytes]]:
    """Yield the files of mmpose's wheel, from what is installed or downloaded."""
    installed = installed_mmpose()
    if installed is not None:
        for file in installed.files or []:
            path = Path(str(installed.locate_file(file)))
            if (
                file.parts[0].startswith("mmpose")
                and path.suffix != ".pyc"
                and file.name not in ("INSTALLER", "REQUESTED")
            ):
                yield file.as_posix(), path.read_bytes()
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", folder]
        subprocess.run([*command, f"mmpose=={mmpose_version()}"], check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            for name in sorted(archive.namelist()):
                yield name, archive.read(name)


def add(wheel: Path, files: dict[str, bytes]) -> None:
    """Add files to a wheel, and to its list of files."""
    whole = wheel.with_suffix(".tmp")
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new:
        (record,) = [name for name in old.namelist() if name.endswith(".dist-info/RECORD")]
        for item in old.infolist():
            if item.filename != record:
                new.writestr(item.filename, old.read(item))
        lines = []
        for name, content in files.items():
            new.writestr(name, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            lines.append(f"{name},sha256={digest},{len(content)}\n")
        new.writestr(record, "".join(lines) + old.read(record).decode())
    whole.replace(wheel)
