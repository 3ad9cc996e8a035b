"""Both stages, trained for seconds: what they write, what they refuse, and that being killed changes nothing."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import default_collate

import csip
from csip.config import Settings, load_settings
from csip.config.unread import PARTS
from csip.data.readers import load_dataset
from csip.data.skeletons import load_skeletons
from csip.errors import CsipError
from csip.models.checkpoints import load_model
from csip.models.vision import create_vision
from csip.monitor import Silent
from csip.runtime import make_fabric
from csip.training.clip_arrays import TrainingArrays
from csip.training.frame_features import frame_features
from csip.training.prototypes import prototypes, refresh_prototypes
from csip.training.run_folder import RunFolder, skeletons_of
from csip.training.stage1 import train_stage1
from csip.training.stage2 import prepare, train_stage2, train_step
from pipelines import evaluate_run
from pipelines.advice import advice
from pose_cache.store import SkeletonStore, write_store

PROJECT = Path(__file__).parents[3]
STAGES = {1: train_stage1, 2: train_stage2}


def train(stage: int, settings: Settings, folder: Path, overwrite: bool = False) -> dict:
    dataset = load_dataset(settings.dataset)
    skeletons = settings.dataset.path / "skeletons.h5"
    if stage == 1:
        return train_stage1(dataset, skeletons, settings, folder / "stage1", Silent(), overwrite).as_dict()
    return train_stage2(
        dataset, skeletons, folder / "stage1", settings, folder / "stage2", Silent(), overwrite
    ).as_dict()


def change(settings: Settings, section: str, **values: object) -> Settings:
    return settings.model_copy(update={section: getattr(settings, section).model_copy(update=values)})


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """A folder with both stages trained, made once."""
    made: dict[str, Path] = {}

    def make(settings: Settings) -> Path:
        if "folder" not in made:
            made["folder"] = tmp_path_factory.mktemp("trained")
            train(1, settings, made["folder"])
            train(2, settings, made["folder"])
        return made["folder"]

    return make


def test_stage1_learns_and_reports_retrieval_on_held_out_identities(settings: Settings, tmp_path: Path) -> None:
    settings = change(settings, "stage1", lr=2e-3, clips_per_tracklet=2)
    short = train(1, change(settings, "stage1", epochs=1), tmp_path / "short")
    long = train(1, change(settings, "stage1", epochs=40), tmp_path / "long")
    assert long["loss"] < short["loss"] - 0.15
    assert long["retrieval"]["queries"] == 8  # 2 held-out identities, 2 cameras, 2 walks each
    assert 0 <= long["retrieval"]["map"] <= 1
    tensors, description = load_model(tmp_path / "long" / "stage1" / "model.safetensors", "stage1")
    assert description["joint_set"] == "h36m17" and description["dataset"] == "walkers"
    assert float(tensors["encoder.scale"]) == pytest.approx(0.35, abs=0.2), (
        "metres: about a third of one from the pelvis"
    )


def test_stage2_chooses_its_epoch_on_held_out_identities(trained, settings: Settings) -> None:
    folder = trained(settings)
    figures = json.loads((folder / "stage2" / "metrics.json").read_text())
    assert {"ce", "triplet", "csip", "frame", "distill"} <= figures.keys()
    best = max(figures["validation"], key=lambda score: (score["map"], score["epoch"]))
    assert figures["chosen_epoch"] == best["epoch"]
    model: Any = csip.load(folder, "cpu")
    assert model.camera_rows == {1: 0, 2: 1} and len(model.network.vision.camera_embedding) == 2
    assert not (folder / "stage2" / "state.pt").exists() and not (folder / "stage2" / "best.pt").exists()


def test_a_clip_passes_the_files_of_the_walk_and_no_other(trained, settings: Settings, tmp_path: Path) -> None:
    """From its pixels on disk to the gradient of the loss, as docs/architecture.md lists them."""
    dataset, skeletons = load_dataset(settings.dataset), settings.dataset.path / "skeletons.h5"
    training = prepare(dataset, skeletons, trained(settings) / "stage1", settings, tmp_path / "walk", Silent(), False)
    draws = training.sampler.batches[0]
    passed = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        file = Path(frame.f_code.co_filename)
        if (
            event == "call"
            and file.is_relative_to(PROJECT)
            and file.relative_to(PROJECT).parts[0] in ("csip", "pose_cache")
        ):
            passed.add(file.relative_to(PROJECT).as_posix())

    sys.setprofile(note)
    try:
        batch = default_collate([training.loader.dataset[draw] for draw in draws])
        train_step(training, training.fabric.to_device(batch))
    finally:
        sys.setprofile(None)
    walk = (PROJECT / "docs/architecture.md").read_text().partition("## One clip")[2].partition("\n## ")[0]
    assert passed == set(re.findall(r"^\| *\d+ \| \[`[\w.:]+`\]\(\.\./([^)]+)\)", walk, re.MULTILINE))


class _Stop(Exception):
    pass


class _StopAfter(Silent):
    """Fails the run once an epoch is reported, as a power cut would."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        if task.startswith("stage") and done == self.epoch:
            raise _Stop


@pytest.mark.parametrize("stage", [1, 2])
def test_stopped_training_resumes_to_the_same_weights(stage: int, trained, settings: Settings, tmp_path: Path) -> None:
    whole = trained(settings)
    dataset, skeletons = load_dataset(settings.dataset), settings.dataset.path / "skeletons.h5"
    inputs = (dataset, skeletons) if stage == 1 else (dataset, skeletons, whole / "stage1")
    with pytest.raises(_Stop):
        STAGES[stage](*inputs, settings, tmp_path / "cut", _StopAfter(2))
    assert (tmp_path / "cut" / "state.pt").exists()
    STAGES[stage](*inputs, settings, tmp_path / "cut", Silent())
    one, _ = load_model(whole / f"stage{stage}" / "model.safetensors", f"stage{stage}")
    two, _ = load_model(tmp_path / "cut" / "model.safetensors", f"stage{stage}")
    assert one.keys() == two.keys()
    for name in one:
        assert torch.equal(one[name], two[name]), name


@pytest.mark.slow
def test_killed_training_resumes_to_the_same_weights(trained, settings: Settings, tmp_path: Path) -> None:
    whole = trained(settings)
    program = tmp_path / "program.py"
    (tmp_path / "settings.pkl").write_bytes(pickle.dumps(settings.model_dump(mode="json")))
    program.write_text(f"""
import pickle, sys, torch
from pathlib import Path
from types import FrameType
torch.set_num_threads(1)
import csip
from csip.config import Settings, load_settings
from csip.config.unread import PARTS
from csip.data.readers import load_dataset
from csip.monitor import Silent
from csip.training.stage2 import prepare, train_stage2, train_step
from pipelines.advice import advice
settings = Settings.model_validate(pickle.loads(Path({str(tmp_path / "settings.pkl")!r}).read_bytes()))
class Talk(Silent):
    def progress(self, task, done, total, note=""):
        print(task, done, flush=True)
dataset = load_dataset(settings.dataset)
train_stage2(dataset, settings.dataset.path / "skeletons.h5", Path({str(whole / "stage1")!r}), settings,
             Path({str(tmp_path / "killed")!r}), Talk())
""")
    process = subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("stage 2 1"):
            time.sleep(0.05)  # into the second epoch
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    subprocess.run([sys.executable, str(program)], check=True, stdout=subprocess.DEVNULL)
    one, _ = load_model(whole / "stage2" / "model.safetensors", "stage2")
    two, _ = load_model(tmp_path / "killed" / "model.safetensors", "stage2")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_stage1_resumes_whatever_becomes_of_settings_that_it_does_not_read(
    trained, settings: Settings, tmp_path: Path
) -> None:
    dataset, skeletons = load_dataset(settings.dataset), settings.dataset.path / "skeletons.h5"
    with pytest.raises(_Stop):
        train_stage1(dataset, skeletons, settings, tmp_path / "cut", _StopAfter(1))
    with pytest.raises(CsipError, match=r"an unfinished run with other inputs is here \(stage1\.tau"):
        train_stage1(dataset, skeletons, change(settings, "stage1", tau=0.5), tmp_path / "cut", Silent())
    other = change(settings, "stage2", margin=0.5)
    train_stage1(dataset, skeletons, other, tmp_path / "cut", Silent())
    one, _ = load_model(trained(settings) / "stage1/model.safetensors", "stage1")
    two, described = load_model(tmp_path / "cut/model.safetensors", "stage1")
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert described["settings"] == other.model_dump(mode="json")
    assert load_settings(tmp_path / "cut/config.yaml").stage2.margin == 0.5


def test_settings_of_parts_that_are_off_change_nothing(settings: Settings, tmp_path: Path) -> None:
    parts = {name: False for name in ("update_prototypes", "mte", "atd", "ta", "predict_skeletons")}
    off = change(settings, "stage2", lambda_distill=0.0, epochs=1, **parts)
    others = {
        "update_tokens": "all", "detach_tokens": False, "prototype_attention": "induced", "prototype_heads": 2,
        "prototype_layers": 1, "project_prototypes": True, "detach_visual": False, "temporal_heads": 2, "share_classifier": True,
        "frame_position": False, "temporal_residual": True, "lambda_frame": 3.0, "dropout": 0.2, "reader_steps": 7,
    }  # fmt: skip
    listed = {key.removeprefix("stage2.") for part in PARTS for key in part.keys if key.startswith("stage2.")}
    assert listed == others.keys() and all(getattr(off.stage2, name) != value for name, value in others.items())
    train(1, off, tmp_path)
    trained = []
    for stage2 in (off, change(off, "stage2", **others)):
        train(2, stage2, tmp_path, overwrite=True)
        tensors, _ = load_model(tmp_path / "stage2/model.safetensors", "stage2")
        # The updater's layers are there all the same, untrained.
        trained.append({name: tensor for name, tensor in tensors.items() if not name.startswith("pfu.layers")})
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0].keys() & trained[1].keys())
    assert {"heads.0.classifier.weight", "pfu.visual"} <= trained[0].keys() & trained[1].keys()


def test_a_run_killed_as_it_finished_loses_its_state_to_the_next_start(settings: Settings, tmp_path: Path) -> None:
    fabric = make_fabric(settings.runtime)
    run = RunFolder(tmp_path / "run", settings, {})
    run.open(overwrite=False, fabric=fabric)
    run.save_state({"progress": {}})
    run.finish({"weight": torch.zeros(2)}, {"kind": "stage1"}, {})
    run.save_state({"progress": {}})  # as if it had been killed before this was removed
    with pytest.raises(CsipError, match="this run has finished"):
        run.open(overwrite=False, fabric=fabric)
    assert sorted(path.name for path in run.path.iterdir()) == [
        "config.yaml", "inputs.json", "metrics.json", "model.safetensors"
    ]  # fmt: skip


def test_a_run_is_not_overwritten_by_accident(trained, settings: Settings, tmp_path: Path) -> None:
    folder = trained(settings)
    with pytest.raises(CsipError, match="this run has finished; overwrite it"):
        train(1, settings, folder)
    dataset, skeletons = load_dataset(settings.dataset), settings.dataset.path / "skeletons.h5"
    with pytest.raises(_Stop):
        train_stage1(dataset, skeletons, settings, tmp_path / "cut", _StopAfter(1))
    other = change(settings, "stage1", lr=1e-3)
    with pytest.raises(CsipError, match=r"stage1\.lr: 0\.00035 there, 0\.001 here"):
        train_stage1(dataset, skeletons, other, tmp_path / "cut", Silent())
    train_stage1(dataset, skeletons, other, tmp_path / "cut", Silent(), overwrite=True)


def test_stage2_needs_the_stage1_of_its_data(trained, settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(CsipError, match=r"stage1/model.safetensors: missing") as refused:
        train(2, settings, tmp_path)
    assert advice(refused.value.parameter).startswith("; `csip train-stage1`")
    other = change(settings, "dataset", val_ids=0)
    dataset, skeletons = load_dataset(other.dataset), other.dataset.path / "skeletons.h5"
    with pytest.raises(CsipError, match="trained on other tracklets"):
        train_stage2(dataset, skeletons, trained(settings) / "stage1", other, tmp_path / "stage2", Silent())


def test_skeletons_that_changed_are_other_data(trained, settings: Settings, tmp_path: Path) -> None:
    dataset, skeletons = load_dataset(settings.dataset), settings.dataset.path / "skeletons.h5"
    with SkeletonStore(skeletons) as store:
        kept = [store.read(name) for name in store.names]
        changed = [replace(kept[0], joints=kept[0].joints * 1.1), *kept[1:]]
        write_store(tmp_path / "skeletons.h5", changed, store.provenance)
    with pytest.raises(
        CsipError, match=r"stage 1 was trained on other data than data set walkers .* their skeletons; train"
    ):
        train_stage2(
            dataset, tmp_path / "skeletons.h5", trained(settings) / "stage1", settings, tmp_path / "stage2", Silent()
        )
    with pytest.raises(_Stop):
        train_stage1(dataset, skeletons, settings, tmp_path / "cut", _StopAfter(1))
    with pytest.raises(CsipError, match=r"an unfinished run with other inputs is here \(data\.skeletons: \w+ there"):
        train_stage1(dataset, tmp_path / "skeletons.h5", settings, tmp_path / "cut", Silent())
    assert skeletons_of(tmp_path / "cut") == skeletons.absolute()


def test_a_model_of_other_training_data_is_refused_or_scored_as_such(
    trained, settings: Settings, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(trained(settings), run)
    with SkeletonStore(settings.dataset.path / "skeletons.h5") as store:
        kept = [store.read(name) for name in store.names]
        write_store(tmp_path / "now.h5", [replace(kept[0], joints=kept[0].joints * 2), *kept[1:]], store.provenance)
    inputs = json.loads((run / "stage2/inputs.json").read_text())
    (run / "stage2/inputs.json").write_text(json.dumps(inputs | {"places": {"skeletons": str(tmp_path / "now.h5")}}))
    quick = change(settings, "evaluation", bootstrap=0, compare_untrained=False)
    with pytest.raises(
        CsipError, match="trained on other data than data set walkers holds now; changed: their skeletons"
    ):
        evaluate_run.run(quick, run, cross_dataset=False)
    evaluate_run.run(quick, run, cross_dataset=True)
    (tmp_path / "now.h5").unlink()
    evaluate_run.run(quick, run, cross_dataset=False)


def test_a_clip_that_would_be_alone_joins_the_batch_before(settings: Settings) -> None:
    dataset = load_dataset(settings.dataset)
    skeletons = load_skeletons(settings.dataset.path / "skeletons.h5", dataset.train)
    features = [np.zeros((len(t.frames), 4), np.float32) for t in dataset.train]
    clips = TrainingArrays.of(dataset.train, features, skeletons, settings, torch.device("cpu"))
    per_camera = sum(t.camera == dataset.train[0].camera for t in dataset.train)
    for batches, batch in (("random", len(dataset.train) - 1), ("camera", per_camera - 1)):
        chosen = change(settings, "stage1", batches=batches, batch=batch, clips_per_tracklet=1)
        sizes = [len(rows) for rows, _ in clips.draw(chosen, epoch=0)]
        assert sum(sizes) == len(dataset.train) and set(sizes) == {batch + 1}
        assert clips.alone(chosen) == []
    lone = replace(clips, cameras=np.where(np.arange(len(dataset.train)) == 0, 9, 1))
    chosen = change(settings, "stage1", batches="camera", batch=4, clips_per_tracklet=1)
    assert lone.alone(chosen) == [9]
    assert sum(len(rows) for rows, _ in lone.draw(chosen, epoch=0)) == len(dataset.train) - 1


def test_a_loss_that_is_no_number_is_named(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(CsipError, match=r'stage 1, epoch 1, step \d+: loss term "contrastive" is non-finite \(nan\)'):
        train(1, change(settings, "stage1", lr=1e30, warmup_epochs=0), tmp_path)


def test_cached_features_equal_computed_ones_and_a_stale_cache_is_not_used(settings: Settings, tmp_path: Path) -> None:
    dataset = load_dataset(settings.dataset)
    torch.manual_seed(0)
    vision = create_vision(settings.vision.model, None, (64, 32)).eval()
    arguments = (vision, dataset.root, dataset.train, settings, make_fabric(settings.runtime))
    computed = frame_features(tmp_path / "f.h5", *arguments, Silent())

    class Count(Silent):
        calls = 0

        def progress(self, *_: object) -> None:
            self.calls += 1

    again = Count()
    cached = frame_features(tmp_path / "f.h5", *arguments, again)
    assert again.calls == 0
    assert all(np.array_equal(a, b) for a, b in zip(computed, cached, strict=True))
    assert [len(f) for f in cached] == [len(t.frames) for t in dataset.train]
    assert not any(f.flags.owndata or f.flags.writeable for f in cached), "mapped from the file"
    with torch.no_grad():
        vision.visual.proj.mul_(2)
    doubled = frame_features(tmp_path / "f.h5", *arguments, again)
    assert again.calls > 0
    np.testing.assert_allclose(doubled[0], 2 * computed[0], rtol=1e-5, atol=1e-6)


def test_prototypes_are_means_by_identity(settings: Settings) -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(7, 5)).astype(np.float32), np.array([0, 2, 1, 2, 0, 1, 2])
    plain = prototypes(features, labels, change(settings, "stage1", normalize=False))
    for label in range(3):
        np.testing.assert_allclose(plain[label], features[labels == label].mean(axis=0), rtol=1e-5)
    assert torch.allclose(prototypes(features, labels, settings).norm(dim=1), torch.ones(3))
    with pytest.raises(CsipError, match="no tracklet for label 1"):
        prototypes(features[:2], labels[:2], settings)


def test_refreshed_prototypes_are_the_mean_direction_of_old_and_new(trained, settings: Settings) -> None:
    model: Any = csip.load(trained(settings), "cpu").network
    dataset = load_dataset(settings.dataset)
    train = [t for t in dataset.train if t.pid in sorted({t.pid for t in dataset.train})[: len(model.pfu.visual)]]
    labels = np.array([sorted({t.pid for t in train}).index(t.pid) for t in train])
    old = torch.randn(model.pfu.visual.shape, generator=torch.Generator().manual_seed(0))

    def refreshed(momentum: float) -> torch.Tensor:
        model.pfu.set_prototypes(old, model.pfu.skeleton)
        chosen = change(settings, "stage2", prototype_momentum=momentum)
        refresh_prototypes(model, dataset.root, train, labels, chosen, make_fabric(settings.runtime), Silent())
        return torch.nn.functional.normalize(model.pfu.visual, dim=1)

    half = refreshed(0.0) + torch.nn.functional.normalize(old, dim=1)
    torch.testing.assert_close(refreshed(0.5), torch.nn.functional.normalize(half, dim=1))


def test_skeletons_pair_with_frames_by_name(settings: Settings) -> None:
    from dataclasses import replace

    dataset = load_dataset(settings.dataset)
    path = settings.dataset.path / "skeletons.h5"
    plain = load_skeletons(path, dataset.train[:1])
    backwards = load_skeletons(path, [replace(dataset.train[0], frames=dataset.train[0].frames[::-1])])
    assert np.array_equal(plain.joints[0], backwards.joints[0][::-1])
    assert np.abs(plain.joints[0][:, 0]).max() == 0, "root-centred"
    stranger = load_skeletons(path, [replace(dataset.train[0], frames=(*dataset.train[0].frames, "new.jpg"))])
    assert stranger.valid[0].tolist() == [True] * 6 + [False]
    with pytest.raises(CsipError, match=r"no skeletons for 1 of 1 tracklets, e\.g\. nobody"):
        load_skeletons(path, [replace(dataset.train[0], name="nobody")])


def test_frequencies_without_a_time_step_are_refused(settings: Settings, tmp_path: Path) -> None:
    chosen = change(settings, "skeleton_encoder", frequencies=4)
    dataset = load_dataset(settings.dataset)
    with pytest.raises(CsipError, match=r"skeleton_encoder\.frequencies is 4: expected clips\.stride"):
        train_stage1(dataset, settings.dataset.path / "skeletons.h5", chosen, tmp_path / "run", Silent())
    assert not (tmp_path / "run").exists()


def test_frequencies_keep_the_time_step_that_stage1_saw_them_at(settings: Settings, tmp_path: Path) -> None:
    chosen = change(change(settings, "skeleton_encoder", frequencies=4), "stage1", epochs=1)
    train(1, change(chosen, "clips", stride=2), tmp_path)
    for stride in (1, None):
        with pytest.raises(CsipError, match=rf"stage1/model\.safetensors: .* expected clips\.stride=2, found {stride}"):
            train(2, change(chosen, "clips", stride=stride), tmp_path)
    assert not (tmp_path / "stage2").exists()


def test_batches_of_identities_that_look_alike(settings: Settings) -> None:
    """Four clips of each identity, two that look alike beside each other, and every tracklet drawn."""
    dataset = load_dataset(settings.dataset)
    skeletons = load_skeletons(settings.dataset.path / "skeletons.h5", dataset.train)
    people = sorted({t.pid for t in dataset.train})
    pair_of = {pid: np.eye(len(people), dtype=np.float32)[index // 2] for index, pid in enumerate(people)}
    noise = np.random.default_rng(0).normal(0, 0.01, len(people)).astype(np.float32)
    features = [np.tile(pair_of[t.pid] + noise, (len(t.frames), 1)) for t in dataset.train]
    chosen = change(settings, "stage1", batches="alike", batch=8)
    clips = TrainingArrays.of(dataset.train, features, skeletons, chosen, torch.device("cpu"))
    tracklet_of = np.repeat(np.arange(len(dataset.train)), clips.lengths)
    drawn = [(tracklet_of[rows], labels.tolist()) for rows, labels in clips.draw(chosen, epoch=0)]
    assert drawn
    for rows, labels in drawn:
        assert len(rows) == len(labels) == 8 and labels == clips.labels[rows[:, 0]].tolist()
        first, second = set(labels[:4]), set(labels[4:])
        assert len(first) == len(second) == 1 and first != second
        assert {label // 2 for label in first} == {label // 2 for label in second}
    assert {int(row) for rows, _ in drawn for row in rows[:, 0]} == set(range(len(dataset.train)))
    again = [(tracklet_of[rows], labels.tolist()) for rows, labels in clips.draw(chosen, epoch=0)]
    assert all((a[0] == b[0]).all() and a[1] == b[1] for a, b in zip(drawn, again, strict=True))


def test_batches_of_one_camera_hold_every_clip_once(settings: Settings) -> None:
    dataset = load_dataset(settings.dataset)
    skeletons = load_skeletons(settings.dataset.path / "skeletons.h5", dataset.train)
    features = [np.zeros((len(t.frames), 4), np.float32) for t in dataset.train]
    clips = TrainingArrays.of(dataset.train, features, skeletons, settings, torch.device("cpu"))
    tracklet_of = np.repeat(np.arange(len(dataset.train)), clips.lengths)
    for batches in ("random", "camera"):
        chosen = settings.model_copy(
            update={
                "stage1": settings.stage1.model_copy(update={"batches": batches, "batch": 5, "clips_per_tracklet": 2})
            }
        )
        drawn = [tracklet_of[rows] for rows, _ in clips.draw(chosen, epoch=0)]
        assert all((one == one[:, :1]).all() for one in drawn), "a clip is of one tracklet"
        cameras = [{dataset.train[i].camera for i in one[:, 0]} for one in drawn]
        assert (max(map(len, cameras)) == 1) == (batches == "camera")
        counts = np.bincount(np.concatenate([one[:, 0] for one in drawn]), minlength=len(dataset.train))
        left_out = 2 * len(dataset.train) - counts.sum()  # a batch of one clip has no contrast
        assert counts.max() <= 2 and left_out <= len({t.camera for t in dataset.train})
