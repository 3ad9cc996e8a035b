"""A folder that is there as a whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from csip.errors import CsipError


@contextmanager
def whole_folder(root: Path, replace: bool) -> Iterator[Path]:
    """Give a folder beside `root` to write into, which takes the name `root` at the end.

    Parameters
    ----------
    root
        The folder to make; it must not exist, or be empty, unless `replace` is set.
    replace
        Remove what `root` holds once the new content is whole.

    Raises
    ------
    CsipError
        If `root` holds something already.
    """
    if root.exists() and not replace and (not root.is_dir() or any(root.iterdir())):
        raise CsipError(f"{root}: expected a new or an empty folder to render into; remove it, or name another")
    partial = root.parent / f".{root.name}.partial"
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    yield partial
    if root.exists():
        shutil.rmtree(root)
    partial.rename(root)
