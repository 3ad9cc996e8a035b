"""The ablation: rows that add one part at a time, controls, runs that are kept, and tables of what was measured."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from csip.config import Settings
from csip.errors import CsipError
from csip.retrieval.outcomes import Outcomes, difference
from pipelines import ablate
from pipelines.ablation_table import Study, forest, tables

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
    every = {row.label: row.settings for row in ablate.rows_of(settings)}
    control = every.pop(ablate.SHUFFLED)
    assert list(every) == [ablate.BASELINE, *(label for label, _ in ablate.PARTS)]
    rows = list(every.values())
    assert rows[-1] == settings
    for before, after, (_, off) in zip(rows[:-1], rows[1:], ablate.PARTS, strict=True):
        assert changed(before, after) == off.keys()
    assert changed(control, every[ablate.FUSED]) == {"stage2.skeletons"} and control.stage2.skeletons == "others"


def test_predicted_skeletons_are_a_part_where_they_are_on(settings: Settings) -> None:
    predicted = settings.model_copy(update={"stage2": settings.stage2.model_copy(update={"predict_skeletons": True})})
    *_, before, whole, control, plain = ablate.rows_of(predicted)
    assert whole == ablate.Row("+ predicted skeletons", predicted) and before.label == "+ distillation"
    assert ablate.whole_of(predicted) == whole.label and ablate.whole_of(settings) == before.label
    assert changed(before.settings, predicted) == {"stage2.predict_skeletons"}
    assert control.label == ablate.WRONGLY_TAUGHT and changed(control.settings, predicted) == {"stage2.skeletons"}
    assert (whole.label, control.label) in ablate.comparisons(predicted)
    between = {"update_prototypes", "mte", "atd", "ta", "lambda_distill"}
    assert plain.label == ablate.PLAIN and changed(plain.settings, predicted) == {f"stage2.{name}" for name in between}
    assert {(whole.label, ablate.PLAIN), (ablate.PLAIN, ablate.FUSED)} <= set(ablate.comparisons(predicted))
    assert ("+ predicted skeletons", "+ image prototypes") in ablate.comparisons(predicted)
    assert ("+ distillation", "+ image prototypes") in ablate.comparisons(settings)


def test_a_part_that_is_off_already_is_named(settings: Settings) -> None:
    without = settings.model_copy(update={"stage2": settings.stage2.model_copy(update={"ta": False})})
    with pytest.raises(CsipError, match=r"stage2\.ta is False.*\+ TA"):
        ablate.rows_of(without)


def outcomes(hits: list[int], twins: list[int]) -> Outcomes:
    values = {"Rank-1": np.array(hits, float), "mAP": np.array(hits) / 2, "body": np.array(twins, float)}
    people, pairs = np.repeat(np.arange(len(hits) // 2), 2), np.repeat(np.arange(len(twins) // 2), 2)
    return Outcomes(values, {"Rank-1": people, "mAP": people, "body": pairs})


def test_the_tables_have_means_spreads_and_paired_differences_by_hand() -> None:
    worse = [outcomes([1, 1, 0, 0], [0, 0]), outcomes([1, 0, 0, 0], [0, 0])]
    better = [outcomes([1, 1, 0, 1], [1, 1]), outcomes([1, 1, 0, 0], [1, 1])]
    study = Study((0, 1), {"one": worse, "+ all": better}, [("+ all", "one")])
    lines = tables(study).splitlines()
    assert lines[0] == "| | Rank-1 | mAP | own twin: body |"
    assert lines[2] == "| one | 37.5 ± 17.7 | 18.8 ± 8.8 | 0.0 ± 0.0 |"
    assert lines[3] == "| + all | 62.5 ± 17.7 | 31.2 ± 8.8 | 100.0 ± 0.0 |"
    gain = difference(better, worse, "Rank-1")
    assert gain.mean == 0.25 and gain.low == 0.0 and gain.high == 0.5 and not gain.excludes_zero
    row = next(line for line in lines if line.startswith("| + all - one |"))
    assert "+25.0 (+0.0 to +50.0)" in row and "**+100.0 (+100.0 to +100.0)**" in row
    picture = ElementTree.fromstring(forest(study))
    assert picture.tag.endswith("svg") and len(forest(study)) < 100_000
    assert study.as_dict()["differences"][0]["mean"] == 0.25


def test_pairs_share_their_luck() -> None:
    """The same 40 answers: of 20 people who are wholly better or worse, or each answer on its own."""
    gains = np.repeat([1, 0, 1, 0, 0] * 4, 2).tolist()
    nothing = [0] * 40
    people = difference([outcomes(gains, [0, 0])], [outcomes(nothing, [0, 0])], "Rank-1")
    each = Outcomes({"Rank-1": np.array(gains, float)}, {"Rank-1": np.arange(40)})
    alone = difference([each], [Outcomes({"Rank-1": np.zeros(40)}, {"Rank-1": np.arange(40)})], "Rank-1")
    assert people.mean == alone.mean == pytest.approx(0.4)
    assert people.high - people.low > 1.2 * (alone.high - alone.low)


def test_outcomes_survive_json() -> None:
    before = outcomes([1, 0], [1, 0])
    after = Outcomes.from_dict(json.loads(json.dumps(before.as_dict())))
    for name in before.values:
        np.testing.assert_array_equal(before.values[name], after.values[name])
        np.testing.assert_array_equal(before.groups[name], after.groups[name])


def test_an_ablation_runs_is_kept_and_goes_on(
    settings: Settings, whole_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    ablate.run(quick, whole_cache, out, [0, 1], workers=1)
    result = json.loads((out / "ablation.json").read_text())
    labels = [ablate.BASELINE, ablate.IMAGES, ablate.FUSED, ablate.SHUFFLED, "+ MTE", ablate.REORDERED, ablate.TEACHER]
    assert list(result["rows"]) == labels and list(result["rows"]["+ MTE"]) == ["Rank-1", "mAP", "look-alikes"]
    assert all(len(values) == 2 and min(values) >= 0 for row in result["rows"].values() for values in row.values())
    assert not np.isclose(*result["rows"]["+ MTE"]["mAP"]), "the seed decides"
    assert result["rows"][ablate.TEACHER]["mAP"] != result["rows"]["+ MTE"]["mAP"], (
        "skeletons tell the teacher something"
    )
    compared = {(one["better"], one["worse"]) for one in result["differences"]}
    assert {(ablate.FUSED, ablate.SHUFFLED), ("+ MTE", ablate.REORDERED), ("+ MTE", ablate.IMAGES)} <= compared
    assert "control: skeletons of others" in (out / "ablation.md").read_text()
    ElementTree.parse(out / "ablation.svg")

    models = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    (out / "seed1" / "mte" / "ablation.json").unlink()
    ablate.run(quick, whole_cache, out, [0, 1], workers=1)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")} == models
    assert json.loads((out / "ablation.json").read_text()) == result

    other = quick.model_copy(update={"stage2": quick.stage2.model_copy(update={"lr": 1e-3})})
    with pytest.raises(CsipError, match="other settings or data"):
        ablate.run(other, whole_cache, out, [0, 1], workers=1)


def test_each_seed_may_have_a_world_of_its_own(settings: Settings, tmp_path: Path) -> None:
    dataset = settings.dataset.model_copy(update={"root": Path("data/world-{seed}")})
    place = ablate.Place(
        settings.model_copy(update={"dataset": dataset}), Path("data/world-{seed}/skeletons.h5"), tmp_path
    )
    third = place.of(2)
    assert third.settings.dataset.path == Path("data/world-2") and third.skeletons == Path("data/world-2/skeletons.h5")
    assert third.settings.runtime.seed == 2 and third.settings.runtime.workers == 0 and third.out == tmp_path / "seed2"
    with pytest.raises(CsipError, match=r"world-0/skeletons\.h5: no such"):
        ablate.run(place.settings, place.skeletons, tmp_path, [0], workers=1)


def test_a_test_world_is_studied_once(
    settings: Settings, whole_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Refused before anything is trained; the same study may go on, another one not."""
    asked = []

    def remember(dataset: object, study: str, seed: int, again: bool) -> int:
        asked.append((study, seed, again))
        raise CsipError("scored already")

    monkeypatch.setattr(ablate, "look", remember)
    other = settings.model_copy(update={"stage2": settings.stage2.model_copy(update={"lr": 1e-3})})
    for chosen, again in ((settings, False), (settings, True), (other, False)):
        with pytest.raises(CsipError, match="scored already"):
            ablate.run(chosen, whole_cache, tmp_path / "out", [0], workers=1, second_look=again)
    assert [again for _, _, again in asked] == [False, True, False] and not (tmp_path / "out").exists()
    assert asked[0][0] == asked[1][0] != asked[2][0], "other settings are another look"


def test_the_skeletons_must_be_there(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(CsipError, match="csip skeletons"):
        ablate.run(settings, tmp_path / "skeletons.h5", tmp_path, [0], workers=1)
