import warnings

import pytest
import torch

from csip import runtime
from csip.config import RuntimeSettings
from pose_cache import processor
from pose_cache.estimator import PoseEstimator, demo


def test_arms_units_are_read_from_the_kernels_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor.platform, "machine", lambda: "aarch64")
    for features, expected in (("fp asimd bf16 i8mm", True), ("fp asimd", False)):
        monkeypatch.setattr(
            processor.Path, "read_text", lambda _, features=features: f"processor: 0\nFeatures\t: {features}\n"
        )
        assert processor._processor_has_bf16.__wrapped__() is expected

    def missing(_: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(processor.Path, "read_text", missing)  # macOS
    assert processor._processor_has_bf16.__wrapped__() is False


@pytest.mark.parametrize(("avx512", "amx"), [(False, False), (True, False), (False, True)])
def test_units_of_an_x86_processor(monkeypatch: pytest.MonkeyPatch, avx512: bool, amx: bool) -> None:
    monkeypatch.setattr(processor.platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    assert processor._processor_has_bf16.__wrapped__() is (avx512 or amx)


@pytest.mark.parametrize(("units", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_automatic_precision_is_bf16_where_there_are_units(
    monkeypatch: pytest.MonkeyPatch, units: bool, expected: str
) -> None:
    monkeypatch.setattr(runtime, "has_bf16", lambda device: units)
    fabric = runtime.make_fabric(RuntimeSettings(device="cpu", precision="auto"))
    assert fabric._precision.precision == expected


def test_bf16_without_units_warns_once_with_the_factor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "has_bf16", lambda device: False)
    monkeypatch.setattr(processor, "bf16_factor", lambda: 12.34)
    processor._warn.cache_clear()
    settings = RuntimeSettings(device="cpu", precision="bf16-mixed")
    with pytest.warns(RuntimeWarning, match=r"runtime\.precision=bf16-mixed asks for bf16.* takes 12\.3 times as long"):
        runtime.make_fabric(settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        runtime.make_fabric(settings)
    with pytest.warns(RuntimeWarning, match=r'precision "bf16" asks for bf16.* 12\.3 times'):
        PoseEstimator(demo(), precision="bf16")


def test_nothing_is_said_where_there_are_units_or_of_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    processor._warn.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        processor.warn_without_bf16("cuda", "x")
        monkeypatch.setattr(processor, "has_bf16", lambda device: True)
        processor.warn_without_bf16("cpu", "x")


def test_the_factor_is_measured() -> None:
    assert 0.01 < processor.bf16_factor() < 1000


def test_processors_are_counted_without_affinity_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= processor.usable_processors() <= (processor.os.cpu_count() or 1)
    monkeypatch.delattr(processor.os, "sched_getaffinity", raising=False)
    assert processor.usable_processors() == processor.os.cpu_count()
    monkeypatch.setattr(processor.os, "cpu_count", lambda: None)
    assert processor.usable_processors() == 1
