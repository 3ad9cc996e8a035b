import pytest
import torch

from pipelines import check_installation as doctor
from pose_cache import shipped
from pose_cache.standins import compiled_operators


def test_a_failed_check_is_named_with_its_fix(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> str:
        raise ImportError("no module named _ext")

    for name in ("pose", "lifter", "detector", "vision", "demo_weights", "versions", "devices"):
        monkeypatch.setattr(doctor, f"check_{name}", lambda: "fine")
    monkeypatch.setattr(doctor, "check_operators", broken)
    assert doctor.run() is False
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "mmcv operators" in text and "ImportError" in text and "make setup" in text
    assert "1 of 8 checks failed" in text


def test_versions_are_compared_with_the_pins(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "mmpose 1.3.2" in doctor.check_versions()
    installed = doctor.metadata.version
    monkeypatch.setattr(doctor.metadata, "version", lambda name: "9.9" if name == "mmdet" else installed(name))
    with pytest.raises(RuntimeError, match=r"mmdet is 9\.9, expected 3\.3\.0"):
        doctor.check_versions()


def test_the_operators_that_are_there_are_named_and_run(monkeypatch: pytest.MonkeyPatch) -> None:
    text = doctor.check_operators()
    assert text.startswith("mmcv's own, compiled" if compiled_operators() else "none compiled (mmcv-lite)")
    monkeypatch.setattr("mmcv.ops.nms", lambda boxes, scores, limit: (None, torch.tensor([0, 1, 2])))
    with pytest.raises(RuntimeError, match=r"non-maximum suppression kept \[0, 1, 2\], expected \[0, 2\]"):
        doctor.check_operators()


def test_versions_of_a_wheel_are_compared_with_what_it_requires(monkeypatch: pytest.MonkeyPatch) -> None:
    in_clone = doctor._pins()
    monkeypatch.setattr(doctor, "IN_CLONE", False)
    monkeypatch.setattr(
        doctor.metadata, "requires", lambda name: ["mmcv-lite==2.1.0", "numpy>=2", 'ruff==1; extra == "dev"']
    )
    assert doctor._pins() == {"mmcv": "2.1.0"}
    assert in_clone["mmpose"] == "1.3.2" and in_clone["open_clip_torch"] == "3.3.0" and in_clone["mmcv"] == "2.1.0"


@pytest.mark.parametrize(("in_clone", "advice"), [(True, "make setup"), (False, "pip install --force-reinstall csip")])
def test_advice_fits_how_it_was_installed(monkeypatch: pytest.MonkeyPatch, in_clone: bool, advice: str) -> None:
    monkeypatch.setattr(shipped, "IN_CLONE", in_clone)
    assert advice in shipped.repair()
