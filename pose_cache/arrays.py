"""NumPy's files from anywhere: no pickles, no larger than they can be, and one error for whatever is wrong with them."""

import zipfile
from pathlib import Path
from typing import Final

import numpy as np

from pose_cache.errors import PoseCacheError

# What an archive may unpack to: KGBD, the largest that is read whole, has 0.1 GB.
_MOST: Final = 8 * 2**30


def read_npy(path: Path) -> np.ndarray:
    """Read an array from a .npy file.

    Raises
    ------
    PoseCacheError
        The file is missing, damaged, or shorter than its header says, or holds Python objects.
    """
    if not path.is_file():
        raise PoseCacheError(f"{path}: missing")
    try:
        # A map is refused where the file is shorter than the shape, before any memory is taken.
        return np.array(np.load(path, mmap_mode="r", allow_pickle=False))
    except Exception as error:  # NumPy raises whatever it stumbles over
        raise PoseCacheError(f"{path}: not a readable .npy array of numbers ({error})") from error


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of a .npz file.

    Raises
    ------
    PoseCacheError
        The file is missing or damaged, unpacks to gigabytes, or holds Python objects.
    """
    if not path.is_file():
        raise PoseCacheError(f"{path}: missing")
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _MOST:
            raise PoseCacheError(
                f"{path}: its arrays unpack to {size / 2**30:,.0f} GiB; expected at most {_MOST / 2**30:,.0f}"
            )
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except PoseCacheError:
        raise
    except Exception as error:  # NumPy and zipfile raise whatever they stumble over
        raise PoseCacheError(f"{path}: not a readable .npz file of arrays ({error})") from error
