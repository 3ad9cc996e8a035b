"""MATLAB's .mat files, old (version 5) and new (7.3, which is HDF5)."""

from __future__ import annotations

import io

import h5py
import numpy as np
from scipy.io import loadmat

from csip.data.index import Tree
from csip.errors import CsipError


def read_matrix(tree: Tree, path: str, variable: str) -> np.ndarray:
    """Return a matrix of whole numbers, as MATLAB shows it.

    Raises
    ------
    CsipError
        The file is missing or unreadable, the variable is not in it, or holds something else.
    """
    content = tree.read(path, f"a .mat file with the variable {variable}")
    where = tree.root / path
    try:
        if content[:128].startswith(b"MATLAB 7.3") or content.startswith(b"\x89HDF"):
            with h5py.File(io.BytesIO(content), "r") as file:
                # HDF5 counts dimensions the other way round.
                found = {name: np.asarray(item).T for name, item in file.items() if isinstance(item, h5py.Dataset)}
        else:
            variables = loadmat(io.BytesIO(content))  # type: ignore[arg-type]
            found = {name: value for name, value in variables.items() if not name.startswith("__")}
    except Exception as error:  # whatever can be wrong with a file
        raise CsipError(f"{where}: not a readable .mat file ({error}); download it again") from error
    if variable not in found:
        raise CsipError(f"{where}: no variable {variable}; found {', '.join(sorted(found)) or 'none'}")
    matrix = np.asarray(found[variable])
    if not np.issubdtype(matrix.dtype, np.number) or not (matrix == np.round(matrix)).all():
        raise CsipError(f"{where}: {variable} should hold whole numbers, found {matrix.dtype} {matrix.shape}")
    return matrix.astype(np.int64)
