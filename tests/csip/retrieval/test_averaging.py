import json
from pathlib import Path

import pytest

from csip.errors import CsipError
from csip.retrieval.averaging import METRICS
from pipelines import average_runs as average
from pipelines.advice import advice

PROTOCOL = {"gallery": "without_queries", "level": "tracklet", "sampling": "dense", "gallery_tracklets": 150}


def make_run(root: Path, split: int | None, rank1: float, **protocol: object) -> Path:
    folder = root / f"split{split}-{rank1}"
    folder.mkdir()
    figures = dict.fromkeys(METRICS, rank1) | {"map": rank1 / 2}
    scored = {"dataset": "ilidsvid", "protocol": PROTOCOL | {"split": split} | protocol, "figures": figures}
    (folder / "metrics.json").write_text(json.dumps(scored))
    return folder


def test_mean_and_spread_of_the_divisions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [make_run(tmp_path, split, rank1) for split, rank1 in enumerate((0.8, 0.9, 1.0))]
    result = average.run(runs, tmp_path / "mean.json").as_dict()
    assert result["rank1"] == {"mean": pytest.approx(0.9), "std": pytest.approx(0.1), "min": 0.8, "max": 1.0}
    assert result["map"]["mean"] == pytest.approx(0.45) and result["map"]["std"] == pytest.approx(0.05)
    assert result["splits"] == [0, 1, 2] and json.loads((tmp_path / "mean.json").read_text()) == result
    printed = capsys.readouterr().out
    assert "90.0 ± 10.0" in printed and "mean of 3 runs" in printed
    assert average.run(runs[:1], None).metrics["rank1"].std == 0


def test_seeds_have_no_divisions(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, None, 0.5), make_run(tmp_path, None, 0.7)]
    assert average.run(runs, None).metrics["rank1"].mean == pytest.approx(0.6)


def test_runs_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    first = make_run(tmp_path, 0, 0.5)
    with pytest.raises(CsipError, match="one counts twice"):
        average.run([first, make_run(tmp_path, 0, 0.6)], None)
    with pytest.raises(CsipError, match=r"scored differently \(level\)"):
        average.run([first, make_run(tmp_path, 1, 0.7, level="clip")], None)
    with pytest.raises(CsipError, match=r"metrics\.json: missing") as refused:
        average.run([first, tmp_path / "nowhere"], None)
    assert advice(refused.value.parameter).startswith("; `csip evaluate")
    with pytest.raises(CsipError, match="at least one run"):
        average.run([], None)
    average.run([first, make_run(tmp_path, 2, 0.8, gallery_tracklets=149)], None)
