"""Finding, checking and loading the weights of pose models."""

import hashlib
import importlib
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import numpy as np
import torch

from pose_cache.errors import PoseCacheError


@dataclass(frozen=True)
class Weights:
    """Where the weights of a model are.

    Attributes
    ----------
    source : str
        A file, or an address to download one from on first use.
    sha256 : str
        The file's SHA-256 in hex, or the beginning of it; empty to take any.
    """

    source: str
    sha256: str = ""


_CORES: Final = ("numpy.core", "numpy._core")


def cache_folder() -> Path:
    """Return where downloads are kept: the environment's CSIP_CACHE, or ~/.cache/csip."""
    return Path(os.environ.get("CSIP_CACHE") or Path.home() / ".cache" / "csip")


def find_weights(weights: Weights) -> Path:
    """Return the file of these weights, downloaded if need be, once its checksum is seen to be right.

    Raises
    ------
    PoseCacheError
        If the file is missing, cannot be downloaded, or is not the one that is meant.
    """
    address = urlsplit(weights.source)
    if address.scheme not in ("http", "https"):
        path = Path(weights.source)
        if not path.is_file():
            raise PoseCacheError(f"no weights at {path}")
    else:
        path = cache_folder() / Path(address.path).name
        if not path.is_file():
            _download(weights, path)
    found = _sha256(path)
    if not found.startswith(weights.sha256):
        raise PoseCacheError(
            f"{path} is not the file that is meant: its SHA-256 begins with {found[: max(8, len(weights.sha256))]}, "
            f"expected {weights.sha256}. Delete it"
            + (f" and run again, or put the file from {weights.source} there" if address.scheme else "")
        )
    return path


def load_weights(model: torch.nn.Module, path: Path) -> None:
    """Load a .safetensors or a PyTorch file into a model, without running any code that the file may hold.

    Raises
    ------
    PoseCacheError
        If the file is damaged, holds more than tensors, numbers and arrays, or does not fit the model.
    """
    state = {key.removeprefix("module."): value for key, value in _read_state(path).items()}
    try:
        missing, _ = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise PoseCacheError(f"{path} does not fit the model of the config: {error}") from error
    if missing:
        raise PoseCacheError(
            f"{path} does not fit the model of the config: it lacks {len(missing)} tensors, the first is {missing[0]}"
        )


def _read_state(path: Path) -> Mapping[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            raise PoseCacheError(f"{path} is damaged: {error}") from error
    try:
        with torch.serialization.safe_globals(_array_constructors()):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise PoseCacheError(
            f"{path} holds more than weights and is not loaded, because that could run its code: "
            f"{str(error).splitlines()[0]} Training checkpoints of MMEngine are like that. If you trust the file, load it "
            f'yourself with torch.load(..., weights_only=False) and save its "state_dict" as .safetensors'
        ) from error
    except Exception as error:  # torch and pickle raise whatever they stumble over
        raise PoseCacheError(f"{path} is damaged: {error}") from error
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise PoseCacheError(f"{path} holds no state_dict of tensors")
    return state


def _array_constructors() -> list[Any]:
    """Return what NumPy's arrays are unpickled with; published files keep such arrays beside the weights."""
    # NumPy 1 and NumPy 2 name the module of these two functions differently, and so do the files they wrote.
    multiarray = importlib.import_module("numpy._core.multiarray")
    functions = [getattr(multiarray, name) for name in ("_reconstruct", "scalar")]
    renamed = [(function, f"{module}.multiarray.{function.__name__}") for function in functions for module in _CORES]
    types = [type(np.dtype(code)) for code in ("f4", "f8", "i4", "i8", "u1", "?", "S1", "U1")]
    return [*renamed, np.ndarray, np.dtype, *types]


def _download(weights: Weights, path: Path) -> None:
    """Download into place atomically; the last step is a rename of a file whose checksum is right."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(weights.source, str(path), hash_prefix=weights.sha256 or None, progress=False)
    except (OSError, RuntimeError) as error:
        raise PoseCacheError(
            f"cannot download {weights.source} ({error}). On a machine without this address, fetch the file elsewhere "
            f"and put it at {path} (free there: {shutil.disk_usage(path.parent).free // 2**20} MiB), "
            "or set CSIP_CACHE to a folder that has it"
        ) from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
