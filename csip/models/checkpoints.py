"""Models on disk: safetensors with a JSON description, written atomically."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from csip.config import settings_of
from csip.errors import CsipError
from csip.files import atomic, digest, parse_json

MODEL = "model.safetensors"


def save_model(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write tensors and what they are; a reader sees the old file or the new one, never a part."""
    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    with atomic(path) as temporary:
        save_file(whole, temporary, metadata={"csip": json.dumps(description, sort_keys=True)})
        # safetensors lets nobody else read; who may see the folder may.
        temporary.chmod(path.parent.stat().st_mode & 0o666)


def load_model(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_model` wrote.

    Parameters
    ----------
    kind
        The ``kind`` that the description must have: ``stage1`` or ``stage2``.

    Raises
    ------
    CsipError
        The file is missing, damaged, not ours, of another kind, or has settings that this version does not know.
    """
    if not path.exists():
        raise CsipError(f"{path}: missing", parameter=kind)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except (SafetensorError, OSError) as error:
        raise CsipError(f"{path}: damaged or no safetensors file ({error})", parameter=kind) from error
    if "csip" not in metadata:
        raise CsipError(f"{path}: a safetensors file that csip did not write", parameter=kind)
    try:
        description = parse_json(metadata["csip"])
    except ValueError as error:
        raise CsipError(f"{path}: damaged: its description is no JSON ({error})", parameter=kind) from error
    if not isinstance(description, dict):
        raise CsipError(f"{path}: damaged: its description is no JSON object", parameter=kind)
    if description.get("kind") != kind:
        raise CsipError(f"{path}: a {description.get('kind')} model, expected one of {kind}", parameter=kind)
    if "settings" in description:
        try:
            settings_of(description["settings"], path)
        except CsipError as error:
            raise CsipError(
                f"{error}\n  another version of csip wrote it: use that version, or train again", parameter=kind
            ) from error
    return tensors, description


def model_digest(path: Path, description: Mapping[str, Any]) -> str:
    """Return the digest of a model's file; of a slim one, that of the file it was made of, since both embed alike."""
    return str(description.get("exported_from") or digest(path))


def digest_tensors(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names and values, first 16 hexadecimal digits."""
    result = hashlib.sha256()
    for name in sorted(tensors):
        result.update(name.encode())
        result.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return result.hexdigest()[:16]
