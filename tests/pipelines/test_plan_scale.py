"""What many frames cost: the arithmetic, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from csip.errors import CsipError
from pipelines.cli import app
from pipelines.plan_scale import CPU, GFLOP, Machine, Sizes, adjusted, gpu_machine, parse_rates, plan

RATES = {"decode": 1000.0, "pose": 100.0, "lift": 50.0, "write": 500.0, "embed": 20.0}
SIZES = Sizes(crop=1000, skeleton=500, descriptor=8000, tracklet=50, price=0.1, months=3)


def machine(gpu: bool, **rates: float) -> Machine:
    return Machine("m", {**RATES, **rates}, 2.0, gpu, "")  # type: ignore[dict-item]


def test_a_processor_does_one_part_after_the_other() -> None:
    found = plan(3600e3, machine(gpu=False), SIZES)
    # 1 + 10 + 20 + 2 hours of skeletons per 1000 frames per second, 1 + 50 of descriptors
    assert found.hours == pytest.approx(33 + 51) and found.compute == pytest.approx(2 * 84)
    assert found.bottleneck == "embed" and found.share["embed"] == pytest.approx(50 / 84)
    assert found.share["decode"] == pytest.approx(2 / 84) and sum(found.share.values()) == pytest.approx(1)
    assert found.machines_for_a_week == pytest.approx(84 / 168)
    assert (found.crops, found.skeletons, found.descriptors) == (3600e6, 1800e6, 3600e3 / 50 * 8000)
    assert found.storage == pytest.approx((3.6 + 1.8 + 0.576) * 0.1 * 3)
    assert found.reading == pytest.approx(3600e6 / (33 * 3600))


def test_a_gpu_computes_while_its_processor_decodes() -> None:
    found = plan(3600e3, machine(gpu=True), SIZES)
    assert found.hours == pytest.approx(30 + 50) and found.bottleneck == "embed"
    slow = plan(3600e3, machine(gpu=True, decode=10), SIZES)
    assert slow.hours == pytest.approx(100 + 2 + 100) and slow.bottleneck == "decode"
    writing = plan(3600e3, machine(gpu=True, write=1, embed=1e4), SIZES)
    assert writing.bottleneck == "write" and writing.hours == pytest.approx(1000 + 1 + 1)


def test_costs_grow_with_the_frames_and_fall_with_the_rate() -> None:
    one, many = (plan(count, CPU, SIZES) for count in (1e6, 1e8))
    assert many.hours == pytest.approx(100 * one.hours) and many.compute == pytest.approx(100 * one.compute)
    assert many.storage == pytest.approx(100 * one.storage) and many.bottleneck == one.bottleneck == "embed"
    twice = adjusted(CPU, {part: 2 * rate for part, rate in CPU.rates.items()}, CPU.price)
    assert plan(1e6, twice, SIZES).hours == pytest.approx(one.hours / 2)


def test_a_gpus_rates_are_its_arithmetic() -> None:
    gpu = gpu_machine(tflops=36, cores=8)
    assert gpu.rates["pose"] == pytest.approx(36e12 / (GFLOP["pose"] * 1e9))
    assert gpu.rates["decode"] == 4 * CPU.rates["decode"]
    given = adjusted(gpu, {"pose": 4000}, 1.5)
    assert given.rates["pose"] == 4000 and given.rates["lift"] == gpu.rates["lift"] and given.price == 1.5
    assert given.source.endswith("given by you: pose, price") and "not measured" in given.source


@pytest.mark.parametrize("texts", [["pose"], ["pose=fast"], ["=" * 3]])
def test_what_is_no_rate_is_refused(texts: list[str]) -> None:
    with pytest.raises(CsipError, match="expected PART=FRAMES_PER_SECOND"):
        parse_rates(texts)


@pytest.mark.parametrize("rates", [{"walk": 3.0}, {"pose": 0.0}, {"pose": float("nan")}, {"pose": float("inf")}])
def test_rates_that_cannot_be_are_refused(rates: dict[str, float]) -> None:
    with pytest.raises(CsipError, match="expected"):
        adjusted(CPU, rates, 1.0)


def test_frames_that_cannot_be_are_refused() -> None:
    for count in (0, -1, float("nan")):
        with pytest.raises(CsipError, match="frames: expected more than 0"):
            plan(count, CPU, replace(SIZES))
    with pytest.raises(CsipError, match="above 0"):
        gpu_machine(0, 8)


def test_the_command_prints_both_machines(capsys: pytest.CaptureFixture[str]) -> None:
    app(["plan-scale", "--frames", "5e7", "--rate", "embed=50", "--gpu-price", "1.2"], standalone_mode=False)
    text = capsys.readouterr().out
    assert "50,000,000" in text and "$1.2 per hour" in text and "given by you: embed" in text
    assert "docs/benchmarks.md" in text and "data sheet" in text and "AWS S3" in text
