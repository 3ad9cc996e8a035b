import pytest

from pipelines import check_installation as doctor


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


def test_compiled_operators_are_there() -> None:
    assert "compiled" in doctor.check_operators()
