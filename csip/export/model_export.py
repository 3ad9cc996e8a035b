"""Export: a trained model for other programs, as ONNX, and as weights without what only training needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from csip.config import RuntimeSettings, Settings
from csip.errors import CsipError
from csip.export.onnx_export import Comparison, export_onnx
from csip.export.onnx_model import OnnxDescription
from csip.files import digest, write_json
from csip.models.checkpoints import MODEL, load_model, model_digest, save_model
from csip.models.factory import restore
from csip.retrieval.embedding import PixelModel

ONNX, DESCRIPTION = "model.onnx", "model.json"


@dataclass(frozen=True)
class ExportedFile:
    """A file, its size in bytes, and how many numbers are in it, where that is known."""

    path: Path
    bytes: int
    numbers: int | None


@dataclass(frozen=True)
class Export:
    """What an export has written.

    Attributes
    ----------
    description
        What the ONNX file says of itself.
    comparisons
        Of the ONNX file with the model.
    files
        The model's own file, the slim one, the ONNX file.
    """

    description: OnnxDescription
    comparisons: tuple[Comparison, ...]
    files: tuple[ExportedFile, ...]


def export_model(file: Path, out: Path, part_norm: bool | None = None) -> Export:
    """Write the test branch of a model as ``OUT/model.onnx`` and ``OUT/model.safetensors``, described in ``OUT/model.json``.

    Parameters
    ----------
    file
        The model's file, which training wrote, or a slim one.
    out
        The folder to make; files that an earlier export left are replaced.
    part_norm
        Whether the parts of a descriptor are normalised; as the model was trained to be tested by default.

    Raises
    ------
    CsipError
        The model is missing or damaged, cannot be exported, or the exported one computes something else; or a model that is
        no export is in the folder.
    """
    slim, onnx = out / MODEL, out / ONNX
    tensors, description = load_model(file, "stage2")
    _check_free(slim)
    settings = _as_exported(description, part_norm)
    description["settings"] = settings.model_dump(mode="json")
    model = PixelModel(restore(tensors, description), settings.clips)
    described = describe(description, settings, model.cameras, model_digest(file, description))
    comparisons = export_onnx(model, onnx, described)
    tested, _ = model.model.split_state()
    save_model(slim, tested, {**description, "slim": True, "exported_from": described.model})
    write_json(out / DESCRIPTION, _report(described, comparisons, [slim, onnx]))
    numbers = {file: _count(tensors), slim: _count(tested), onnx: None}
    files = tuple(ExportedFile(path, path.stat().st_size, count) for path, count in numbers.items())
    return Export(described, tuple(comparisons), files)


def describe(description: Mapping[str, Any], settings: Settings, cameras: int, model: str) -> OnnxDescription:
    """Say what an ONNX file needs to say, from what the model's own file says.

    Parameters
    ----------
    cameras
        Rows of the camera embedding; 0 without one.
    model
        Digest of the model's file.
    """
    clips = settings.clips
    return OnnxDescription(
        version=version("csip"),
        model=model,
        dataset=description["dataset"],
        vision=settings.vision.model,
        pretrained=settings.vision.pretrained,
        cameras={int(camera): row for camera, row in description["cameras"].items()} if cameras else {},
        frames=clips.frames,
        height=clips.height,
        width=clips.width,
        mean=clips.mean,
        std=clips.std,
        part_norm=settings.evaluation.part_norm,
    )


def _as_exported(description: Mapping[str, Any], part_norm: bool | None) -> Settings:
    """Return the model's settings without what is only about the machine that it was trained on."""
    settings = Settings.model_validate(description["settings"])
    dataset = settings.dataset.model_copy(update={"root": None})
    evaluation = settings.evaluation
    if part_norm is not None:
        evaluation = evaluation.model_copy(update={"part_norm": part_norm})
    return settings.model_copy(update={"dataset": dataset, "evaluation": evaluation, "runtime": RuntimeSettings()})


def _check_free(path: Path) -> None:
    """Refuse to write slim weights over a model that can still be trained from or was never exported."""
    if path.exists() and not load_model(path, "stage2")[1].get("slim"):
        raise CsipError(
            f"{path}: a whole model, which the export would replace with a slim one; name another folder",
            parameter="out",
        )


def _report(described: OnnxDescription, comparisons: Sequence[Comparison], files: Sequence[Path]) -> dict[str, Any]:
    height, width = described.height, described.width
    return {
        **described.model_dump(mode="json"),
        "onnx": {
            "inputs": {
                "images": {"type": "uint8", "shape": ["batch", "frames", 3, height, width]},
                "camera": {"type": "int64", "shape": ["batch"]},
            },
            "outputs": {"descriptors": {"type": "float32", "shape": ["batch", "D"]}},
        },
        "compared": [asdict(comparison) for comparison in comparisons],
        "files": {file.name: {"bytes": file.stat().st_size, "digest": digest(file)} for file in files},
    }


def _count(tensors: Mapping[str, Any]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())
