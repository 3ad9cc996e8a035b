from pathlib import Path

import pytest

from configs import CONFIGS
from csip.config import Settings, dump_settings, load_settings, valid_keys
from csip.errors import CsipError


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_settings_load_and_survive_a_round_trip(path: Path, tmp_path: Path) -> None:
    settings = load_settings(path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(dump_settings(settings))
    assert load_settings(copy) == settings


def test_overrides_win_over_the_file_and_keep_the_rest() -> None:
    plain = load_settings(CONFIGS / "demo.yaml")
    changed = load_settings(CONFIGS / "demo.yaml", ["stage1.epochs=3", "stage2.lr=1e-5", "vision.pretrained=null"])
    assert (changed.stage1.epochs, changed.stage2.lr, changed.vision.pretrained) == (3, 1e-5, None)
    assert changed.stage1.batch == plain.stage1.batch


def test_extends_states_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("dataset: {name: a, layout: mars}\nstage1: {epochs: 7, batch: 8}\n")
    (tmp_path / "mine.yaml").write_text("extends: base.yaml\nstage1: {epochs: 9}\n")
    settings = load_settings(tmp_path / "mine.yaml")
    assert (settings.dataset.layout, settings.stage1.epochs, settings.stage1.batch) == ("mars", 9, 8)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stage1.epoch=3", ["stage1.epoch: unknown key", "stage1.epochs"]),
        ("stage3.lr=1", ["stage3", "did you mean"]),
        ("stage1.epochs=many", ["stage1.epochs", "'many'"]),
        ("stage1.epochs=0", ["stage1.epochs", "greater than or equal to 1"]),
        ("stage2.decay_epochs=[50, 30]", ["stage2.decay_epochs must rise"]),
        ("dataset.layout=marz", ["dataset.layout", "'mars'"]),
        ("stage1.epochs", ["expected key=value"]),
        ("dataset.name.first=x", ["name is a value, not a section"]),
    ],
)
def test_bad_settings_are_named(override: str, words: list[str]) -> None:
    with pytest.raises(CsipError) as error:
        load_settings(CONFIGS / "demo.yaml", [override])
    for word in words:
        assert word in str(error.value)


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(CsipError, match=r"none.yaml: no such settings file"):
        load_settings(tmp_path / "none.yaml")
    for content in ("a: [", "- 1\n- 2\n"):
        (tmp_path / "bad.yaml").write_text(content)
        with pytest.raises(CsipError, match=r"bad.yaml"):
            load_settings(tmp_path / "bad.yaml")


def test_valid_keys_reach_every_leaf() -> None:
    keys = valid_keys(Settings)
    assert {"stage2.lambda_csip", "dataset.val_ids", "runtime.seed", "estimator"} <= set(keys)
