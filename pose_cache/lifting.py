"""MMPose's lifters on batches of windows of many sequences."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch

from pose_cache.fast_layers import pack_linears
from pose_cache.framing import View, Window, place_in_view
from pose_cache.joints import H36M17, coco_to_h36m

# Frames in one forward. On a processor, larger tensors are given back and asked for again at every layer.
_CPU_FRAMES: Final = 256
_GPU_FRAMES: Final = 8192
# What MMPose takes a pixel for where it does not know the camera, millimetres.
_MM_A_PIXEL: Final = 4


@dataclass(frozen=True)
class _Job:
    """One window of one sequence."""

    sequence: int
    start: int
    points: np.ndarray
    image: tuple[float, float]


class Lifter:
    """Sequences of 2D keypoints in, 3D joints out.

    Parameters
    ----------
    model : PoseLifter of MMPose
        In evaluation mode on its device. It is changed for inference, and must not be used by others from then on.
    device : torch.device
        Where the model is.
    flip_test : bool
        Average with the mirrored input, if the model can do it.
    kind : torch.dtype
        Type that MotionBERT works in; other lifters are small and stay in float32.
    view : View or None
        How the model sees the crops.
    """

    def __init__(self, model: Any, device: torch.device, flip_test: bool, kind: torch.dtype, view: View | None) -> None:
        self._view, self._window = view, Window.of(model.cfg)
        # A lifter without the setting has a head that cannot do it.
        if "flip_test" in model.test_cfg:
            model.test_cfg["flip_test"] = flip_test
        direct = _is_motionbert(model)
        self._frames = _CPU_FRAMES if device.type == "cpu" else _GPU_FRAMES
        self._model = _MotionBert(model, device, kind) if direct else _AnyLifter(model, self._window)

    @torch.inference_mode()
    def lift(self, sequences: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        """Lift whole sequences; see `PoseEstimator.lift`."""
        # Attention over time would see padding, so only windows of one length go together.
        jobs: dict[int, list[_Job]] = defaultdict(list)
        sums = [np.zeros((len(keypoints), H36M17.size, 3)) for keypoints, _ in sequences]
        weights = [np.zeros((len(keypoints), 1, 1)) for keypoints, _ in sequences]
        for index, (keypoints, sizes) in enumerate(sequences):
            points, image = place_in_view(coco_to_h36m(keypoints[..., :2].astype(np.float32)), sizes, self._view)
            for start, window in self._window.cut(points):
                jobs[len(window)].append(_Job(index, start, window, image))
        for length, of_length in sorted(jobs.items()):
            most = max(1, self._frames // length)
            for begin in range(0, len(of_length), most):
                batch = of_length[begin : begin + most]
                lifted = self._model.lift(np.stack([one.points for one in batch]), np.array([j.image for j in batch]))
                for job, joints in zip(batch, lifted, strict=True):
                    span = slice(job.start, job.start + len(joints))
                    ramp = self._window.ramp(len(joints))[:, None, None]
                    sums[job.sequence][span] += ramp * joints
                    weights[job.sequence][span] += ramp
        return [(total / weight).astype(np.float32) for total, weight in zip(sums, weights, strict=True)]


class _MotionBert:
    """MotionBERT on whole batches: its own modules, without MMPose's sample by sample handling around them."""

    def __init__(self, model: Any, device: torch.device, kind: torch.dtype) -> None:
        self._device, self._kind = device, kind
        self._flip_test = model.test_cfg.get("flip_test", False)
        self._shift = model.test_cfg.get("shift_coords", True)
        self._decoder = model.head.decoder
        pack_linears(model, kind, device)
        self._model = model.to(kind)

    def lift(self, windows: np.ndarray, images: np.ndarray) -> np.ndarray:
        """(B, T, 17, 2) pixels in images (B, 2) of some width and height to (B, T, 17, 3) metres."""
        width, height = images[:, None, None, :1], images[:, None, None, 1:]
        inputs = np.ones((*windows.shape[:3], 3), np.float32)  # the third is the visibility
        inputs[..., :2] = windows / width * 2 - np.concatenate([np.ones_like(width), height / width], axis=-1)
        batch = torch.from_numpy(inputs).to(self._device)
        raw = self._forward(batch)
        if self._flip_test:
            raw = (raw + self._mirrored(self._forward(self._mirrored(batch)))) * 0.5
        joints = raw.double().cpu().numpy()
        root = self._decoder.root_index
        if self._decoder.rootrel:
            joints[:, :, 0] = 0
        return (joints - joints[:, :, root : root + 1]) * width / 2 * (_MM_A_PIXEL / 1000)

    def _forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self._model(inputs.to(self._kind), None, mode="tensor").float()

    def _mirrored(self, points: torch.Tensor) -> torch.Tensor:
        """Mirror coordinates as MMPose does: about 0, or about one half without `shift_coords`."""
        mirrored = points[:, :, torch.as_tensor(H36M17.mirror_order, device=points.device)]
        mirrored[..., 0] = (0 if self._shift else 1) - mirrored[..., 0]
        return mirrored


class _AnyLifter:
    """Any lifter, through MMPose's own pipeline: one window after the other before and after the model."""

    def __init__(self, model: Any, window: Window) -> None:
        from mmengine.dataset import Compose

        self._model, self._every_frame = model, window.every_frame
        self._pipeline = Compose(model.cfg.test_dataloader.dataset.pipeline)

    def lift(self, windows: np.ndarray, images: np.ndarray) -> np.ndarray:
        """(B, T, 17, 2) pixels in images (B, 2) of some width and height to (B, T or 1, 17, 3)."""
        from mmengine.dataset import pseudo_collate

        length = windows.shape[1]
        targets = length if self._every_frame else 1
        items = [
            self._pipeline(
                {
                    "keypoints": window,
                    "keypoints_visible": np.ones((length, H36M17.size), np.float32),
                    "lifting_target": np.zeros((targets, H36M17.size, 3), np.float32),
                    "lifting_target_visible": np.ones((targets, H36M17.size, 1), np.float32),
                    "factor": np.zeros(length, np.float32),
                    "camera_param": {"w": width, "h": height},
                    **self._model.dataset_meta,
                }
            )
            for window, (width, height) in zip(windows, images.tolist(), strict=True)
        ]
        results = self._model.test_step(pseudo_collate(items))
        joints = [np.asarray(one.pred_instances.keypoints, np.float64) for one in results]
        return np.stack([one.reshape(targets, H36M17.size, 3) for one in joints])


def _is_motionbert(model: Any) -> bool:
    """Tell whether a model is what `_MotionBert` knows: every part of it, and no part more."""
    from mmpose.codecs import MotionBERTLabel
    from mmpose.models.backbones import DSTFormer
    from mmpose.models.heads import MotionRegressionHead

    head = model.head
    known = type(model.backbone) is DSTFormer and type(head) is MotionRegressionHead
    if not known or type(head.decoder) is not MotionBERTLabel or model.with_neck or model.with_traj:
        return False
    return head.decoder.concat_vis and head.decoder.mode == "test"
