"""Pose estimation as one object called on crops: MMPose's top-down 2D model, then MMPose's 3D lifter.

The models, their weights and their arithmetic are MMPose's; what differs from its own inference functions is that
crops of many frames and tracklets go through in one batch, and that whole sequences are lifted at once.
"""

import hashlib
import importlib.metadata
import importlib.util
import json
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import cv2
import numpy as np
import torch

from configs import CONFIGS
from pose_cache.compat import guard_torchvision
from pose_cache.errors import PoseCacheError
from pose_cache.framing import Geometry, View, Window, place_in_view
from pose_cache.joints import COCO17, H36M17, coco_to_h36m
from pose_cache.weights import Weights, find_weights, load_weights

__all__ = [
    "EstimatorSpec",
    "PoseEstimator",
    "Precision",
    "View",
    "demo",
    "estimator_spec",
    "human3d",
    "mmpose_config",
    "resolve_device",
]

Precision = Literal["32", "bf16", "16"]

_TYPES: Final = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}
# Frames lifted in one forward: bounds memory, and more does not go faster.
_LIFT_FRAMES: Final = 4096
# MMPose takes four millimetres a pixel where it does not know the camera: 430 pixels are 1.72 m.
_AS_HUMAN36M: Final = View(image=1000, crop=430)
_UNIT: Final = "m (a crop's longer side taken as 1.72)"


@dataclass(frozen=True)
class EstimatorSpec:
    """A 2D model and a lifter.

    Attributes
    ----------
    name : str
        Goes into the cache file.
    pose2d_config, lifter_config : Path
        MMPose configs: a top-down model of COCO's 17 keypoints, and a lifter of Human3.6M's 17 joints.
    pose2d_weights, lifter_weights : Weights or None
        None leaves a model as MMPose initialises it with seed 0, for tests and timings.
    unit : str
        Unit of the lifted joints.
    view : View or None
        How a lifter sees the crops. None: the crop is the image, as in MMPose when the crop is given as the image.
    min_score : float
        A frame whose keypoints score less than this on average has no pose.
    """

    name: str
    pose2d_config: Path
    pose2d_weights: Weights | None
    lifter_config: Path
    lifter_weights: Weights | None
    unit: str = "m"
    view: View | None = None
    min_score: float = 0.0


def human3d() -> EstimatorSpec:
    """Return OpenMMLab's RTMPose-m (Body8, 256x192) and MotionBERT fine-tuned on Human3.6M.

    The configs are those in the mmpose package. Weights are downloaded on first use; their addresses are those in
    MMPose's model index, and the digits in the files' names begin their SHA-256.
    """
    base = "https://download.openmmlab.com/mmpose/v1"
    pose2d = f"{base}/projects/rtmposev1/rtmpose-m_simcc-body7_pt-body7_420e-256x192-e48f03d0_20230504.pth"
    lifter = f"{base}/body_3d_keypoint/pose_lift/h36m/motionbert_ft_h36m-d80af323_20230531.pth"
    return EstimatorSpec(
        name="human3d",
        pose2d_config=mmpose_config("body_2d_keypoint/rtmpose/body8/rtmpose-m_8xb256-420e_body8-256x192.py"),
        pose2d_weights=Weights(pose2d, "e48f03d0"),
        lifter_config=mmpose_config(
            "body_3d_keypoint/motionbert/h36m/motionbert_dstformer-ft-243frm_8xb32-120e_h36m.py"
        ),
        lifter_weights=Weights(lifter, "d80af323"),
        unit=_UNIT,
        view=_AS_HUMAN36M,
        min_score=0.1,
    )


def demo() -> EstimatorSpec:
    """Return the small models that ship with the project; they know only the project's rendered people."""
    folder = CONFIGS / "pose" / "demo"
    return EstimatorSpec(
        name="demo",
        pose2d_config=folder / "pose2d.py",
        pose2d_weights=Weights(str(folder / "pose2d.safetensors")),
        lifter_config=folder / "lifter.py",
        lifter_weights=Weights(str(folder / "lifter.safetensors")),
        unit=_UNIT,
        view=_AS_HUMAN36M,
    )


def estimator_spec(name: str) -> EstimatorSpec:
    """Return the estimator of that name: "human3d" or "demo".

    Raises
    ------
    PoseCacheError
        If there is none of that name.
    """
    specs = {"human3d": human3d, "demo": demo}
    if name not in specs:
        raise PoseCacheError(f"unknown estimator {name!r}: expected one of {', '.join(specs)}")
    return specs[name]()


def mmpose_config(name: str) -> Path:
    """Return the path of a config that ships in the mmpose package."""
    package = importlib.util.find_spec("mmpose")
    if package is None or package.origin is None:
        raise PoseCacheError("mmpose is not installed: run `make setup`")
    return Path(package.origin).parent / ".mim" / "configs" / name


class PoseEstimator:
    """Crops in, 2D keypoints and 3D joints out.

    Parameters
    ----------
    spec : EstimatorSpec
        Which models.
    device : str
        A torch device, or "auto": CUDA where there is one.
    flip_test : bool
        Average with the mirrored input: twice the work, slightly better.
    precision : {"32", "bf16", "16"}
        Of the 2D model's backbone; its head and the lifter stay in float32.

    Attributes
    ----------
    digest : str
        SHA-256 over the configs, the weights and the options: equal digests give equal skeletons.
    details : dict
        What the digest stands for, for people to read, and the programs' versions under "software".

    Raises
    ------
    PoseCacheError
        If a config or weights are missing or do not fit.
    """

    def __init__(
        self, spec: EstimatorSpec, device: str = "cpu", flip_test: bool = False, precision: Precision = "32"
    ) -> None:
        self.spec, self.flip_test, self.precision = spec, flip_test, precision
        self.device = torch.device(resolve_device(device))
        self._pose2d, pose2d_file = _build(spec.pose2d_config, spec.pose2d_weights, self.device)
        self._pose2d.to(memory_format=torch.channels_last)
        self._lifter, lifter_file = _build(spec.lifter_config, spec.lifter_weights, self.device)
        self._geometry = Geometry.of(self._pose2d.cfg, spec.pose2d_config)
        self._window = Window.of(self._lifter.cfg)
        from mmengine.dataset import Compose

        self._lift_pipeline = Compose(self._lifter.cfg.test_dataloader.dataset.pipeline)
        self._set_flip_test()
        self.digest = self._digest()
        self.details = {
            "pose2d": {"config": spec.pose2d_config.name, "weights": pose2d_file},
            "lifter": {"config": spec.lifter_config.name, "weights": lifter_file},
            "view": None if spec.view is None else asdict(spec.view),
            "min_score": spec.min_score,
            "flip_test": flip_test,
            "precision": precision,
            "digest": self.digest,
            "software": {name: importlib.metadata.version(name) for name in ("torch", "mmpose", "mmcv", "mmengine")},
        }

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (H, W, 3) of what `prepare` returns."""
        width, height = self._geometry.input_size
        return height, width, 3

    def prepare(self, crop: np.ndarray) -> np.ndarray:
        """Warp one crop to the input of the 2D model: OpenCV only, safe and parallel in threads.

        Parameters
        ----------
        crop : np.ndarray
            (H, W, 3) uint8, BGR, of any size; the person's box is the whole crop.

        Returns
        -------
        np.ndarray
            `input_shape` uint8, BGR.
        """
        if crop.ndim != 3 or crop.shape[2] != 3 or crop.dtype != np.uint8 or 0 in crop.shape:
            raise PoseCacheError(f"expected a crop (H, W, 3) of uint8, BGR, but got {crop.shape} of {crop.dtype}")
        warp, _, _ = self._geometry.place(crop.shape[1], crop.shape[0])
        return cv2.warpAffine(crop, warp, self._geometry.input_size, flags=cv2.INTER_LINEAR)

    def detect(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        """Estimate 2D keypoints of crops of any sizes, in one batch.

        Parameters
        ----------
        crops : sequence of np.ndarray
            N times (H, W, 3) uint8, BGR.

        Returns
        -------
        np.ndarray
            (N, 17, 3) float32, COCO order: x and y in crop pixels, and the score.
        """
        if not len(crops):
            return np.zeros((0, COCO17.size, 3), np.float32)
        sizes = np.array([(crop.shape[1], crop.shape[0]) for crop in crops])
        return self.detect_prepared(np.stack([self.prepare(crop) for crop in crops]), sizes)

    @torch.inference_mode()
    def detect_prepared(self, inputs: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        """Estimate 2D keypoints of a batch that `prepare` has made.

        Parameters
        ----------
        inputs : np.ndarray
            (N, *input_shape) uint8.
        sizes : np.ndarray
            (N, 2), width and height of each crop before it was prepared.

        Returns
        -------
        np.ndarray
            (N, 17, 3) float32, as `detect`.
        """
        from mmpose.structures import PoseDataSample

        batch = torch.from_numpy(inputs).permute(0, 3, 1, 2)
        images = self._pose2d.data_preprocessor({"inputs": batch, "data_samples": []})["inputs"]
        features: Any = self._features(images)
        if self.flip_test:
            features = [features, self._features(images.flip(-1))]
        sample = PoseDataSample(metainfo={"flip_indices": COCO17.mirror_order.tolist()})
        found = self._pose2d.head.predict(features, [sample] * len(inputs), test_cfg=self._pose2d.test_cfg)
        instances = found[0] if isinstance(found, tuple) else found
        keypoints = np.concatenate([one.keypoints for one in instances])[..., :2]
        scores = np.concatenate([one.keypoint_scores for one in instances])
        places = [self._geometry.place(int(width), int(height)) for width, height in sizes]
        centers = np.stack([center for _, center, _ in places])[:, None]
        scales = np.stack([scale for _, _, scale in places])[:, None]
        positions = keypoints / np.array(self._geometry.input_size) * scales + centers - 0.5 * scales
        return np.concatenate([positions, scores[..., None]], axis=2).astype(np.float32)

    def lift(self, sequences: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        """Lift whole sequences of 2D keypoints to 3D.

        A lifter of sequences is given windows of at most its own length, and every frame of a window is used; a longer
        sequence is cut into equally long windows that overlap by at least a quarter, blended linearly there. A
        lifter of one frame is given the window around each frame, the ends repeated, as MMPose does.

        Parameters
        ----------
        sequences : sequence of (keypoints, sizes)
            Keypoints (T, 17, 3) in COCO order and crop pixels; sizes (T, 2), width and height of each frame's crop. Crops
            of different sizes are laid centre on centre.

        Returns
        -------
        list of np.ndarray
            (T, 17, 3) float32 each, Human3.6M order: x right, y down, z forward, in the estimator's unit.
        """
        jobs: dict[int, list[tuple[int, int, np.ndarray, tuple[float, float]]]] = defaultdict(list)
        sums = [np.zeros((len(keypoints), H36M17.size, 3)) for keypoints, _ in sequences]
        weights = [np.zeros((len(keypoints), 1, 1)) for keypoints, _ in sequences]
        for index, (keypoints, sizes) in enumerate(sequences):
            points, image = place_in_view(coco_to_h36m(keypoints[..., :2].astype(np.float32)), sizes, self.spec.view)
            for start, window in self._window.cut(points):
                jobs[len(window)].append((index, start, window, image))
        for length, items in sorted(jobs.items()):
            size = max(1, _LIFT_FRAMES // length)
            for begin in range(0, len(items), size):
                chunk = items[begin : begin + size]
                lifted = self._lift_windows([window for _, _, window, _ in chunk], [image for *_, image in chunk])
                for (index, start, _, _), joints in zip(chunk, lifted, strict=True):
                    ramp = self._window.ramp(len(joints))[:, None, None]
                    sums[index][start : start + len(joints)] += ramp * joints
                    weights[index][start : start + len(joints)] += ramp
        return [(total / weight).astype(np.float32) for total, weight in zip(sums, weights, strict=True)]

    @torch.inference_mode()
    def _lift_windows(self, windows: list[np.ndarray], images: list[tuple[float, float]]) -> list[np.ndarray]:
        """Lift windows of one length; returns (T, 17, 3) each, T = 1 for a lifter of one frame."""
        from mmengine.dataset import pseudo_collate

        length = len(windows[0])
        targets = length if self._window.every_frame else 1
        items = [
            self._lift_pipeline(
                {
                    "keypoints": window,
                    "keypoints_visible": np.ones((length, H36M17.size), np.float32),
                    "lifting_target": np.zeros((targets, H36M17.size, 3), np.float32),
                    "lifting_target_visible": np.ones((targets, H36M17.size, 1), np.float32),
                    "factor": np.zeros(length, np.float32),
                    "camera_param": {"w": image[0], "h": image[1]},
                    **self._lifter.dataset_meta,
                }
            )
            for window, image in zip(windows, images, strict=True)
        ]
        results = self._lifter.test_step(pseudo_collate(items))
        return [
            np.asarray(one.pred_instances.keypoints, np.float64).reshape(targets, H36M17.size, 3) for one in results
        ]

    def _features(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        images = images.contiguous(memory_format=torch.channels_last)
        kind = _TYPES[self.precision]
        with torch.autocast(self.device.type, kind, enabled=kind != torch.float32):
            features = self._pose2d.extract_feat(images)
        return tuple(feature.float() for feature in features)

    def _set_flip_test(self) -> None:
        """Turn the models' own flip test on or off."""
        if self.flip_test and "flip_test" not in self._pose2d.cfg.model.get("test_cfg", {}):
            raise PoseCacheError(
                f"{self.spec.pose2d_config} defines no flip test (model.test_cfg): set flip_test to False"
            )
        self._pose2d.test_cfg["flip_test"] = self.flip_test
        # A lifter without the setting has a head that cannot do it.
        if "flip_test" in self._lifter.test_cfg:
            self._lifter.test_cfg["flip_test"] = self.flip_test

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for model in (self._pose2d, self._lifter):
            parts = {"model": model.cfg.model.to_dict(), "test": model.cfg.test_dataloader.dataset.to_dict()}
            digest.update(json.dumps(parts, sort_keys=True, default=str).encode())
            for name, value in model.state_dict().items():
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        view = None if self.spec.view is None else asdict(self.spec.view)
        options = [view, self.spec.min_score, self.flip_test, self.precision, self.spec.unit]
        digest.update(json.dumps(options).encode())
        return digest.hexdigest()


def resolve_device(device: str) -> str:
    """Return the torch device that "auto" stands for, or the device itself if it can be used here.

    Raises
    ------
    PoseCacheError
        If CUDA is asked for and there is none, or torch does not know the device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise PoseCacheError(f'unknown device {device!r}: expected "auto", "cpu", "cuda" or "cuda:0"') from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise PoseCacheError(f"device {device!r}: this machine, or this build of torch, has no CUDA; use cpu")
    return device


def _build(path: Path, weights: Weights | None, device: torch.device) -> tuple[Any, str]:
    """Build a model from its config and load its weights; returns it with the name of its weights' file."""
    if not path.is_file():
        raise PoseCacheError(f"no pose config at {path}")
    file = None if weights is None else find_weights(weights)
    guard_torchvision()
    # MMPose warns of where it found its own files and of what it imports; seeds matter only to models without weights.
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        for category in (UserWarning, FutureWarning, DeprecationWarning):
            warnings.simplefilter("ignore", category)
        from mmengine.config import Config
        from mmpose.apis import init_model

        torch.manual_seed(0)
        model = init_model(Config.fromfile(path), None, "cpu")
    if file is not None:
        load_weights(model, file)
    model.requires_grad_(False)
    # mmdet's layers use an old name of autocast in every forward; nothing a user could mend.
    warnings.filterwarnings("ignore", r".*torch\.cuda\.amp\.autocast", FutureWarning, module=r"mmdet\.")
    return model.to(device).eval(), "none (initialised with seed 0)" if file is None else file.name
