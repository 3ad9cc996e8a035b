"""Stands in for ``mmcv._ext``: non-maximum suppression without mmcv's compiled operators.

torchvision's operator does it where it loads; numpy does elsewhere (a CPU build of torch beside the torchvision of PyPI
has no operators). Both keep the boxes that mmcv's operator keeps, in the same order.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from pose_cache.standins import missing

_BLOCK = 256  # boxes compared with each other at once


def nms(boxes: torch.Tensor, scores: torch.Tensor, iou_threshold: float, offset: int) -> torch.Tensor:
    """Keep the best of boxes that overlap.

    Parameters
    ----------
    boxes : torch.Tensor
        (N, 4) float: left, top, right, bottom.
    scores : torch.Tensor
        (N,).
    iou_threshold : float
        A box that overlaps a better one by more than this, intersection over union, is dropped.
    offset : {0, 1}
        1 where right and bottom are the last pixels inside.

    Returns
    -------
    torch.Tensor
        (K,) int64, indices of what is kept, best first.
    """
    if has_torchvision_nms():
        from torchvision.ops import nms as operator

        return operator(boxes + boxes.new_tensor([0, 0, offset, offset]), scores, iou_threshold)
    kept = nms_numpy(boxes.detach().float().cpu().numpy(), scores.detach().cpu().numpy(), iou_threshold, offset)
    return torch.from_numpy(kept).to(boxes.device)


def has_torchvision_nms() -> bool:
    """Tell whether torchvision's operators are loaded: with the guard's bare schemas there is no kernel."""
    return torch._C._dispatch_has_kernel_for_dispatch_key("torchvision::nms", "CPU")


def nms_numpy(boxes: np.ndarray, scores: np.ndarray, iou_threshold: float, offset: int = 0) -> np.ndarray:
    """Keep the best of boxes that overlap, as `nms`, in numpy: blocks of boxes in the order of their scores."""
    order = np.argsort(-scores, kind="stable")
    left, top, right, bottom = np.ascontiguousarray(boxes[order].T, dtype=np.float32)
    area = (right - left + offset) * (bottom - top + offset)
    limit = np.float32(iou_threshold)

    def overlaps(some: np.ndarray, others: np.ndarray | slice) -> np.ndarray:
        """(len(some), len(others)) bool: whose intersection over union is above the limit."""
        width = np.minimum(right[some, None], right[others]) - np.maximum(left[some, None], left[others]) + offset
        height = np.minimum(bottom[some, None], bottom[others]) - np.maximum(top[some, None], top[others]) + offset
        both = np.maximum(width, 0) * np.maximum(height, 0)
        with np.errstate(divide="ignore", invalid="ignore"):  # boxes without area: mmcv's quotient is no number, too
            return both / (area[some, None] + area[others] - both) > limit

    alive = np.ones(len(order), bool)
    for start in range(0, len(order), _BLOCK):
        block = start + np.flatnonzero(alive[start : start + _BLOCK])
        if not len(block):
            continue
        inside = np.triu(overlaps(block, block), 1)
        keep = np.ones(len(block), bool)
        for row in np.flatnonzero(inside.any(1)):
            if keep[row]:
                keep[inside[row]] = False
        alive[block] = keep
        later = start + _BLOCK + np.flatnonzero(alive[start + _BLOCK :])
        if len(later):
            alive[later] = ~overlaps(block[keep], later).any(0)
    return order[alive]


def __getattr__(name: str) -> Callable[..., Any]:
    if name.startswith("__"):
        raise AttributeError(name)

    def refuse(*_: Any, **__: Any) -> Any:
        raise missing(f"mmcv's operator {name}")

    return refuse
