from pathlib import Path

import pytest

from csip.config import Settings, dump_settings, load_settings, valid_keys
from csip.errors import CsipError
from pose_cache.shipped import CONFIGS

SHIPPED = sorted({*CONFIGS.glob("*.yaml"), *CONFIGS.glob("p[ar]*/*.yaml")} - {CONFIGS / "paper/common.yaml"})


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")
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
        ("stage2.mte=false", ["stage2.atd distils message tokens", "set stage2.atd: false too"]),
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


@pytest.mark.parametrize(("name", "epochs", "decay"), [
    ("mars", 80, (30, 50, 70)), ("lsvid", 80, (30, 50, 70)), ("ilidsvid", 60, (30, 50)),
])  # fmt: skip
def test_paper_presets_are_what_the_authors_ran(name: str, epochs: int, decay: tuple[int, ...]) -> None:
    settings = load_settings(CONFIGS / "paper" / f"{name}.yaml")
    assert (settings.dataset.name, settings.dataset.layout, settings.dataset.val_ids) == (name, name, 0)
    one, two, clips = settings.stage1, settings.stage2, settings.clips
    assert (settings.vision.model, settings.vision.pretrained) == ("ViT-B-16", "openai")
    assert (clips.frames, clips.height, clips.width, clips.flip, clips.erase) == (8, 256, 128, 0.5, 0.5)
    assert (one.batch, one.lr, one.weight_decay, one.epochs, one.min_lr, one.warmup_epochs) == (
        64, 3.5e-4, 1e-4, 120, 1e-6, 5
    )  # fmt: skip
    assert (one.normalize, one.tau) == (False, 1.0)
    encoder = settings.skeleton_encoder
    assert (encoder.depth, encoder.heads, encoder.mlp_ratio, encoder.dropout, encoder.positions) == (
        10,
        8,
        2.0,
        0.3,
        10,
    )
    assert not encoder.temporal
    assert (two.epochs, two.decay_epochs, two.warmup_epochs) == (epochs, decay, 10)
    assert (two.ids_per_batch, two.tracklets_per_id, two.batches) == (4, 4, "random")
    assert (two.lr, two.new_lr_factor, two.bias_lr_factor, two.weight_decay) == (5e-6, 10, 2, 1e-4)
    assert (two.lambda_ce, two.lambda_triplet, two.lambda_csip, two.lambda_frame) == (0.25, 1.0, 1.0, 1.3 / 8)
    assert (two.smoothing, two.margin, two.lambda_distill, two.prototype_momentum) == (0.1, 0.3, 0.0, None)
    assert (two.fusion, two.update_tokens, two.detach_visual, two.train_skeleton_encoder) == (
        "gate",
        "all",
        True,
        False,
    )
    assert (two.camera_embedding, two.frame_position, two.temporal_heads) == (True, False, 8)


def test_the_paper_needs_a_data_set() -> None:
    with pytest.raises(CsipError, match=r"common\.yaml: 1 setting.*\n.*dataset: Field required"):
        load_settings(CONFIGS / "paper" / "common.yaml")
    assert load_settings(CONFIGS / "paper" / "common.yaml", ["dataset.name=mine"]).stage2.fusion == "gate"
