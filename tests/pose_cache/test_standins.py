"""What stands in for compiled packages: equal to them where it does something, and clear where it does not."""

import importlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pose_cache import standins
from pose_cache.compat import guard_torchvision
from pose_cache.standins import mmcv_ext

guard_torchvision()


def boxes(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Boxes that overlap in places, and scores that all differ."""
    rng = np.random.default_rng(seed + count)
    corner, size = rng.uniform(0, 300, (count, 2)), rng.uniform(5, 200, (count, 2))
    scores = rng.permutation(np.linspace(0.01, 0.99, count)).astype(np.float32)
    return np.concatenate([corner, corner + size], axis=1).astype(np.float32), scores


def plain_nms(boxes: np.ndarray, scores: np.ndarray, limit: float, offset: int) -> list[int]:
    """One pair of boxes after the other."""
    kept: list[int] = []
    for one in np.argsort(-scores, kind="stable"):
        for other in kept:
            low, high = np.maximum(boxes[one, :2], boxes[other, :2]), np.minimum(boxes[one, 2:], boxes[other, 2:])
            both = np.prod(np.maximum(high - low + np.float32(offset), 0))
            areas = [np.prod(b[2:] - b[:2] + np.float32(offset)) for b in (boxes[one], boxes[other])]
            if both / (sum(areas) - both) > np.float32(limit):
                break
        else:
            kept.append(int(one))
    return kept


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("limit", [0.3, 0.7])
@pytest.mark.parametrize("count", [0, 1, 2, 255, 257, 400])
def test_suppression_in_numpy_keeps_what_one_pair_after_the_other_keeps(count: int, limit: float, offset: int) -> None:
    some, scores = boxes(count)
    kept = mmcv_ext.nms_numpy(some, scores, limit, offset)
    assert kept.tolist() == plain_nms(some, scores, limit, offset)
    assert count < 100 or len(kept) < count


@pytest.mark.skipif(not mmcv_ext.has_torchvision_nms(), reason="torchvision's operators do not load")
@pytest.mark.parametrize("count", [1, 10, 300, 3000, 30_000])
def test_suppression_in_numpy_keeps_what_torchvisions_operator_keeps(count: int) -> None:
    some, scores = boxes(count)
    from torchvision.ops import nms

    expected = nms(torch.from_numpy(some), torch.from_numpy(scores), 0.5)
    assert np.array_equal(mmcv_ext.nms_numpy(some, scores, 0.5), expected.numpy())


@pytest.mark.skipif(
    not standins.compiled_operators(), reason="needs mmcv's compiled operators (make setup OPS=compiled)"
)
@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("count", [1, 10, 300, 3000, 30_000])
def test_suppression_keeps_what_mmcvs_compiled_operator_keeps(count: int, offset: int) -> None:
    some, scores = boxes(count)
    from mmcv import _ext

    expected = _ext.nms(torch.from_numpy(some), torch.from_numpy(scores), iou_threshold=0.5, offset=offset)
    assert np.array_equal(mmcv_ext.nms_numpy(some, scores, 0.5, offset), expected.numpy())
    ours = mmcv_ext.nms(torch.from_numpy(some), torch.from_numpy(scores), iou_threshold=0.5, offset=offset)
    assert torch.equal(ours, expected)


def test_boxes_without_area_and_equal_scores_are_as_in_torchvision() -> None:
    some = np.array([[0, 0, 0, 0], [0, 0, 0, 0], [5, 5, 9, 9], [5, 5, 9, 9], [1, 1, 1, 4]], np.float32)
    scores = np.array([0.5, 0.5, 0.5, 0.5, 0.9], np.float32)
    kept = mmcv_ext.nms_numpy(some, scores, 0.5)
    assert kept.tolist() == [4, 0, 1, 2]  # 0 / 0 is above no limit
    if mmcv_ext.has_torchvision_nms():
        assert mmcv_ext.nms(torch.from_numpy(some), torch.from_numpy(scores), 0.5, 0).tolist() == [4, 0, 1, 2]


@pytest.mark.parametrize("by_numpy", [False, True])
def test_mmcvs_function_works_with_the_stand_in(monkeypatch: pytest.MonkeyPatch, by_numpy: bool) -> None:
    """Through mmcv.ops, whatever operators are installed: alone, by class, and with its score and count limits."""
    monkeypatch.setattr(importlib.import_module("mmcv.ops.nms"), "ext_module", mmcv_ext)
    if by_numpy:
        monkeypatch.setattr(mmcv_ext, "has_torchvision_nms", lambda: False)
    from mmcv.ops import batched_nms, nms

    some = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]])
    scores = torch.tensor([0.7, 0.8, 0.9])
    kept, rows = nms(some, scores, 0.5)
    assert rows.tolist() == [2, 1] and torch.equal(kept[:, 4], scores[rows])
    assert nms(some, scores, 0.5, score_threshold=0.85)[1].tolist() == [2]
    assert nms(some, scores, 0.5, max_num=1)[1].tolist() == [2]
    assert batched_nms(some, scores, torch.tensor([0, 1, 0]), {"type": "nms", "iou_threshold": 0.5})[1].tolist() == [
        2,
        1,
        0,
    ]


def test_another_operator_says_how_to_get_it() -> None:
    """mmcv asks at import whether each operator is there; the error comes when one is used."""
    assert hasattr(mmcv_ext, "roi_align_forward") and not hasattr(mmcv_ext, "__path__")
    with pytest.raises(
        NotImplementedError, match=r"roi_align_forward is compiled.*make setup OPS=compiled.*csip\[ops\]"
    ):
        mmcv_ext.roi_align_forward(1, two=2)


def test_annotations_and_masks_are_pycocotools_and_scores_say_what_is_missing() -> None:
    code = """
from pose_cache.compat import guard_torchvision
guard_torchvision()
import xtcocotools
if "standins" not in xtcocotools.__file__:
    print("installed")
else:
    from xtcocotools import coco, cocoeval, mask
    import numpy as np
    assert coco.COCO.__module__ == "pycocotools.coco"
    square = np.zeros((8, 8), np.uint8, order="F"); square[2:5, 2:6] = 1
    assert mask.area(mask.encode(square)) == 12
    try:
        cocoeval.COCOeval(None, None, "keypoints", sigmas=[1])
    except NotImplementedError as error:
        print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "installed" in result.stdout or "make setup OPS=compiled" in result.stdout


def test_an_installed_package_comes_before_its_stand_in(tmp_path: Path) -> None:
    for name in ("xtcocotools/__init__.py", "mmcv/__init__.py", "mmcv/_ext.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("here = True\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom pose_cache import standins\nstandins.install()\n"
        "import xtcocotools, mmcv._ext\nprint(xtcocotools.here, mmcv._ext.here)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True True\n"


def test_compiled_operators_are_known_by_their_file(tmp_path: Path) -> None:
    (tmp_path / "mmcv").mkdir()
    (tmp_path / "mmcv/__init__.py").touch()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\nfrom pose_cache.standins import compiled_operators\n"
        "print(compiled_operators(), 'mmcv' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "False False\n"
    (tmp_path / "mmcv/_ext.abi3.so").touch()
    assert subprocess.run(command, capture_output=True, text=True).stdout == "True False\n"


def test_mmcv_has_its_version_by_either_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert standins.version_of("mmcv") == "2.1.0"

    def version(name: str) -> str:
        if name == "mmcv":
            raise standins.metadata.PackageNotFoundError(name)
        return f"of {name}"

    monkeypatch.setattr(standins.metadata, "version", version)
    assert standins.version_of("mmcv") == "of mmcv-lite"
    with pytest.raises(standins.metadata.PackageNotFoundError):
        standins.metadata.version("mmcv")
