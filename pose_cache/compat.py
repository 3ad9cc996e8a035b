"""Make `import torchvision`, and with it MMPose and OpenCLIP, work where compiled parts are missing or do not match.

What mmcv-lite and mmpose lack is given by `pose_cache.standins`. And a CPU-only torch beside the torchvision of PyPI
(built for CUDA) is common: torchvision then fails to load its operators, and `import torchvision` raises "operator
torchvision::nms does not exist" because its Python part registers fake kernels for operators that nobody declared.
Declaring the two schemas is enough for everything that does not call them: models, v2 transforms, open_clip, mmpose.
`torchvision.ops.nms` and `torchvision.io` stay unavailable there; nothing in this project needs them.
"""

import importlib
import sys
from typing import Final

import torch

from pose_cache import standins

_SCHEMAS: Final = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
# torch forgets a library's schemas when its Python object dies, so the guard keeps it for the process.
_declared: list[torch.library.Library] = []


def guard_torchvision() -> bool:
    """Import torchvision, declaring its missing operator schemas first where that is what stops it; find stand-ins.

    Call it before the first import of torchvision, mmpose, mmdet or open_clip. On a healthy installation
    it is a plain `import torchvision`. It is cheap to call again.

    Returns
    -------
    bool
        True if the schemas had to be declared in this process, now or before.

    Raises
    ------
    RuntimeError
        Whatever `import torchvision` raises for another reason.
    """
    standins.install()
    if "torchvision" not in sys.modules:
        try:
            importlib.import_module("torchvision")
        except RuntimeError as error:
            if "torchvision::nms" not in str(error) or _declared:
                raise
            _forget_half_imported()
            library = torch.library.Library("torchvision", "DEF")
            for schema in _SCHEMAS:
                library.define(schema)
            _declared.append(library)
            importlib.import_module("torchvision")
    return bool(_declared)


def _forget_half_imported() -> None:
    """Drop what the failed import left in `sys.modules`, so that the second import starts afresh."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
