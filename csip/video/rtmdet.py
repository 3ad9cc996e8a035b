"""RTMDet, OpenMMLab's real-time detector, in batches; by default the model for people that MMPose uses."""

from __future__ import annotations

import urllib.request
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from csip.video.tracking import Detections, Thresholds
from pose_cache.compat import guard_torchvision
from pose_cache.errors import PoseCacheError
from pose_cache.estimator import mmpose_config, resolve_device
from pose_cache.weights import Weights, cache_folder, find_weights, load_weights

# RTMDet-m trained on the people of COCO and Objects365; the digits in its name begin its SHA-256.
WEIGHTS: Final = Weights(
    "https://download.openmmlab.com/mmpose/v1/projects/rtmposev1/rtmdet_m_8xb32-100e_coco-obj365-person-235e8209.pth",
    "235e8209",
)
_CONFIG: Final = "rtmdet_m_640-8xb32_coco-person.py"
_PERSON: Final = 0  # the first class of COCO, and the only one of models for people
_LOWEST: Final = 0.05


def weights_at_hand(timeout: float = 5.0) -> bool:
    """Whether the weights were downloaded before, or their address answers."""
    if (cache_folder() / Path(WEIGHTS.source).name).is_file():
        return True
    try:
        with urllib.request.urlopen(urllib.request.Request(WEIGHTS.source, method="HEAD"), timeout=timeout):
            return True
    except (OSError, ValueError):
        return False


class RTMDetDetector:
    """Finds people.

    Parameters
    ----------
    config : Path, optional
        A config of mmdet whose class 0 is a person; OpenMMLab's RTMDet-m for people where it is not given.
    checkpoint : Path, optional
        Weights for it; those that OpenMMLab published, downloaded on first use, where it is not given.
    device : str
        A torch device, or "auto".
    batch : int
        Pictures in one forward.

    Raises
    ------
    PoseCacheError
        The config or the weights are missing, damaged or do not fit, cannot be downloaded, or the device is none.
    """

    thresholds = Thresholds()

    def __init__(
        self, config: Path | None = None, checkpoint: Path | None = None, device: str = "auto", batch: int = 8
    ) -> None:
        if config is not None and checkpoint is None:
            raise PoseCacheError(f"{config} is a config of your own: give its weights, too", parameter="checkpoint")
        path = config or mmpose_config("").parent / "demo" / "mmdetection_cfg" / _CONFIG
        if not path.is_file():
            raise PoseCacheError(f"no detector config at {path}")
        weights = find_weights(WEIGHTS if checkpoint is None else Weights(str(checkpoint)))
        self.batch = batch
        self._model, self._prepare = _build(path, torch.device(resolve_device(device)))
        load_weights(self._model, weights)

    @torch.inference_mode()
    def detect(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Find the people in each picture, (H, W, 3) uint8, BGR."""
        found = []
        for start in range(0, len(images), self.batch):
            inputs = [self._prepare({"img": image, "img_id": 0}) for image in images[start : start + self.batch]]
            batch = {key: [one[key] for one in inputs] for key in ("inputs", "data_samples")}
            for result in self._model.test_step(batch):
                instances = result.pred_instances.cpu()
                people = (instances.labels == _PERSON) & (instances.scores >= _LOWEST)
                boxes = instances.bboxes[people].double().numpy()
                found.append(Detections(boxes, instances.scores[people].double().numpy()))
        return found


def _build(path: Path, device: torch.device) -> tuple[Any, Any]:
    """Return a detector without its weights, and what prepares pictures for it: mmdet's own test pipeline."""
    guard_torchvision()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from mmcv.transforms import Compose
        from mmdet.apis.inference import get_test_pipeline_cfg
        from mmdet.registry import MODELS
        from mmdet.utils import register_all_modules
        from mmengine.config import Config

        register_all_modules(init_default_scope=True)
        config = Config.fromfile(path)
        if "backbone" in config.model:
            config.model.backbone.pop("init_cfg", None)  # weights for training from; they would be downloaded
        model = MODELS.build(config.model)
    pipeline = get_test_pipeline_cfg(config)
    pipeline[0].type = "mmdet.LoadImageFromNDArray"
    model.requires_grad_(False)
    warnings.filterwarnings("ignore", r".*torch\.cuda\.amp\.autocast", FutureWarning, module=r"mmdet\.")
    return model.to(device).eval(), Compose(pipeline)
