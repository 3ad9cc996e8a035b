"""A stand-in for the estimator that starts in a moment: processes that are to be killed need not load real models.

`install` puts it in the place of `pose_cache.estimator` (and torch) before anything imports them; `environment` makes
that so in a new interpreter and in the worker processes that it starts.
"""

import os
import sys
import time
import types
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

PAUSE = "STUB_PAUSE"
LOG = "STUB_LOG"
# "COUNT FILE": after so many batches each process waits as long as the file is there; FILE.PID tells that it does.
HOLD = "STUB_HOLD"
LENGTHS = [(7 * number) % 11 + 1 for number in range(60)]


@dataclass(frozen=True)
class EstimatorSpec:
    name: str = "stub"
    unit: str = "m"
    min_score: float = 0.0
    digest: str = "0" * 64


@dataclass
class PoseEstimator:
    spec: EstimatorSpec
    device: str = "cpu"
    flip_test: bool = False
    precision: str = "32"
    details: dict[str, object] = field(init=False)

    def __post_init__(self) -> None:
        self.digest = self.spec.digest
        self.details = {"digest": self.digest, "software": {}}

    @property
    def input_shape(self) -> tuple[int, int, int]:
        return 16, 8, 3

    def prepare(self, crop: np.ndarray) -> np.ndarray:
        import cv2

        return cv2.resize(crop, (8, 16))

    def detect_prepared(self, inputs: np.ndarray, sizes: np.ndarray) -> np.ndarray:
        time.sleep(float(os.environ.get(PAUSE, 0)))
        _wait()
        if LOG in os.environ:
            with Path(os.environ[LOG]).open("a") as log:
                log.write(f"{os.getpid()} {len(inputs)}\n")
        means = inputs.reshape(len(inputs), -1).mean(axis=1)
        return np.tile(means[:, None, None], (1, 17, 3)).astype(np.float32) + np.float32(1)

    def lift(self, sequences: list[tuple[np.ndarray, np.ndarray]]) -> list[np.ndarray]:
        return [np.cumsum(keypoints, axis=0, dtype=np.float32) for keypoints, _ in sequences]


_batches = 0


def _wait() -> None:
    global _batches
    _batches += 1
    count, _, file = os.environ.get(HOLD, "").partition(" ")
    if not file or _batches <= int(count):
        return
    Path(f"{file}.{os.getpid()}").touch()
    while Path(file).exists():
        time.sleep(0.005)


def install() -> None:
    sys.modules["pose_cache.estimator"] = module = types.ModuleType("pose_cache.estimator")
    stands_in = {"EstimatorSpec": EstimatorSpec, "PoseEstimator": PoseEstimator, "Precision": str}
    module.__dict__.update(stands_in, resolve_device=lambda device: device)
    sys.modules["torch"] = torch = types.ModuleType("torch")
    torch.__dict__.update(get_num_threads=lambda: 1, set_num_threads=lambda count: None)


def environment(folder: Path, **settings: object) -> dict[str, str]:
    """Return the environment of an interpreter with the stand-in; its site hook is written into the folder."""
    (folder / "sitecustomize.py").write_text("import stub_estimator\nstub_estimator.install()\n")
    top = Path(__file__).parents[2]
    paths = os.pathsep.join(map(str, (folder, Path(__file__).parent, top)))
    return {**os.environ, "PYTHONPATH": paths, **{key: str(value) for key, value in settings.items()}}


def sequences() -> list:
    from pose_cache.plan import FrameSequence

    return [
        FrameSequence(f"t{number:03d}", tuple(f"t{number:03d}/{index}.png" for index in range(length)))
        for number, length in enumerate(LENGTHS)
    ]


def write_frames(root: Path) -> None:
    import cv2

    rng = np.random.default_rng(0)
    for sequence in sequences():
        (root / sequence.name).mkdir(parents=True)
        for frame in sequence.frames:
            cv2.imwrite(str(root / frame), rng.integers(0, 256, (12, 6, 3), dtype=np.uint8))
