"""What the report says, without a browser: rankings, the map's points, notes, and runs of which something is missing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import yaml
from report_runs import HOSTILE, TRAINED, Run, make_run
from typer.testing import CliRunner

from csip.config import Settings, dump_settings
from csip.data.fingerprints import evaluation_data
from csip.data.labels import write_labels
from csip.errors import CsipError
from csip.models.checkpoints import load_model, save_model
from csip.monitor import Silent
from csip.retrieval import ranked_lists
from pipelines.cli import app
from pipelines.report_page import cards, charts, curves, heat, page, strips
from pipelines.report_page.cards import looks_note, strata_table
from pipelines.write_report import _strata
from pose_cache.store import SkeletonStore

# ---- pictures --------------------------------------------------------------------------------------------------------


def test_a_simulated_review_has_its_curve() -> None:
    ((title, chart, names),) = curves.review_charts({"rate": 0.03, "tracklets": 600, "curve": [0.8, 0.9, 0.985]})
    assert title == "Simulated review of 600 tracklets, 3% of the answers wrong: adjusted Rand index"
    assert "polyline" in chart or "<path" in chart
    assert "after 2 answers: 0.985" in names and "proposal: 0.800" in names


@pytest.mark.parametrize("shape", [(256, 128), (64, 64), (300, 60), (10, 200)])
def test_a_picture_is_fitted_whole(shape: tuple[int, int]) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    image[:, :, 1] = 255
    picture, scale, left, top = strips.fit(image, (80, 160))
    assert picture.shape == (160, 80, 3)
    inner = picture[round(top) : round(top + shape[0] * scale), round(left) : round(left + shape[1] * scale)]
    assert (inner[:, :, 1] == 255).all(), "the picture itself is as bright as it was"
    assert min(left, top) == 0 and (picture[:, :, 1] == 255).mean() == pytest.approx(
        inner.shape[0] * inner.shape[1] / (80 * 160)
    )


def test_frames_are_spread() -> None:
    assert strips.spread_rows(3, 6) == [0, 1, 2]
    rows = strips.spread_rows(100, 6)
    assert len(rows) == 6 and rows[0] < 10 and rows[-1] > 90 and min(np.diff(rows)) >= 16


def test_sides_of_bones() -> None:
    named = dict(zip(strips.BONES, strips.sides(), strict=True))
    assert named[5, 7] == "left" and named[14, 16] == "right" and named[5, 6] == named[11, 12] == "middle"


def test_those_who_are_looked_at_are_different_people() -> None:
    pids = np.array([1, 1, 2, 3, 4, 5, 6, 7, 7])
    lists = [ranked_lists.RankedList(i, np.array([0]), np.zeros(1), None, i / 9, 1) for i in range(9)]
    assert [one.query for one in heat.choose(lists, pids)] == [0, 2, 3, 4, 8, 6]
    assert [one.query for one in heat.choose(lists[:2], pids)] == [0]


# ---- charts ----------------------------------------------------------------------------------------------------------


def test_points_of_a_chart_are_where_they_belong() -> None:
    drawn = charts.line_chart([charts.Line("", np.array([1, 2, 3]), np.array([0.0, 0.5, 1.0]))], "t", "x", percent=True)
    points = [tuple(map(float, p.split(","))) for p in re.search(r'polyline[^>]*points="([^"]*)"', drawn)[1].split()]
    right, bottom = charts.WIDTH - charts.RIGHT, charts.HEIGHT - charts.BOTTOM
    middle = ((charts.LEFT + right) / 2, (charts.TOP + bottom) / 2)
    assert points == [(charts.LEFT, bottom), pytest.approx(middle, abs=0.1), (right, charts.TOP)]


@pytest.mark.parametrize(
    ("kind", "values"),
    [("percent", v) for v in ([1.0, 1.0], [0.97], [0.0, 0.02], [0.5, 1.0])]
    + [("log", v) for v in ([1.0], [2.0, 2.0], [1e-9, 1e4], [7.3, 7.41])]
    + [("plain", v) for v in ([0.0, 0.0], [-3.0, 5.0], [-1.0], [1e-9, 1e4], [7.3, 7.41])],
)
def test_every_chart_stays_within_its_frame(kind: str, values: list[float]) -> None:
    line = charts.Line("a", np.arange(len(values)), np.array(values))
    drawn = charts.line_chart([line], "t", "x", percent=kind == "percent", log=kind == "log")
    ys = [float(p.split(",")[1]) for p in re.search(r'polyline[^>]*points="([^"]*)"', drawn)[1].split()]
    assert all(charts.TOP - 0.1 <= y <= charts.HEIGHT - charts.BOTTOM + 0.1 for y in ys)
    assert "nan" not in drawn


def test_what_charts_are_called_is_escaped() -> None:
    drawn = charts.line_chart([charts.Line("<b>", np.arange(2), np.arange(2))], '"><script>', "<i>")
    assert "<script>" not in drawn and "<i>" not in drawn
    assert "<b>" not in charts.legend([charts.Line("<b>", np.arange(2), np.arange(2))])


def test_a_step_that_was_written_twice_counts_once(tmp_path: Path) -> None:
    from torch.utils.tensorboard import SummaryWriter

    for run, steps in enumerate([(0, 1, 2), (2, 3)]):
        with SummaryWriter(str(tmp_path), filename_suffix=f".{run}") as writer:
            for step in steps:
                writer.add_scalar("stage1/loss", 10 * run + step, step, walltime=1e9 + 100 * run + step)
    steps, values = curves.read_scalars(tmp_path)["loss"]
    assert steps.tolist() == [0, 1, 2, 3] and values.tolist() == [0, 1, 12, 13]
    assert curves.charts(tmp_path / "nothing", "Stage 1") == []


# ---- the whole -------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path: Path, tower: Path) -> Run:
    return make_run(tmp_path, tower)


def content(run: Run, **changes: Any) -> page.Content:
    return page.gather(changes.get("settings", run.settings), run.folder, None, run.cache, Silent())


def test_without_descriptors_the_page_says_what_makes_them(run: Run) -> None:
    (run.folder / "descriptors.h5").unlink()
    made = content(run)
    assert made.lists is None and made.map is None and made.cases == [] and made.stats and made.curves
    assert f"csip evaluate --dataset figures --run {run.folder}" in " ".join(made.missing)
    (run.folder / "metrics.json").unlink()
    with pytest.raises(CsipError, match=r"metrics\.json: missing.*csip evaluate.*csip embed"):
        content(run)


def test_without_the_model_attention_is_left_out(run: Run) -> None:
    (run.folder / "stage2/model.safetensors").unlink()
    made = content(run)
    assert made.lists and made.cases == [] and made.model.rows == [] and "--model" in " ".join(made.missing)
    with pytest.raises(CsipError, match=r"elsewhere\.safetensors: missing"):
        page.gather(run.settings, run.folder, run.folder / "elsewhere.safetensors", run.cache, Silent())


def test_the_model_of_another_run_may_be_named(run: Run, tmp_path: Path) -> None:
    before = content(run).cases
    other = tmp_path / "other" / "stage2"
    other.parent.mkdir()
    (run.folder / "stage2").rename(other)
    for named in (other.parent, other, other / "model.safetensors"):
        made = page.gather(run.settings, run.folder, named, run.cache, Silent())
        assert made.cases == before and dict(made.model.rows)["File"] == str(other / "model.safetensors")


def test_descriptors_of_another_model_are_told(run: Run) -> None:
    from csip.retrieval.descriptors import write_descriptors

    write_descriptors(run.folder / "descriptors.h5", replace(run.descriptors, model="f" * 16))
    made = content(run)
    assert "another model than the metrics" in made.notes[0] and made.cases == []


def test_metrics_of_pictures_that_changed_are_refused(run: Run) -> None:
    path = run.folder / "metrics.json"
    scored = json.loads(path.read_text())
    path.write_text(json.dumps(scored | {"data": evaluation_data(run.dataset)}))
    content(run)
    frame = run.dataset.root / run.dataset.query[0].frames[0]
    frame.write_bytes((run.dataset.root / run.dataset.query[-1].frames[0]).read_bytes())
    with pytest.raises(
        CsipError, match=r"metrics\.json: query and gallery have changed .*\(pictures\); rerun `csip evaluate`"
    ):
        content(run)


def test_metrics_of_a_model_that_was_trained_since_are_told(run: Run) -> None:
    model = run.folder / "stage2/model.safetensors"
    tensors, description = load_model(model, "stage2")
    save_model(model, tensors, {**description, "revision": "of another day"})
    assert any("The metrics are of another model than" in note for note in content(run).notes)


def test_a_record_of_other_skeletons_is_not_shown(run: Run) -> None:
    record = {"estimator": "demo", "frames": 12345, "tracklets": 1, "invalid": 0, "frames_per_second": 1.0}
    rows = {}
    for digest in (SkeletonStore(run.cache).digest, "of others"):
        run.cache.with_suffix(".json").write_text(json.dumps(record | {"skeletons": digest}))
        rows[digest] = str(content(run).data)
    assert ["12,345" in text for text in rows.values()] == [True, False]


def test_files_of_another_data_set_or_damaged_ones_are_refused(run: Run) -> None:
    from csip.retrieval.descriptors import write_descriptors

    write_descriptors(run.folder / "descriptors.h5", replace(run.descriptors, dataset="others"))
    with pytest.raises(CsipError, match=r"descriptors\.h5: of data set others, not figures"):
        content(run)
    write_descriptors(run.folder / "descriptors.h5", run.descriptors)
    (run.folder / "metrics.json").write_text('{"dataset": ')
    with pytest.raises(CsipError, match=r"metrics\.json: damaged"):
        content(run)


def test_a_mistake_in_the_labels_is_an_error_and_no_page_without_pictures(run: Run) -> None:
    (run.dataset.root / "labels.csv").write_text("tracklet,person\nnobody,P1\n")
    with pytest.raises(CsipError, match=r"labels\.csv: line 2 is about tracklet nobody"):
        content(run)


def test_labels_that_nobody_has_looked_at_are_no_truth(run: Run) -> None:
    path = run.dataset.root / "labels.csv"
    write_labels(path, [(t.name, f"P{t.pid - 1}", 0.5) for t in (*run.dataset.train, *run.dataset.gallery)])
    assert any("nobody has corrected it" in note for note in content(run).notes)
    path.write_text(path.read_text().replace("0.500", "0.501"))
    assert not any("nobody has corrected it" in note for note in content(run).notes)


def test_cameras_have_the_names_that_people_gave_them(run: Run) -> None:
    made = content(run)
    assert {t["camera"] for t in made.tracklets} == {"cam1", "cam2"}
    assert {side["camera"] for case in made.cases for side in case["sides"]} <= {"cam1", "cam2"} and made.cases
    assert [row[0] for row in made.tables[0].rows] == ["cam1", "cam2"]
    assert dict(made.data.rows)["Cameras"] == "cam1, cam2"
    assert cards.camera_title(3, {}) == "camera 3" and cards.camera_title(3, {3: "7"}) == "camera 7"


def test_what_is_left_out_is_said(run: Run) -> None:
    class Heard(Silent):
        said: ClassVar[list[str]] = []

        def say(self, text: str) -> None:
            self.said.append(text)

    (run.folder / "stage2/model.safetensors").unlink()
    made = page.gather(run.settings, run.folder, None, run.cache, Heard())
    assert made.missing and set(made.missing) <= set(Heard.said)


def test_without_pictures_there_are_names(run: Run, tmp_path: Path) -> None:
    nowhere = run.settings.dataset.model_copy(update={"root": tmp_path / "gone"})
    made = content(run, settings=run.settings.model_copy(update={"dataset": nowhere}))
    assert {t["name"] for t in made.tracklets} >= {HOSTILE} and all(t["strip"] is None for t in made.tracklets)
    assert "no such folder" in " ".join(made.missing)


def test_frames_that_cannot_be_read_are_passed_over(run: Run) -> None:
    lost = run.dataset.query[3]
    for frame in lost.frames:
        (run.dataset.root / frame).write_bytes(b"no picture")
    made = content(run)
    strip = {t["name"]: t["strip"] for t in made.tracklets}
    assert strip.pop(lost.name) is None and all(strip.values())


@pytest.mark.parametrize("weights", ["vision/demo.safetensors", "vision/poses.safetensors"])
def test_demo_weights_on_real_people_are_told(run: Run, weights: str) -> None:
    settings = run.settings.model_dump(mode="json")
    demo = {**settings, "vision": {**settings["vision"], "pretrained": weights}}
    assert cards.demo_note(settings, None, rendered=False) is None
    assert cards.demo_note(demo, {"estimator": "demo"}, rendered=True) is None
    assert "image encoder made" in str(cards.demo_note(demo, {"estimator": "human3d"}, rendered=False))
    assert "pose estimator made" in str(cards.demo_note(settings, {"estimator": "demo"}, rendered=False))
    (run.dataset.root / "skeletons.json").write_text(
        json.dumps({"estimator": "demo", "frames": 5, "invalid": 0, "frames_per_second": 1.0})
    )
    assert any("rendered people alone" in note for note in content(run).notes)


def test_twins_are_told_by_the_trait_they_differ_in() -> None:
    def model(share: float) -> dict[str, object]:
        return {"strata": {"body": {"own_twin": share, "interval": [0.4, 0.9], "pairs": 3, "valid_queries": 9}}}

    scored = {"figures": model(0.75), "compared": {"chance": {"rank1": 0.1}, "before training": model(0.5)}}
    table = strata_table(scored)
    assert table is not None and table.head == ["twins differ in", "body"]
    assert table.rows == [["before training", "50.0 (40-90)"], ["trained", "75.0 (40-90)"]]
    assert "| trained | 75.0 (40-90) |" in _strata(scored)
    assert _strata({"figures": {}, "compared": {}}) == []


def test_a_second_look_at_a_test_world_is_told() -> None:
    assert looks_note({"test_looks": 2}).startswith("2 models of this seed")
    assert looks_note({"test_looks": 1}) == looks_note({"test_looks": None}) == looks_note({}) == ""


def test_backticks_are_code_and_nothing_else_is_markup() -> None:
    assert page.mark_code("run `a <b>` & <c>") == "run <code>a &lt;b&gt;</code> &amp; &lt;c&gt;"


def test_skeletons_alone_have_a_page(tmp_path: Path) -> None:
    window = {"rank1": 0.6, "rank5": 0.8, "rank10": 0.9, "rank20": 0.95, "map": 0.4, "probes": 36, "valid_probes": 36}
    row = {"window": window, "tracklet": window}
    scored = {
        "kind": "skeletons", "dataset": "kgbd <1>", "figures": row, "compared": {"chance": row, "bone lengths": row},
        "protocol": {"split": "split 3", "frames": 6, "probe_windows": 36, "gallery_windows": 72, "probe_sequences": 6},
        "seconds": 1.0, "model": "0" * 16,
    }  # fmt: skip
    text = page.write_skeletons(scored, tmp_path).read_text()
    assert "kgbd &lt;1&gt;" in text and "60.0<small>%</small>" in text and "bone lengths" in text
    assert 'id="ranked"' not in text and 'id="map"' not in text


def test_the_command_writes_both_reports(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "figures.yaml"
    (run.dataset.root / "skeletons.h5").unlink()
    config.write_text(dump_settings(run.settings))
    result = CliRunner().invoke(
        app, ["report", "--config", str(config), "--run", str(run.folder)], catch_exceptions=False
    )
    assert result.exit_code == 0 and "report.html" in result.output
    assert (run.folder / "report.md").read_text().startswith("# figures")
    text = (run.folder / "report.html").read_text()
    assert "<code>csip skeletons --test-too</code>" in text and not re.search(
        r"""(?:src|href)=["'](?:https?:)?//""", text
    )
    assert HOSTILE not in text
    assert not list(run.folder.glob(".*tmp"))


def test_settings_are_those_of_the_model(run: Run) -> None:
    made = content(run)
    assert Settings.model_validate(yaml.safe_load(made.model.text)) == run.settings
    facts = dict(made.model.rows)
    assert facts["Made by revision"] == TRAINED and facts["Seed"] == "0" and facts["Stage 1: time"].startswith("75 s")
    assert len(facts["Digest (SHA-256, first 16 digits)"]) == 16
