"""What a number of frames costs: time, disk and money on one kind of machine, and which part of the work is the bottleneck.

A frame is one crop of a person. `csip skeletons` decodes it, estimates it in 2D, lifts it and writes the skeleton; `csip embed`
decodes it again and describes it. Nothing here runs any of that: the rates are given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

from rich.table import Table

from csip.errors import CsipError
from pipelines.console import console

Part = Literal["decode", "pose", "lift", "write", "embed"]
PARTS: Final[tuple[Part, ...]] = ("decode", "pose", "lift", "write", "embed")
# Arithmetic per frame, docs/benchmarks.md: RTMPose-m at 256x192, MotionBERT; ViT-B/16 at 256x128 (86 M weights, 129 tokens).
GFLOP: Final[Mapping[str, float]] = {"pose": 3.84, "lift": 1.46, "embed": 22.5}
_HOURS_PER_WEEK: Final = 168
_NETWORK: Final = ("pose", "lift", "embed")
# What the processor and the networks do in each pass over the crops: skeletons, then descriptors.
_PASSES: Final[tuple[tuple[tuple[Part, ...], tuple[Part, ...]], ...]] = (
    (("decode", "write"), ("pose", "lift")),
    (("decode",), ("embed",)),
)


@dataclass(frozen=True)
class Machine:
    """A kind of machine.

    Attributes
    ----------
    name
        For the table.
    rates
        Frames per second of each part, if it did nothing else.
    price
        US dollars per hour.
    gpu
        Whether pose, lift and embed run on a GPU beside the processor's decode and write, and not after them.
    source
        Where the rates and the price come from.
    """

    name: str
    rates: Mapping[Part, float]
    price: float
    gpu: bool
    source: str


@dataclass(frozen=True)
class Sizes:
    """Bytes on the disk, and their price.

    Attributes
    ----------
    crop
        Of a JPEG crop. MARS has 5.3 kB per frame.
    skeleton
        Of a frame in the skeleton cache, docs/benchmarks.md.
    descriptor
        Of a tracklet: 2,048 float32 of ViT-B/16.
    tracklet
        Frames per tracklet. MARS has 58.
    price
        US dollars per GB and month.
    months
        How long everything is kept.
    """

    crop: float = 5300
    skeleton: float = 458
    descriptor: float = 8192
    tracklet: float = 58
    price: float = 0.023
    months: float = 1


@dataclass(frozen=True)
class Plan:
    """What a number of frames costs on one machine.

    Attributes
    ----------
    frames
        How many.
    hours
        Of one machine. N machines take an N-th of it and cost the same.
    share
        Of each part in the work: seconds of the part over the seconds of all.
    bottleneck
        The part that the machine waits for longest.
    crops, skeletons, descriptors
        Bytes on the disk.
    reading
        Bytes per second that one machine reads, in the faster of its two passes over the crops.
    compute, storage
        US dollars.
    """

    frames: float
    hours: float
    share: Mapping[Part, float]
    bottleneck: Part
    crops: float
    skeletons: float
    descriptors: float
    reading: float
    compute: float
    storage: float

    @property
    def machines_for_a_week(self) -> float:
        """Machines that need one week."""
        return self.hours / _HOURS_PER_WEEK


# 2 cores of the Zen 5 generation with AVX512-BF16, bf16: docs/benchmarks.md. Writing: 120,000 frames into a cache,
# processor time; the disk may be slower.
CPU: Final = Machine(
    "2 cores",
    {"decode": 5960, "pose": 166, "lift": 496, "write": 230_000, "embed": 24.8},
    0.116,
    False,
    "rates measured, docs/benchmarks.md (2 cores of Zen 5, bf16; writing: processor time); price: AWS m7a.large on demand, "
    "us-east-1",
)


def gpu_machine(tflops: float, cores: float) -> Machine:
    """Return a machine with a GPU of so many sustained TFLOP/s and so many cores, whose rates follow from the arithmetic.

    Raises
    ------
    CsipError
        It has no arithmetic, or no core.
    """
    if not (tflops > 0 and cores > 0):
        raise CsipError(f"expected TFLOP/s and cores above 0, found {tflops:g} and {cores:g}")
    networks = {part: tflops * 1e3 / GFLOP[part] for part in _NETWORK}
    per_core = {part: CPU.rates[part] / 2 for part in PARTS}
    return Machine(
        "1 GPU",
        {part: networks[part] if part in networks else per_core[part] * cores for part in PARTS},
        0.85,
        True,
        f"rates given, not measured: {tflops:g} sustained TFLOP/s (30 % of an NVIDIA L4's 121 in bf16, data sheet) and "
        f"{cores:g} cores; price: Google Cloud g2-standard-8 on demand, us-central1",
    )


def adjusted(machine: Machine, rates: Mapping[str, float], price: float) -> Machine:
    """Return a machine with some rates, and the price, replaced.

    Raises
    ------
    CsipError
        There is no such part, or a rate is not positive.
    """
    if unknown := sorted(rates.keys() - set(PARTS)):
        raise CsipError(f"rate {unknown[0]}: expected one of {', '.join(PARTS)}")
    for part, rate in rates.items():
        if not 0 < rate < float("inf"):
            raise CsipError(f"rate {part}: expected frames per second above 0, found {rate:g}")
    given = [*rates, *(["price"] if price != machine.price else [])]
    source = machine.source + (f"; given by you: {', '.join(given)}" if given else "")
    return replace(
        machine, rates={part: rates.get(part, machine.rates[part]) for part in PARTS}, price=price, source=source
    )


def parse_rates(texts: Sequence[str]) -> dict[str, float]:
    """Read rates as ``pose=9000``.

    Raises
    ------
    CsipError
        It is anything else.
    """
    rates = {}
    for text in texts:
        part, _, rate = text.partition("=")
        try:
            rates[part.strip()] = float(rate)
        except ValueError as error:
            raise CsipError(f"rate {text!r}: expected PART=FRAMES_PER_SECOND, e.g. pose=9000") from error
    return rates


def plan(frames: float, machine: Machine, sizes: Sizes) -> Plan:
    """Compute what frames cost.

    Raises
    ------
    CsipError
        There are no frames.
    """
    if not frames > 0:
        raise CsipError(f"frames: expected more than 0, found {frames:g}")
    seconds = {part: frames / machine.rates[part] for part in PARTS}
    busy = {part: seconds[part] * (2 if part == "decode" else 1) for part in PARTS}
    # Two passes over the crops. A GPU computes while the processor decodes, and waits where that takes longer.
    waited, durations = dict.fromkeys(PARTS, 0.0), []
    for processor, networks in _PASSES:
        sides = [sum(seconds[part] for part in parts) for parts in (processor, networks)]
        durations.append(max(sides) if machine.gpu else sum(sides))
        for parts, side in zip((processor, networks), sides, strict=True):
            for part in parts if not machine.gpu or side == max(sides) else ():
                waited[part] += seconds[part]
    total = sum(durations)
    descriptors = frames / sizes.tracklet * sizes.descriptor
    disk = frames * (sizes.crop + sizes.skeleton) + descriptors
    return Plan(
        frames=frames,
        hours=total / 3600,
        share={part: busy[part] / sum(busy.values()) for part in PARTS},
        bottleneck=max(PARTS, key=lambda part: waited[part]),
        crops=frames * sizes.crop,
        skeletons=frames * sizes.skeleton,
        descriptors=descriptors,
        reading=frames * sizes.crop / min(durations),
        compute=total / 3600 * machine.price,
        storage=disk / 1e9 * sizes.price * sizes.months,
    )


def run(frames: Sequence[float], machines: Sequence[Machine], sizes: Sizes) -> list[Plan]:
    """Print the plans of numbers of frames on kinds of machines."""
    plans = []
    for machine in machines:
        table = Table(
            "frames", "time of one machine", "machines for a week", "bottleneck", "crops", "skeletons", "descriptors",
            "reads", "compute", "storage", title=f"{machine.name} at ${machine.price:g} per hour", title_justify="left",
        )  # fmt: skip
        for count in frames:
            found = plan(count, machine, sizes)
            plans.append(found)
            share = f"{found.bottleneck} ({found.share[found.bottleneck]:.0%} of the work)"
            table.add_row(
                f"{count:,.0f}",
                _duration(found.hours),
                f"{found.machines_for_a_week:,.1f}",
                share,
                _bytes(found.crops),
                _bytes(found.skeletons),
                _bytes(found.descriptors),
                f"{_bytes(found.reading)}/s",
                f"${found.compute:,.0f}",
                f"${found.storage:,.0f}",
            )
        console.print(table)
        rates = ", ".join(f"{part} {machine.rates[part]:,.0f}" for part in PARTS)
        console.print(f"frames per second: {rates}\n{machine.source}\n", soft_wrap=True)
    console.print(
        f"sizes: {sizes.crop:,.0f} bytes per crop, {sizes.skeleton:,.0f} per skeleton, {sizes.descriptor:,.0f} per tracklet of "
        f"{sizes.tracklet:g} frames; storage for {sizes.months:g} months at ${sizes.price:g} per GB and month (default: AWS S3 "
        "standard, us-east-1). The process that joins descriptors holds all of them in memory.",
        soft_wrap=True,
    )
    return plans


def _duration(hours: float) -> str:
    if hours < 48:
        return f"{hours:,.1f} h"
    days = hours / 24
    return f"{days:,.0f} days" if days < 730 else f"{days / 365.25:,.1f} years"


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:,.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} PB"
