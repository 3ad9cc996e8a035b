"""The test branch as an ONNX file: what is in such a file, and how it takes the model's place.

Input ``images``        (batch, frames, 3, height, width) uint8, RGB: crops resized to the file's height and width
Input ``camera``        (batch,) int64, the row of each clip's camera in the camera embedding, -1 for an unknown camera
Output ``descriptors``  (batch, D) float32, of unit length with ``part_norm``

Batch and frames are free. The file's metadata has one entry, ``csip``: the JSON of `OnnxDescription`. Pixels are normalised
inside, so a program that runs the file needs nothing else of this project.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor

from csip.config import ClipSettings, Settings, VisionSettings
from csip.errors import CsipError

KEY = "csip"
IMAGES, CAMERA, DESCRIPTORS = "images", "camera", "descriptors"
_SILENT = 4  # onnxruntime's level for what ends the process; it prints lesser errors as well as raising them


class OnnxDescription(BaseModel):
    """What a file says of itself.

    Attributes
    ----------
    format
        Of the metadata and of the inputs.
    version
        Of csip, which wrote the file.
    model
        Digest of the model's own file.
    dataset
        Name of the data set that it was trained on.
    vision, pretrained
        The image encoder and the weights that it started from, as ``vision.model`` and ``vision.pretrained``.
    cameras
        The row of the camera embedding of each training camera, by the data set's number of the camera; empty where the
        model has no camera embedding, and `camera` is then ignored.
    frames
        Frames of a clip in training; other numbers work too.
    height, width
        Of a crop, pixels.
    mean, std
        Of R, G, B in [0, 1]; subtracted and divided by inside.
    part_norm
        Whether each part of a descriptor was normalised, and then the whole; otherwise it is as long as it is.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: Literal[1] = 1
    version: str
    model: str
    dataset: str
    vision: str
    pretrained: str | None
    cameras: dict[int, int]
    frames: int
    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    part_norm: bool

    def apply_to(self, settings: Settings) -> Settings:
        """Return the settings with the file's clips, image encoder and norm of parts; the rest decides how it is used.

        Raises
        ------
        CsipError
            Parts are not to be normalised, and in the file they are.
        """
        if self.part_norm and not settings.evaluation.part_norm:
            raise CsipError(
                "evaluation.part_norm is false, and the ONNX file normalises the parts of a descriptor; export the model "
                "without part_norm",
                parameter="no-part-norm",
            )
        clips = ClipSettings(frames=self.frames, height=self.height, width=self.width, mean=self.mean, std=self.std)
        vision = VisionSettings(model=self.vision, pretrained=self.pretrained)
        evaluation = settings.evaluation.model_copy(update={"part_norm": self.part_norm})
        return settings.model_copy(update={"clips": clips, "vision": vision, "evaluation": evaluation})


class OnnxModel:
    """An exported model, run by onnxruntime on the CPU; takes a model's place wherever tracklets are embedded.

    Parameters
    ----------
    path
        What `csip.export.onnx_export.export_onnx` wrote.
    threads
        Threads of one operation; torch's number by default, which follows ``OMP_NUM_THREADS``.

    Raises
    ------
    CsipError
        The file is missing or damaged, or is no such model.
    """

    def __init__(self, path: Path, threads: int | None = None) -> None:
        self.path = path
        self._session = _open(path, threads or torch.get_num_threads())
        self.description = _describe(path, self._session)

    @property
    def cameras(self) -> int:
        """Rows of the camera embedding; 0 without one."""
        return len(self.description.cameras)

    def embed_pixels(self, images: Tensor, camera: Tensor | None = None) -> Tensor:
        """Return the descriptors of clips.

        Parameters
        ----------
        images : Tensor
            (B, T, 3, height, width) uint8, RGB.
        camera : Tensor, optional
            (B,) int64 rows of the camera embedding, -1 for none; none by default.

        Returns
        -------
        Tensor
            (B, D) float32, on the images' device.

        Raises
        ------
        CsipError
            The images have another type or size than the file's, or there is no such row.
        """
        size = (3, self.description.height, self.description.width)
        if images.ndim != 5 or images.shape[2:] != size or images.dtype != torch.uint8 or 0 in images.shape:
            raise CsipError(
                f"{self.path}: takes (batch, frames, {', '.join(map(str, size))}) uint8 pixels, got "
                f"{tuple(images.shape)} {str(images.dtype).removeprefix('torch.')}"
            )
        rows = torch.full((len(images),), -1) if camera is None else camera
        if self.cameras and int(rows.max()) >= self.cameras:
            raise CsipError(f"{self.path}: row {int(rows.max())} of a camera embedding of {self.cameras} rows")
        inputs = {IMAGES: images.cpu().numpy(), CAMERA: rows.long().cpu().numpy()}
        try:
            result = self._session.run([DESCRIPTORS], inputs)[0]
        except Exception as error:  # onnxruntime's errors have no base of their own
            raise CsipError(f"{self.path}: cannot be run on {tuple(images.shape)} pixels: {error}") from error
        return torch.from_numpy(result).to(images.device)


def _open(path: Path, threads: int) -> Any:
    import onnxruntime

    if not path.is_file():
        raise CsipError(f"{path}: no such file", parameter="onnx")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = _SILENT
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no base of their own
        raise CsipError(f"{path}: damaged, or not an ONNX file ({error})", parameter="onnx") from error


def _describe(path: Path, session: Any) -> OnnxDescription:
    try:
        text = session.get_modelmeta().custom_metadata_map.get(KEY)
    except UnicodeDecodeError as error:
        raise CsipError(f"{path}: damaged: what it says of itself is no text ({error})", parameter="onnx") from error
    if text is None:
        raise CsipError(f"{path}: an ONNX file that csip did not write", parameter="onnx")
    try:
        description = OnnxDescription.model_validate_json(text)
    except ValidationError as error:
        problem = error.errors()[0]
        what = ".".join(map(str, problem["loc"])) or "the whole"
        raise CsipError(
            f"{path}: its description is not one that this version of csip knows ({what}: {problem['msg']})",
            parameter="onnx",
        ) from error
    names = [value.name for value in (*session.get_inputs(), *session.get_outputs())]
    if names != [IMAGES, CAMERA, DESCRIPTORS]:
        raise CsipError(
            f"{path}: its inputs and outputs are {', '.join(names)}, expected {IMAGES}, {CAMERA}, {DESCRIPTORS}",
            parameter="onnx",
        )
    return description
