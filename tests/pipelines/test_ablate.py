"""The ablation: rows that add one part at a time, runs that are kept, and a table of what was measured."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from csip.config import Settings
from csip.errors import CsipError
from pipelines import ablate

pytestmark = pytest.mark.slow


def changed(first: Settings, second: Settings) -> set[str]:
    def leaves(tree: dict, prefix: str = "") -> dict:
        found = {}
        for key, value in tree.items():
            found |= leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        return found

    one, two = leaves(first.model_dump()), leaves(second.model_dump())
    return {key for key in one if one[key] != two[key]}


def test_each_row_adds_its_own_part_and_the_last_is_the_whole_method(settings: Settings) -> None:
    rows = ablate.rows_of(settings)
    assert [row.label for row in rows] == [ablate.BASELINE, *(label for label, _ in ablate.PARTS)]
    assert rows[-1].settings == settings
    for before, after, (_, off) in zip(rows[:-1], rows[1:], ablate.PARTS, strict=True):
        assert changed(before.settings, after.settings) == off.keys()


def test_a_part_that_is_off_already_is_named(settings: Settings) -> None:
    without = settings.model_copy(update={"stage2": settings.stage2.model_copy(update={"ta": False})})
    with pytest.raises(CsipError, match=r"stage2\.ta is False.*\+ TA"):
        ablate.rows_of(without)


def test_the_table_has_means_and_spreads_by_hand() -> None:
    def figures(rank1: float, alike: float) -> dict:
        return {"rank1": rank1, "map": 0.5, "lookalikes": {"rank1": alike, "map": 0.25}}

    found = {
        ablate.BASELINE: [figures(0.60, 0.3), figures(0.64, 0.1)],
        "+ all": [figures(0.70, 0.4), figures(0.70, 0.4)],
    }
    lines = ablate.table(found, [0, 1]).splitlines()
    assert lines[0] == "| | Rank-1 | mAP | look-alikes: Rank-1 | look-alikes: mAP |"
    assert lines[2] == f"| {ablate.BASELINE} | 62.0 ± 2.8 | 50.0 ± 0.0 | 20.0 ± 14.1 | 25.0 ± 0.0 |"
    assert lines[3] == "| + all | 70.0 ± 0.0 | 50.0 ± 0.0 | 40.0 ± 0.0 | 25.0 ± 0.0 |"
    assert "Rank-1 +8.0 (+10.0, +6.0)" in lines[-1] and "look-alikes: Rank-1 +20.0 (+10.0, +30.0)" in lines[-1]


def test_an_ablation_runs_is_kept_and_goes_on(
    settings: Settings, walkers: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = settings.model_copy(
        update={
            "stage1": settings.stage1.model_copy(update={"epochs": 1}),
            "stage2": settings.stage2.model_copy(update={"epochs": 1}),
            "dataset": settings.dataset.model_copy(update={"val_ids": 0}),
        }
    )
    monkeypatch.setattr(ablate, "PARTS", (*ablate.PARTS[:2], ("+ MTE", {"stage2.mte": False, "stage2.atd": False})))
    out = tmp_path / "ablation"
    ablate.run(quick, walkers / "skeletons.h5", out, [0, 1], workers=1)
    result = json.loads((out / "ablation.json").read_text())
    assert list(result["rows"]) == [ablate.BASELINE, "+ stage 1", "+ PFU", "+ MTE"]
    assert all(len(row) == 2 and 0 <= one["map"] <= 1 for row in result["rows"].values() for one in row)
    assert not np.isclose(*(one["map"] for one in result["rows"]["+ MTE"])), "the seed decides"
    assert ablate.table(result["rows"], [0, 1]) == (out / "ablation.md").read_text()

    models = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    (out / "seed1" / "mte" / "ablation.json").unlink()
    ablate.run(quick, walkers / "skeletons.h5", out, [0, 1], workers=1)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")} == models
    assert json.loads((out / "ablation.json").read_text()) == result

    other = quick.model_copy(update={"stage2": quick.stage2.model_copy(update={"lr": 1e-3})})
    with pytest.raises(CsipError, match="other settings or data"):
        ablate.run(other, walkers / "skeletons.h5", out, [0, 1], workers=1)


def test_the_skeletons_must_be_there(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(CsipError, match="csip skeletons"):
        ablate.run(settings, tmp_path / "skeletons.h5", tmp_path, [0], workers=1)
