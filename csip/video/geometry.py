"""What a player shows of a coded picture: pixel aspect, then turned and mirrored as the file's display matrix says.

    coded picture      what the decoder gives; a stream's own cropping (H.264, HEVC, AV1) is applied already
    container crop     clean aperture (MP4) or PixelCrop (Matroska) is cut off
    pixel aspect       the width is multiplied by the sample aspect ratio, the height is kept: 720 x 576 at 16:15 is 768 x 576
    display matrix     quarter turns, mirrored or not; other angles are rounded to the nearest quarter turn, as most players do

The result is the display picture. Crops are cut from it, and boxes are in its pixels, unless told otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

import av
import cv2
import numpy as np
from av.sidedata.sidedata import Type

_WIDEST: Final = 1 << 15
_ODDEST: Final = 16  # a pixel so many times as wide as high, or as high as wide, is a mistake in the file
UPRIGHT: Final = (1, 0, 0, 1)


@dataclass(frozen=True)
class Geometry:
    """How a coded picture becomes the picture that a player shows.

    Attributes
    ----------
    coded
        Width and height of the coded picture.
    aspect
        Width of a pixel over its height.
    matrix
        Display matrix (a, b, c, d) of -1, 0, 1: the point (x, y) goes to (a x + c y, b x + d y), y pointing down.
    crop
        Pixels of the coded picture that the container cuts off: left, top, right, bottom.
    """

    coded: tuple[int, int]
    aspect: Fraction = Fraction(1)
    matrix: tuple[int, int, int, int] = UPRIGHT
    crop: tuple[int, int, int, int] = (0, 0, 0, 0)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the display picture."""
        width, height = self._stretched
        return (height, width) if self._turned else (width, height)

    @property
    def square(self) -> tuple[int, int]:
        """Width and height of the display picture if pixels were square, as readers that ignore their aspect see it."""
        width, height = self._cut
        return (height, width) if self._turned else (width, height)

    @property
    def plain(self) -> bool:
        """Whether the coded picture is the display picture."""
        return self.size == self.coded and self.matrix == UPRIGHT and not any(self.crop)

    @property
    def _turned(self) -> bool:
        return self.matrix[0] == 0

    @property
    def _cut(self) -> tuple[int, int]:
        left, top, right, bottom = self.crop
        return self.coded[0] - left - right, self.coded[1] - top - bottom

    @property
    def _stretched(self) -> tuple[int, int]:
        width, height = self._cut
        return max(round(width * self.aspect), 1), height

    def show(self, image: np.ndarray) -> np.ndarray:
        """Return the display picture of a coded picture, (H, W, 3)."""
        if self.plain:
            return image
        left, top, right, bottom = self.crop
        image = image[top : image.shape[0] - bottom, left : image.shape[1] - right]
        if image.shape[1::-1] != self._stretched:
            wider = self._stretched[0] > image.shape[1]
            image = cv2.resize(image, self._stretched, interpolation=cv2.INTER_CUBIC if wider else cv2.INTER_AREA)
        a, b, c, d = self.matrix
        if self._turned:
            image, a, d = image.transpose(1, 0, 2), c, b
        return np.ascontiguousarray(image[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Return where boxes (N, 4) of the coded picture, left, top, right, bottom, are in the display picture."""
        left, top, _, _ = self.crop
        corners = (boxes.reshape(-1, 2, 2) - [left, top]) * [self._stretched[0] / self._cut[0], 1]
        a, b, c, d = self.matrix
        turned = corners @ np.array([[a, b], [c, d]], float) + [
            self.size[0] if a + c < 0 else 0,
            self.size[1] if b + d < 0 else 0,
        ]
        return np.concatenate([turned.min(axis=1), turned.max(axis=1)], axis=1)


def fit(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale a picture (H, W, 3) into a frame of width and height, in its middle and with black beside it where shapes differ.

    So a player shows what changes its size on the way.
    """
    zoom = min(size[0] / image.shape[1], size[1] / image.shape[0])
    width, height = (max(round(side * zoom), 1) for side in image.shape[1::-1])
    scaled = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC if zoom > 1 else cv2.INTER_AREA)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return cv2.copyMakeBorder(scaled, top, size[1] - height - top, left, size[0] - width - left, cv2.BORDER_CONSTANT)


def geometry_of(
    frame: av.VideoFrame, aspect: Fraction | None, crop: tuple[int, int, int, int] = (0, 0, 0, 0)
) -> Geometry:
    """Read the geometry of a decoded frame.

    Parameters
    ----------
    frame : av.VideoFrame
        Its side data have the display matrix.
    aspect : Fraction, optional
        Sample aspect ratio of the stream; None, 0 and what cannot be are taken for 1.
    crop : tuple of int
        What the container cuts off; ignored where nothing would be left.
    """
    if aspect is None or not Fraction(1, _ODDEST) <= aspect <= _ODDEST or frame.width * aspect > _WIDEST:
        aspect = Fraction(1)
    if abs(round(frame.width * aspect) - frame.width) <= 1:  # rounding of a display width that a file states in pixels
        aspect = Fraction(1)
    if crop[0] + crop[2] >= frame.width or crop[1] + crop[3] >= frame.height:
        crop = (0, 0, 0, 0)
    return Geometry((frame.width, frame.height), aspect, _matrix(frame), crop)


def _matrix(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Return the nearest of the eight turns and mirrorings; upright where there is no matrix, or an impossible one."""
    side_data: Any = frame.side_data
    found = side_data.get(Type.DISPLAYMATRIX)
    if found is None:
        return UPRIGHT
    a, b, _, c, d = np.frombuffer(bytes(found), np.int32)[:5].astype(float)  # native byte order
    upright = abs(a) + abs(d) >= abs(b) + abs(c)
    one, other = (int(np.sign(a)), int(np.sign(d))) if upright else (int(np.sign(b)), int(np.sign(c)))
    if not one or not other:
        return UPRIGHT
    return (one, 0, 0, other) if upright else (0, one, other, 0)
