"""The stage that makes a data set of rendered people, and what a motion world says of itself."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.table import Table

from csip.config import Settings
from csip.data.skeletons import Skeletons
from csip.errors import CsipError
from csip.files import write_json
from csip.models.factory import read_encoder
from csip.synthetic.body import FloatArray
from csip.synthetic.ceilings import Ceilings, Encoder, measure_ceilings
from csip.synthetic.world import SyntheticSpec, render_mars
from csip.training.stage1 import embed_skeletons
from pipelines.console import RichMonitor, console
from pose_cache.joints import H36M17


def run(out: Path, spec: SyntheticSpec, workers: int, force: bool) -> None:
    """Render into ``out``, which must be new or empty unless ``force``."""
    if out.exists() and any(out.iterdir()) and not force:
        raise CsipError(f"{out}: not empty; give --force to replace its content, or another --out folder")
    if out.exists() and any(out.iterdir()) and not (out / "truth.npz").exists():
        raise CsipError(f"{out}: expected rendered people, found other files; --force replaces only rendered people")
    started = time.monotonic()
    with RichMonitor() as monitor:
        render_mars(out, spec, workers, monitor, replace=force)
    seconds = time.monotonic() - started
    crops = sum(1 for part in ("bbox_train", "bbox_test") for _ in (out / part).glob("*/*.jpg"))
    write_json(out / "synth.json", {"crops": crops, "seconds": seconds})
    console.print(f"synth: {crops:,} crops of {spec.train_ids} + {spec.test_ids} people, {seconds:.0f} s -> {out}")
    if spec.world == "motion":
        run_ceilings(out, None)


def run_ceilings(root: Path, skeletons: Path | None, encoder: Path | None = None) -> None:
    """Print what each cue, and a stage-1 encoder, tells about the twins of a motion world, and write it beside."""
    found = measure_ceilings(root, skeletons, None if encoder is None else _load(encoder))
    name = "ceilings.json" if skeletons is None else "ceilings_estimated.json"
    write_json(root / name, asdict(found))
    _show(found, "true" if skeletons is None else "estimated")


def _load(path: Path) -> Encoder:
    """Return what describes whole tracklets by a stage-1 model, in clips of its training's length and time step."""
    encoder, _, description = read_encoder(path)
    if description["joint_set"] != H36M17.name:
        raise CsipError(f"{path}: expected an encoder of the joints {H36M17.name}, found {description['joint_set']}")
    clips = Settings.model_validate(description["settings"]).clips

    def describe(joints: FloatArray) -> FloatArray:
        always = [np.ones(len(one), dtype=bool) for one in joints]
        skeletons = Skeletons(H36M17, list(joints.astype(np.float32)), always)
        return embed_skeletons(encoder, skeletons, clips.frames, clips.stride or 1).astype(np.float64)

    return describe


def _show(found: Ceilings, joints: str) -> None:
    without = f", {found.missing} without skeleton left out" if found.missing else ""
    table = Table(
        "frames",
        "cue",
        title=f"{found.part} people, {joints} joints: own twin told apart, % [95 % interval, bootstrap over pairs] and "
        f"Rank-1; nearest neighbour at other cameras, chance 50 %; {found.people} people, {found.tracklets} tracklets{without}",
        title_justify="left",
    )
    strata = dict.fromkeys(row.stratum for row in found.rows)
    for stratum in strata:
        table.add_column(f"differ in {stratum}", justify="right")
    for frames, cue in dict.fromkeys((row.frames, row.cue) for row in found.rows):
        cells = [found.find(cue, frames, stratum) for stratum in strata]
        table.add_row(
            str(frames),
            cue,
            *(f"{c.own_twin:.1%} [{100 * c.low:.0f}, {100 * c.high:.0f}]  {c.rank1:6.1%}" for c in cells),
            end_section=cue == found.rows[-1].cue,
        )
    console.print(table)
