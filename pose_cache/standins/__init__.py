"""What stands in for compiled packages that are not installed, so that the MMPose stack needs no compiler.

``mmcv._ext``
    mmcv's compiled operators, absent from mmcv-lite. Of them only non-maximum suppression is used here
    (`pose_cache.standins.mmcv_ext`); all others raise an error that says how to get them.
``xtcocotools``
    A fork of pycocotools for which there are no wheels of today's Pythons. mmpose imports it for data sets and scores in
    COCO's layout; its annotations and masks are pycocotools' own, its scoring raises an error.
``mmpose``
    The wheel of this project carries it in ``pose_cache/vendored``, since mmpose lists packages that cannot be installed
    in the usual way. A mmpose that is installed comes first.

All three come last in Python's search: what is installed is taken.
"""

import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from importlib import metadata
from importlib.abc import MetaPathFinder
from pathlib import Path
from types import ModuleType
from typing import Final

__all__ = ["compiled_operators", "install", "missing", "version_of"]

_HERE: Final = Path(__file__).parent
_VENDORED: Final = _HERE.with_name("vendored")
_FILES: Final = {"mmcv._ext": _HERE / "mmcv_ext.py", "xtcocotools": _HERE / "xtcocotools" / "__init__.py"}


class _Finder(MetaPathFinder):
    """Finds the stand-ins where nothing else has found a module of that name."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        file = _FILES.get(fullname)
        if file is None:
            return None
        folders = [str(file.parent)] if file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(fullname, file, submodule_search_locations=folders)


def install() -> None:
    """Put the stand-ins at the end of Python's search; cheap to call again."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
    if _VENDORED.is_dir() and str(_VENDORED) not in sys.path:
        sys.path.append(str(_VENDORED))


def compiled_operators() -> bool:
    """Tell whether mmcv's own compiled operators are installed; mmcv is not imported for it."""
    package = importlib.util.find_spec("mmcv")
    if package is None or package.submodule_search_locations is None:
        return False
    suffixes = tuple(importlib.machinery.EXTENSION_SUFFIXES)
    return any(
        file.name.endswith(suffixes)
        for folder in package.submodule_search_locations
        for file in Path(folder).glob("_ext*")
    )


def version_of(package: str) -> str:
    """Return the version of an installed package; mmcv may be installed as mmcv-lite.

    Raises
    ------
    importlib.metadata.PackageNotFoundError
        If it is not installed.
    """
    install()
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        if package != "mmcv":
            raise
        return metadata.version("mmcv-lite")


def missing(what: str) -> NotImplementedError:
    """Return the error of something that is compiled and not here."""
    return NotImplementedError(
        f"{what} is compiled, and this installation has nothing compiled: in a clone of the project "
        "`make setup OPS=compiled`, elsewhere pip install --no-build-isolation 'csip[ops]'"
    )
