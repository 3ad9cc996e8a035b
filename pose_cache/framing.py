"""How crops are placed in the image that a 2D model sees, and 2D sequences in the windows that a lifter sees."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from pose_cache.errors import PoseCacheError

_TOP_DOWN: Final = ["LoadImage", "GetBBoxCenterScale", "TopdownAffine", "PackPoseInputs"]


@dataclass(frozen=True)
class View:
    """A square virtual image in which a lifter sees every crop at the same size.

    Lifters trained on Human3.6M know people about 400 pixels tall in images of 1000 pixels. A crop that fills its image
    is far from that, and the size of what they return would depend on the resolution of the crop.

    Attributes
    ----------
    image : float
        Side of the virtual image, pixels.
    crop : float
        Length in it of the crop's longer side, pixels; the crop lies in the middle.
    """

    image: float
    crop: float


@dataclass(frozen=True)
class Geometry:
    """How a crop is placed in the input of the 2D model; the same numbers as MMPose's transforms."""

    input_size: tuple[int, int]
    padding: float
    udp: bool

    @staticmethod
    def of(config: Any, path: Path) -> "Geometry":
        """Read it from an MMPose config; `path` is for the error if that is no top-down model's."""
        from mmpose.registry import TRANSFORMS

        steps = list(config.test_dataloader.dataset.pipeline)
        if [step["type"] for step in steps] != _TOP_DOWN:
            raise PoseCacheError(
                f"{path}: expected the test pipeline of a top-down model, {', '.join(_TOP_DOWN)}, "
                f"but it is {', '.join(str(step['type']) for step in steps)}"
            )
        box, affine = TRANSFORMS.build(steps[1]), TRANSFORMS.build(steps[2])
        return Geometry((int(affine.input_size[0]), int(affine.input_size[1])), box.padding, affine.use_udp)

    @functools.lru_cache(maxsize=4096)  # noqa: B019  (a few numbers a size, for as long as the geometry lives)
    def place(self, width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the warp matrix (2, 3), the centre (2,) and the scale (2,) of a crop of that size."""
        from mmpose.structures.bbox import bbox_xyxy2cs, get_udp_warp_matrix, get_warp_matrix

        center, scale = bbox_xyxy2cs(np.array([0, 0, width, height], np.float32), self.padding)
        aspect = self.input_size[0] / self.input_size[1]
        wide = scale[0] > scale[1] * aspect
        scale = np.array([scale[0], scale[0] / aspect] if wide else [scale[1] * aspect, scale[1]], scale.dtype)
        warp = (get_udp_warp_matrix if self.udp else get_warp_matrix)(center, scale, 0.0, output_size=self.input_size)
        return warp, center, scale


@dataclass(frozen=True)
class Window:
    """How many frames a lifter sees at once, and whether it answers for all of them or for one."""

    length: int
    every_frame: bool
    causal: bool

    @staticmethod
    def of(config: Any) -> "Window":
        """Read it from an MMPose config."""
        dataset = config.test_dataloader.dataset
        targets = int(dataset.get("multiple_target", 0))
        if targets > 1:
            return Window(targets, True, False)
        return Window(int(dataset.get("seq_len", 1)), False, bool(dataset.get("causal", False)))

    def cut(self, points: np.ndarray) -> list[tuple[int, np.ndarray]]:
        """Cut a sequence into (first frame answered for, window)."""
        count = len(points)
        if not self.every_frame:
            before = self.length - 1 if self.causal else (self.length - 1) // 2
            rows = np.arange(count)[:, None] + np.arange(self.length) - before
            return list(enumerate(points[np.clip(rows, 0, count - 1)]))
        if count <= self.length:
            return [(0, points)]
        fresh = self.length - self.length // 4
        pieces = 1 + -(-(count - self.length) // fresh)
        starts = np.round(np.linspace(0, count - self.length, pieces)).astype(int)
        return [(int(start), points[start : start + self.length]) for start in starts]

    def ramp(self, count: int) -> np.ndarray:
        """Return a window's weight (T,) where windows overlap: rising from its ends, level in its middle."""
        steps = np.arange(1, count + 1)
        return np.minimum(np.minimum(steps, steps[::-1]), max(1, self.length // 4)).astype(np.float64)


def place_in_view(points: np.ndarray, sizes: np.ndarray, view: View | None) -> tuple[np.ndarray, tuple[float, float]]:
    """Move (T, J, 2) points from their crops into one image; returns them with the image's width and height."""
    sizes = np.asarray(sizes, np.float32)
    largest = sizes.max(axis=0)
    if view is None:
        shift = (largest - sizes) / 2
        return points + shift[:, None], (float(largest[0]), float(largest[1]))
    centred = (points - sizes[:, None] / 2) * (view.crop / largest.max())
    return (centred + view.image / 2).astype(np.float32), (view.image, view.image)
