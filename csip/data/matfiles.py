"""MATLAB's .mat files, old (version 5) and new (7.3, which is HDF5)."""

from __future__ import annotations

import io
import math
from pathlib import Path

import h5py
import numpy as np
from scipy.io import loadmat, whosmat

from csip.data.index import Tree
from csip.errors import CsipError, UserError
from pose_cache.hdf5_checks import check_dataset

# Numbers of a matrix: MARS's largest has 49,000. More is a damaged header, or a file that unpacks to gigabytes.
_MOST = 50_000_000


def read_matrix(tree: Tree, path: str, variable: str) -> np.ndarray:
    """Return a matrix of whole numbers, as MATLAB shows it.

    Raises
    ------
    CsipError
        The file is missing or unreadable, the variable is not in it, is far too large, or holds something else.
    """
    content = tree.read(path, f"a .mat file with the variable {variable}")
    where = tree.root / path
    is_hdf5 = content[:128].startswith(b"MATLAB 7.3") or content.startswith(b"\x89HDF")
    try:
        matrix = (_read_hdf5 if is_hdf5 else _read_old)(content, where, variable)
    except UserError:
        raise
    except Exception as error:  # whatever can be wrong with a file
        raise CsipError(f"{where}: not a readable .mat file ({error}); download it again") from error
    if not np.issubdtype(matrix.dtype, np.number) or np.iscomplexobj(matrix) or not (matrix == np.round(matrix)).all():
        raise CsipError(f"{where}: {variable} should hold whole numbers, found {matrix.dtype} {matrix.shape}")
    if matrix.size and not (abs(float(matrix.min())) < 2**53 and abs(float(matrix.max())) < 2**53):
        raise CsipError(f"{where}: {variable} holds numbers from {matrix.min()} to {matrix.max()}; download it again")
    return matrix.astype(np.int64)


def _read_hdf5(content: bytes, where: Path, variable: str) -> np.ndarray:
    with h5py.File(io.BytesIO(content), "r") as file:
        if file.get(variable, getlink=True) is None:
            raise _missing(where, variable, sorted(file))
        dataset = check_dataset(file, variable, where)
        if dataset.size > _MOST:
            raise CsipError(
                f"{where}: {variable} has the shape {dataset.shape}, too large to be an index; download it again"
            )
        # HDF5 counts dimensions the other way round.
        return np.asarray(dataset[()]).T


def _read_old(content: bytes, where: Path, variable: str) -> np.ndarray:
    sizes = {name: shape for name, shape, _ in whosmat(io.BytesIO(content))}  # type: ignore[arg-type]
    if variable not in sizes:
        raise _missing(where, variable, sorted(sizes))
    if math.prod(sizes[variable]) > _MOST:
        raise CsipError(
            f"{where}: {variable} has the shape {sizes[variable]}, too large to be an index; download it again"
        )
    return np.asarray(loadmat(io.BytesIO(content), variable_names=[variable])[variable])  # type: ignore[arg-type]


def _missing(where: Path, variable: str, found: list[str]) -> CsipError:
    return CsipError(f"{where}: no variable {variable}; found {', '.join(found) or 'none'}")
