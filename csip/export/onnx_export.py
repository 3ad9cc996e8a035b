"""Export of a trained model to an ONNX file, compared with the model before it gets its final name."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from csip.errors import CsipError
from csip.export.onnx_model import CAMERA, DESCRIPTORS, IMAGES, KEY, OnnxDescription, OnnxModel
from csip.files import atomic
from csip.retrieval.embedding import PixelModel

OPSET = 20  # the first with GELU; onnxruntime has it since 1.17
DIFFERENCE, COSINE = 1e-3, 0.9999
_LARGEST = 2**31 - 2**24  # a protocol buffer ends at 2 GiB, and the graph takes some of it

_DOCUMENTS = {
    IMAGES: "uint8 RGB crops of one person, resized to height x width; normalised inside",
    CAMERA: "row of the clip's camera in the camera embedding, see `cameras` of the metadata; -1 for an unknown camera",
    DESCRIPTORS: "descriptors to compare by cosine; those of one tracklet's clips are averaged, then normalised",
}


@dataclass(frozen=True)
class Comparison:
    """How far the file's descriptors are from the model's.

    Attributes
    ----------
    batch, frames
        Clips, and frames of each.
    difference
        Largest of one number, where the model's descriptors have norm 1.
    cosine
        Smallest between the two descriptors of a clip.
    """

    batch: int
    frames: int
    difference: float
    cosine: float

    @property
    def equal(self) -> bool:
        """Whether they are as near as they must be; not if a number is none."""
        return self.difference <= DIFFERENCE and self.cosine >= COSINE


def export_onnx(model: PixelModel, path: Path, description: OnnxDescription) -> list[Comparison]:
    """Write the model as an ONNX file once it has proved to be equal; a reader sees the old file or the new one.

    Parameters
    ----------
    model
        On the CPU; it is put into evaluation mode.
    path
        The file to write.
    description
        What the file is to say of itself.

    Returns
    -------
    list of Comparison
        With the model, by onnxruntime, at several sizes.

    Raises
    ------
    CsipError
        The model is too large for one file, the exporter cannot translate it, or the file's descriptors differ.
    """
    tested, _ = model.model.split_state()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tested.values())
    if size > _LARGEST:
        raise CsipError(
            f"{path}: an ONNX file holds 2 GiB at most, and the model has {size / 2**30:.1f} GiB of weights"
        )
    with atomic(path) as temporary:
        _write(model.eval(), temporary, description)
        comparisons = compare(model, OnnxModel(temporary), sizes(description.frames))
        wrong = [c for c in comparisons if not c.equal]
        if wrong:
            worst = max(wrong, key=lambda c: c.difference)
            raise CsipError(
                f"{path}: not written, for the exported model's descriptors differ from torch's: by {worst.difference:.1e} at "
                f"{worst.batch} clips of {worst.frames} frames (cosine {worst.cosine:.5f}), where {DIFFERENCE:.0e} and "
                f"{COSINE} are allowed; please report it with the versions of torch, onnx and onnxruntime",
                parameter="versions",
            )
    return comparisons


def sizes(frames: int) -> list[tuple[int, int]]:
    """Return the (batch, frames) at which a file is compared: one of each, training's clip, longer, more than a few."""
    return [(1, 1), (1, frames), (3, 1), (2, frames + 1), (5, 2)]


def compare(model: PixelModel, exported: OnnxModel, at: Sequence[tuple[int, int]]) -> list[Comparison]:
    """Compare a file with a model in evaluation mode at several (batch, frames), on cameras known and unknown."""
    return [_compare(model, exported, *size) for size in at]


def _compare(model: PixelModel, exported: OnnxModel, batch: int, frames: int) -> Comparison:
    height, width = model.model.vision.size
    images = sample_pixels(batch, frames, height, width)
    camera = torch.arange(batch) % (model.cameras + 1) - 1
    with torch.inference_mode():
        ours = model.embed_pixels(images, camera)
        theirs = exported.embed_pixels(images, camera)
    if ours.shape != theirs.shape:
        return Comparison(batch, frames, float("inf"), -1.0)
    length = ours.norm(dim=1, keepdim=True)
    difference = ((ours - theirs) / length).abs().max().item()
    return Comparison(batch, frames, difference, F.cosine_similarity(ours, theirs).min().item())


def sample_pixels(batch: int, frames: int, height: int, width: int, seed: int = 0) -> Tensor:
    """Return (batch, frames, 3, height, width) uint8 of random patches in colours of each frame's own.

    Independent noise would not do: its descriptors are all alike, and clips or frames that change places would not be seen.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch * frames, 3, 4, 2, generator=generator) * torch.rand(
        batch * frames, 3, 1, 1, generator=generator
    )
    return (F.interpolate(coarse, (height, width)) * 255).to(torch.uint8).unflatten(0, (batch, frames))


def _write(model: PixelModel, path: Path, description: OnnxDescription) -> None:
    height, width = model.model.vision.size
    # No size of the example is 1, nor the same as another: the exporter would take it for a constant, or both for one.
    example = (sample_pixels(2, 3, height, width), torch.tensor([-1, 0]))
    batch, frames = torch.export.Dim("batch", min=1), torch.export.Dim("frames", min=1)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # deprecations within the exporter, and names of sizes that it merges
            program = torch.onnx.export(
                model,
                example,
                dynamo=True,
                opset_version=OPSET,
                input_names=[IMAGES, CAMERA],
                output_names=[DESCRIPTORS],
                dynamic_shapes={IMAGES: {0: batch, 1: frames}, CAMERA: {0: batch}},
                external_data=False,
                verbose=False,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        raise CsipError(f"{path}: torch cannot export this model as ONNX: {error}") from error
    assert program is not None
    graph = program.model.graph
    for node in graph.all_nodes():
        node.metadata_props.clear()  # the exporter's notes: half as large as a small model, with paths of this machine
    for value in (*graph.inputs, *graph.outputs):
        value.doc_string = _DOCUMENTS[str(value.name)]
    program.model.metadata_props[KEY] = description.model_dump_json()
    program.model.producer_name, program.model.producer_version = "csip", description.version
    program.save(str(path), external_data=False)
