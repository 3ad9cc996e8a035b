"""MMPose's top-down 2D model on batches of crops."""

from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import torch

from pose_cache.errors import PoseCacheError
from pose_cache.fast_layers import fold_convolutions
from pose_cache.framing import Geometry
from pose_cache.joints import COCO17

# Crops in one forward of a processor: with larger tensors, memory is given back and asked for again at every layer.
_CPU_CROPS: Final = 16


class Detector:
    """Batches of warped crops in, keypoints out.

    Parameters
    ----------
    model : TopdownPoseEstimator of MMPose
        In evaluation mode on its device. It is changed for inference, and must not be used by others from then on.
    config : Path
        Where it comes from, for errors.
    device : torch.device
        Where the model is.
    flip_test : bool
        Average with the mirrored input.
    kind : torch.dtype
        Type that the backbone works in; the head stays in float32.
    """

    def __init__(self, model: Any, config: Path, device: torch.device, flip_test: bool, kind: torch.dtype) -> None:
        if flip_test and "flip_test" not in model.cfg.model.get("test_cfg", {}):
            raise PoseCacheError(f"{config} defines no flip test (model.test_cfg): set flip_test to False")
        self.geometry = Geometry.of(model.cfg, config)
        self._model, self._device, self._flip_test, self._kind = model, device, flip_test, kind
        model.test_cfg["flip_test"] = flip_test
        fold_convolutions(model.backbone, kind, device)
        model.to(memory_format=torch.channels_last)
        self._split_ratio = _plain_simcc(model.head)
        self._normalized = _normalized(model.data_preprocessor) if device.type == "cpu" else None

    def prepare(self, crop: np.ndarray) -> np.ndarray:
        """Warp one crop to the input of the model; see `PoseEstimator.prepare`."""
        if crop.ndim != 3 or crop.shape[2] != 3 or crop.dtype != np.uint8 or 0 in crop.shape:
            raise PoseCacheError(f"expected a crop (H, W, 3) of uint8, BGR, but got {crop.shape} of {crop.dtype}")
        warp, _, _ = self.geometry.place(crop.shape[1], crop.shape[0])
        return cv2.warpAffine(crop, warp, self.geometry.input_size, flags=cv2.INTER_LINEAR)

    @torch.inference_mode()
    def detect(self, inputs: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Estimate keypoints of warped crops; see `PoseEstimator.detect_prepared`."""
        most = _CPU_CROPS if self._device.type == "cpu" else max(1, len(inputs))
        found = [self._forward(inputs[start : start + most]) for start in range(0, len(inputs), most)]
        keypoints = np.concatenate(found) if found else np.zeros((0, COCO17.size, 3), np.float32)
        places = [self.geometry.place(int(width), int(height)) for width, height in sizes]
        centers = np.array([center for _, center, _ in places]).reshape(-1, 1, 2)
        scales = np.array([scale for _, _, scale in places]).reshape(-1, 1, 2)
        positions = keypoints[..., :2] / np.array(self.geometry.input_size) * scales + centers - 0.5 * scales
        return np.concatenate([positions, keypoints[..., 2:]], axis=2).astype(np.float32)

    def _forward(self, inputs: np.ndarray) -> np.ndarray:
        """(N, H, W, 3) uint8 to (N, 17, 3): x and y in pixels of the input, and the score."""
        images = self._images(np.ascontiguousarray(inputs))
        features: Any = self._features(images)
        if self._flip_test:
            features = [features, self._features(images.flip(-1))]
        if self._split_ratio is not None:
            return simcc_maxima(*self._simcc(features), self._split_ratio).cpu().numpy()
        return self._predicted(features, len(inputs))

    def _images(self, inputs: np.ndarray) -> torch.Tensor:
        """(N, H, W, 3) uint8 to (N, 3, H, W) as the model wants it, on the device, channels last."""
        if self._normalized is not None:
            rows = cv2.cvtColor(inputs.reshape(-1, *inputs.shape[2:]), cv2.COLOR_BGR2RGB)
            return torch.from_numpy(cv2.LUT(rows, self._normalized).reshape(inputs.shape)).permute(0, 3, 1, 2)
        batch = torch.from_numpy(inputs)
        if self._device.type == "cuda":
            batch = batch.pin_memory().to(self._device, non_blocking=True)
        # Normalised on the device: a quarter of the bytes to copy there.
        images = self._model.data_preprocessor({"inputs": batch.permute(0, 3, 1, 2), "data_samples": []})["inputs"]
        return images.contiguous(memory_format=torch.channels_last)

    def _features(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        with torch.autocast(self._device.type, self._kind, enabled=self._kind != torch.float32):
            features = self._model.extract_feat(images)
        return tuple(feature.float() for feature in features)

    def _simcc(self, features: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the head's answer along x (N, K, W) and along y (N, K, H)."""
        if not self._flip_test:
            return self._model.head(features)
        (x, y), (x_flipped, y_flipped) = (self._model.head(one) for one in features)
        mirror = torch.as_tensor(COCO17.mirror_order, device=x.device)
        return (x + x_flipped[:, mirror].flip(-1)) * 0.5, (y + y_flipped[:, mirror]) * 0.5

    def _predicted(self, features: Any, count: int) -> np.ndarray:
        """Let MMPose decode: any head, one sample after the other."""
        from mmpose.structures import PoseDataSample

        sample = PoseDataSample(metainfo={"flip_indices": COCO17.mirror_order.tolist()})
        found = self._model.head.predict(features, [sample] * count, test_cfg=self._model.test_cfg)
        instances = found[0] if isinstance(found, tuple) else found
        keypoints = np.concatenate([one.keypoints for one in instances])[..., :2]
        scores = np.concatenate([one.keypoint_scores for one in instances])
        return np.concatenate([keypoints, scores[..., None]], axis=2)


def simcc_maxima(x: torch.Tensor, y: torch.Tensor, split_ratio: float) -> torch.Tensor:
    """Find the keypoints of a batch in what a SimCC head says of each coordinate.

    Parameters
    ----------
    x, y : torch.Tensor
        (N, K, W * split_ratio) and (N, K, H * split_ratio).
    split_ratio : float
        Bins a pixel.

    Returns
    -------
    torch.Tensor
        (N, K, 3): x and y in pixels, and the score, which is the lesser of the two maxima. Where it is not positive, the
        position is -1 bin.
    """
    score = torch.minimum(x.amax(-1), y.amax(-1))
    bins = torch.stack([x.argmax(-1), y.argmax(-1)], -1).to(x.dtype)
    bins = torch.where(score[..., None] > 0, bins, -1)
    return torch.cat([bins / split_ratio, score[..., None]], -1)


def _normalized(preprocessor: Any) -> np.ndarray | None:
    """Return what a preprocessor makes of each level of R, G and B, (256, 1, 3); None where it does more than that."""
    from mmpose.models.data_preprocessors import PoseDataPreprocessor

    plain = type(preprocessor) is PoseDataPreprocessor and preprocessor.pad_size_divisor == 1
    if not plain or not preprocessor._channel_conversion:
        return None
    levels = torch.arange(256, dtype=torch.uint8)[None, None, :, None].expand(1, 3, 256, 1)
    return preprocessor({"inputs": levels, "data_samples": []})["inputs"][0].permute(1, 2, 0).contiguous().numpy()


def _plain_simcc(head: Any) -> float | None:
    """Return the bins a pixel of a head that `simcc_maxima` decodes, None for all others."""
    from mmpose.codecs import SimCCLabel
    from mmpose.models.heads import RTMCCHead

    decoder = head.decoder
    if type(head) is not RTMCCHead or type(decoder) is not SimCCLabel or decoder.use_dark or decoder.decode_visibility:
        return None
    return float(decoder.simcc_split_ratio)
