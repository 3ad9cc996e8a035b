from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from csip.config import Settings, dump_settings, load_settings, valid_keys
from csip.config.unread import PARTS
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
    plain = load_settings(CONFIGS / "rendered.yaml")
    changed = load_settings(CONFIGS / "rendered.yaml", ["stage1.epochs=3", "stage2.lr=1e-5", "vision.pretrained=null"])
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
        ("stage1.epochs=many", ['stage1.epochs: expected an integer >= 1, found "many"']),
        ("stage1.epochs=0", ["stage1.epochs: expected an integer >= 1, found 0"]),
        ("stage2.decay_epochs=[50, 30]", ["stage2.decay_epochs must rise"]),
        ("stage2.atd=true", ["stage2.atd distils message tokens", "set stage2.atd: false or mte: true"]),
        (
            "stage2.lambda_distill=1",
            ["stage2.lambda_distill is of temporal modelling", "stage2.mte or stage2.ta: true"],
        ),
        ("stage2.train_skeleton_encoder=true", ["nothing would train it", "stage2.update_prototypes, mte or ta"]),
        ("dataset.layout=marz", ["dataset.layout: expected one of mars, lsvid", 'found "marz"; did you mean mars?']),
        ("stage1.epochs", ["expected key=value"]),
        ("dataset.name.first=x", ["name is a value, not a section"]),
    ],
)
def test_bad_settings_are_named(override: str, words: list[str]) -> None:
    with pytest.raises(CsipError) as error:
        load_settings(CONFIGS / "rendered.yaml", [override])
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
    ("mars", 80, (29, 49, 69)), ("lsvid", 80, (29, 49, 69)), ("ilidsvid", 60, (29, 49)),
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
    # They count epochs from 1: a rise from .1 in ten epochs starts at .19, and the rate falls at 30, 50 and 70.
    assert (two.epochs, two.decay_epochs, two.warmup_epochs, two.warmup_start) == (epochs, decay, 9, 0.19)
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
    with pytest.raises(CsipError, match=r"common\.yaml: 1 setting.*\n.*dataset: required"):
        load_settings(CONFIGS / "paper" / "common.yaml")
    assert load_settings(CONFIGS / "paper" / "common.yaml", ["dataset.name=mine"]).stage2.fusion == "gate"


# What a person may call a data set, a folder, a file: YAML, spreadsheets, consoles and shells see something else in these.
AWKWARD = [
    "people #2", "2024-11-25", "2024", "no", "1e3", "[old] people", "a: b", "null", "~", "a=b", "-1", "0x1F", "1_000", "true",
    "{a}", "'quoted'", '"x"', "!tag", "*alias", "%", "@home", "007", "12:30", " leading", "ünï", "名前",
]  # fmt: skip
TEXTS = st.one_of(
    st.sampled_from(AWKWARD), st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)
)


@settings(max_examples=60, deadline=None)
@given(name=TEXTS, root=TEXTS, model=TEXTS, weights=TEXTS.filter(lambda text: text != "null"))
@example(name="null", root="null", model="null", weights="~")
def test_names_and_paths_are_taken_as_they_stand(name: str, root: str, model: str, weights: str) -> None:
    texts = {"dataset.name": name, "dataset.root": root, "vision.model": model, "vision.pretrained": weights}
    for overrides in ([f"{key}={text}" for key, text in texts.items()], list(texts.items())):
        settings = load_settings(CONFIGS / "rendered.yaml", overrides)
        assert settings.dataset.name == name
        assert settings.dataset.root == Path(root)
        assert (settings.vision.model, settings.vision.pretrained) == (model, weights)


@settings(max_examples=40, deadline=None)
@given(name=TEXTS, root=TEXTS)
def test_names_and_paths_survive_a_settings_file(
    name: str, root: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = load_settings(CONFIGS / "rendered.yaml", [("dataset.name", name), ("dataset.root", root)])
    file = tmp_path_factory.mktemp("settings") / "settings.yaml"
    file.write_text(dump_settings(settings))
    assert load_settings(file) == settings


@pytest.mark.parametrize(
    "text", ["2024", "2024-11-25", "2024-13-45", "no", "0x1F", "010", "1_000", "1e3", "1.50", "12:30"]
)
def test_yaml_leaves_names_alone(text: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(f"dataset:\n  name: {text}\n  root: {text}\nvision: {{model: {text}}}\n")
    settings = load_settings(file)
    assert (settings.dataset.name, settings.dataset.root, settings.vision.model) == (text, Path(text), text)


def test_null_unsets_what_may_be_unset() -> None:
    unset = ["vision.pretrained=null", "stage2.ema=null", "stage2.clip_gradient=~", "dataset.piece_frames=null"]
    settings = load_settings(CONFIGS / "mars.yaml", unset)
    assert settings.vision.pretrained is settings.stage2.ema is settings.stage2.clip_gradient is None
    assert settings.dataset.piece_frames is None
    assert load_settings(CONFIGS / "mars.yaml", ["vision.pretrained=~"]).vision.pretrained == "~"


def test_numbers_lists_and_sections_are_parsed() -> None:
    changes = [
        "stage1.epochs=010", "stage1.lr=1e-3", "stage2.decay_epochs=[3, 4]", "clips.mean=[0.1, 0.2, 1e-1]", "stage2.mte= yes",
        "skeleton_training={encoder: window, contrast: 0, classifier: 1}",
        "skeleton_training.window={width: 64, joints: off}", "dataset={val_ids: 3}",
    ]  # fmt: skip
    settings = load_settings(CONFIGS / "rendered.yaml", changes)
    assert (settings.stage1.epochs, settings.stage1.lr, settings.stage2.mte) == (10, 1e-3, True)
    assert (settings.stage2.decay_epochs, settings.clips.mean) == ((3, 4), (0.1, 0.2, 0.1))
    assert (settings.skeleton_training.window.width, settings.skeleton_training.window.joints) == (64, False)
    assert (settings.dataset.name, settings.dataset.val_ids) == ("rendered", 3), "a section's other settings stay"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("clips: {frames: eight}", 'clips.frames: expected an integer >= 1, found "eight"'),
        ("clips: {frames: 7.5}", "clips.frames: expected an integer >= 1, found 7.5"),
        ("clips: {frames: yes}", "clips.frames: expected an integer >= 1, found true"),
        ("clips: {mean: [0.1, x, 0.3]}", 'clips.mean: expected a list of 3 numbers, found [0.1, "x", 0.3]'),
        ("clips: {mean: [0.1]}", "clips.mean: expected a list of 3 numbers, found [0.1]"),
        ("stage1: {lr: .inf}", "stage1.lr: expected a number > 0, found Infinity"),
        ("stage1: {lr: .nan}", "stage1.lr: expected a number > 0, found NaN"),
        ("stage2: {ema: 1}", "stage2.ema: expected a number > 0 and < 1 or null, found 1"),
        ("stage1: 5", "stage1: expected a section (keys and values), found 5"),
        ("stage1:", "stage1: expected a section (keys and values), found null"),
        ("stage2: {fusion: wait}", 'stage2.fusion: expected one of weight, gate, found "wait"; did you mean weight?'),
        ("vision: {model: [a]}", 'vision.model: expected text, found ["a"]'),
        ("vision: {model: ''}", 'vision.model: expected text, found ""'),
        ("stage1: {epochs: 3}\nstage1: {batch: 8}", "key stage1 stands twice, in lines 2 and 3"),
        ("extends: settings.yaml", "extends itself"),
        ("extends: 5", "extends: expected a settings file, found 5"),
        ("5: {a: b}", "5: unknown key"),
        ("? [a, b]\n: c", "not a YAML file"),
    ],
)
def test_values_of_a_file_that_cannot_be_used(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text(f"dataset: {{name: x}}\n{content}\n")
    with pytest.raises(CsipError) as error:
        load_settings(tmp_path / "settings.yaml")
    assert message in str(error.value)
    assert str(tmp_path / "settings.yaml") in str(error.value)


@pytest.mark.parametrize(
    ("name", "override", "without"),
    [
        ("rendered", "stage2.update_tokens=all", "stage2.update_prototypes=true"),
        ("rendered", "stage2.frame_position=false", "stage2.mte=true or stage2.ta=true"),
        ("rendered", "stage2.dropout=0.1", "stage2.update_prototypes=true, stage2.mte=true or stage2.ta=true"),
        ("presets/small", "stage2.reader_steps=5", "stage2.predict_skeletons=true"),
        ("kgbd", "skeleton_training.width=64", "skeleton_training.encoder=graph"),
        ("kgbd", "skeleton_training.tau_frame=1", "skeleton_training.contrast=1"),
        ("rendered", "skeleton_training.window.depth=1", "skeleton_training.encoder=window"),
        ("rendered", "skeleton_training.margin=0.1", "skeleton_training.classifier=1"),
        ("rendered", "evaluation.rerank_k1=5", "evaluation.rerank=true"),
    ],
)
def test_an_override_that_nothing_reads_is_refused(name: str, override: str, without: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(
        CsipError, match=f"1 override.* would change nothing\n  {key}: nothing reads it without {without}$"
    ):
        load_settings(CONFIGS / f"{name}.yaml", [override])
    turn_on = without.replace(" or ", ", ").split(", ")[-1]
    too = {
        "skeleton_training.window.depth": ["skeleton_training.contrast=0", "skeleton_training.classifier=1"],
        "skeleton_training.tau_frame": ["skeleton_training.encoder=graph"],
    }
    load_settings(CONFIGS / f"{name}.yaml", [override, turn_on, *too.get(key, [])])


def test_settings_that_nothing_reads_may_stand_in_a_file_and_name_settings_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("dataset: {name: mine}\nstage2: {update_tokens: all}\n")
    assert load_settings(tmp_path / "mine.yaml").stage2.update_tokens == "all"
    keys = valid_keys()
    assert all(own in keys for part in PARTS for own in part.keys)
