"""Dropout with cheap random numbers: one byte per element."""

import torch
from torch import Tensor, nn

_LEVELS = 256


class Dropout(nn.Dropout):
    """Zero each element with probability `p` in training, and scale the others so that the mean stays.

    PyTorch draws 64 random bits for each element on a processor, in one thread: that took a third of a step of stage 1. Here a
    byte has to do, so that there `p` is rounded to a multiple of 1/256. On other devices it is PyTorch's own.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """(...) to the same shape."""
        if not self.training or self.p == 0 or inputs.device.type != "cpu":
            return super().forward(inputs)
        threshold = min(max(round(self.p * _LEVELS), 1), _LEVELS - 1)
        words = torch.empty(-(-inputs.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        levels = words.view(torch.uint8)[: inputs.numel()].view(inputs.shape)
        # 1 from the threshold on, 0 below: numbers instead of comparisons, which torch does not vectorise together.
        kept = levels.to(inputs.dtype).sub_(threshold - 1).clamp_(0, 1)
        return inputs * kept.mul_(_LEVELS / (_LEVELS - threshold))
