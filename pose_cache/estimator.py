"""Pose estimation as one object called on crops: MMPose's top-down 2D model, then MMPose's 3D lifter.

The models, their weights and their arithmetic are MMPose's; what differs from its own inference functions is that
crops of many frames and tracklets go through in one batch, and that whole sequences are lifted at once.
"""

import hashlib
import importlib.util
import json
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import torch

from pose_cache import images, standins
from pose_cache.compat import guard_torchvision
from pose_cache.crops import Frame, read_crop
from pose_cache.detection import Detector
from pose_cache.errors import PoseCacheError
from pose_cache.framing import View
from pose_cache.joints import COCO17
from pose_cache.lifting import Lifter
from pose_cache.processor import warn_without_bf16
from pose_cache.sequences import lift_sequences
from pose_cache.shipped import CONFIGS, repair
from pose_cache.weights import Weights, find_weights, load_weights

__all__ = [
    "EstimatorSpec",
    "PoseEstimator",
    "Poses",
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
# MMPose takes four millimetres a pixel where it does not know the camera: 430 pixels are 1.72 m.
_AS_HUMAN36M: Final = View(image=1000, crop=430)
_BATCH: Final = 64  # crops estimated at once
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
    standins.install()
    package = importlib.util.find_spec("mmpose")
    if package is None or package.origin is None:
        raise PoseCacheError(f"mmpose is not installed: {repair()}")
    return Path(package.origin).parent / ".mim" / "configs" / name


@dataclass(frozen=True)
class Poses:
    """Poses of T frames of one person.

    Attributes
    ----------
    joints : np.ndarray
        (T, 17, 3) float32, Human3.6M order, camera axes, in the estimator's unit, not root-centred; zeros where not valid.
    keypoints2d : np.ndarray
        (T, 17, 3) float32, COCO order: x and y in crop pixels, and the score.
    valid : np.ndarray
        (T,) bool, which frames have a pose.
    """

    joints: np.ndarray
    keypoints2d: np.ndarray
    valid: np.ndarray


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
        Of the 2D model's backbone and of MotionBERT; the rest stays in float32. "16" is for GPUs only.

    Attributes
    ----------
    digest : str
        SHA-256 over the configs, the weights and the options: equal digests give equal skeletons.
    details : dict
        What the digest stands for, for people to read, and the programs' versions under "software".

    Raises
    ------
    PoseCacheError
        If a config or weights are missing or do not fit, or the device cannot compute in that precision.
    """

    def __init__(
        self, spec: EstimatorSpec, device: str = "cpu", flip_test: bool = False, precision: Precision = "32"
    ) -> None:
        self.spec, self.flip_test, self.precision = spec, flip_test, precision
        self.device = torch.device(resolve_device(device))
        if precision == "16" and self.device.type == "cpu":
            raise PoseCacheError('precision "16" needs a GPU; on a processor use "32" or "bf16"')
        if precision == "bf16":
            warn_without_bf16(self.device, 'precision "bf16"')
        pose2d, pose2d_file = _build(spec.pose2d_config, spec.pose2d_weights, self.device)
        lifter, lifter_file = _build(spec.lifter_config, spec.lifter_weights, self.device)
        self.digest = self._digest(pose2d, lifter)
        kind = _TYPES[precision]
        self._detector = Detector(pose2d, spec.pose2d_config, self.device, flip_test, kind)
        self._lifter = Lifter(lifter, self.device, flip_test, kind, spec.view)
        self.details = {
            "pose2d": {"config": spec.pose2d_config.name, "weights": pose2d_file},
            "lifter": {"config": spec.lifter_config.name, "weights": lifter_file},
            "view": None if spec.view is None else asdict(spec.view),
            "min_score": spec.min_score,
            "flip_test": flip_test,
            "precision": precision,
            "decoding": images.DECODING,
            "digest": self.digest,
            "software": {name: standins.version_of(name) for name in ("torch", "mmpose", "mmcv", "mmengine")},
        }

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Shape (H, W, 3) of what `prepare` returns."""
        width, height = self._detector.geometry.input_size
        return height, width, 3

    @classmethod
    def load(
        cls, name: str = "human3d", device: str = "auto", flip_test: bool = False, precision: Precision = "32"
    ) -> "PoseEstimator":
        """Load an estimator by its name: "human3d", of real people, or "demo", of the project's rendered ones.

        Raises
        ------
        PoseCacheError
            As the class, or there is none of that name.
        """
        return cls(estimator_spec(name), device, flip_test, precision)

    def estimate(self, frames: Iterable[Frame]) -> Poses:
        """Estimate the poses of one person in consecutive frames.

        Parameters
        ----------
        frames : iterable of path, np.ndarray or PIL.Image.Image
            T crops of one person in order of time; arrays are (H, W, 3) uint8, RGB.

        Raises
        ------
        PoseCacheError
            There are none, or one is no picture.
        """
        crops = [read_crop(frame, number) for number, frame in enumerate(frames)]
        if not crops:
            raise PoseCacheError("there are no frames: expected at least one crop of a person")
        sizes = np.array([(crop.shape[1], crop.shape[0]) for crop in crops])
        parts = [self.detect(crops[start : start + _BATCH]) for start in range(0, len(crops), _BATCH)]
        keypoints = np.concatenate(parts)
        joints, valid = lift_sequences(self, keypoints, sizes, [slice(0, len(crops))])
        return Poses(joints, keypoints, valid)

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
        return self._detector.prepare(crop)

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
        return self._detector.detect(inputs, sizes)

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
        return self._lifter.lift(sequences)

    def _digest(self, *models: Any) -> str:
        digest = hashlib.sha256()
        for model in models:
            parts = {"model": model.cfg.model.to_dict(), "test": model.cfg.test_dataloader.dataset.to_dict()}
            digest.update(json.dumps(parts, sort_keys=True, default=str).encode())
            for name, value in model.state_dict().items():
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
        view = None if self.spec.view is None else asdict(self.spec.view)
        options = [view, self.spec.min_score, self.flip_test, self.precision, self.spec.unit]
        digest.update(json.dumps(options).encode() + images.decoding_mark())
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
