"""Runs that people can rely on: stopped within an epoch, shared by processes, averaged, clipped."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from monitors import Heard
from torch.optim.swa_utils import AveragedModel

from csip.config import Settings
from csip.data.readers import load_dataset
from csip.data.samplers import IdentityBatches
from csip.errors import CsipError
from csip.files import digest
from csip.models.checkpoints import load_model
from csip.models.factory import restore
from csip.models.vision import create_vision
from csip.monitor import Silent
from csip.runtime import make_fabric
from csip.training import frame_features as feature_cache
from csip.training import stage2
from csip.training.frame_features import frame_features
from csip.training.stage1 import embed_training_frames, fill_features, train_stage1
from csip.training.stage2 import train_stage2
from pose_cache.errors import PoseCacheError
from pose_cache.pieces import Share, Spread

pytestmark = pytest.mark.slow


def change(settings: Settings, section: str, **values: object) -> Settings:
    return settings.model_copy(update={section: getattr(settings, section).model_copy(update=values)})


@pytest.fixture
def plain(settings: Settings) -> Settings:
    """Nothing random in the models: each process draws for its own clips."""
    settings = change(settings, "skeleton_encoder", dropout=0.0, sign_flips=False)
    return change(settings, "stage2", epochs=2, train_skeleton_encoder=True, predict_skeletons=True)


@pytest.fixture
def train(settings: Settings) -> Callable[..., dict]:
    def run(stage: int, settings: Settings, folder: Path) -> dict:
        dataset, skeletons = load_dataset(settings.dataset), settings.dataset.path / "skeletons.h5"
        if stage == 1:
            return train_stage1(dataset, skeletons, settings, folder / "stage1", Silent()).as_dict()
        return train_stage2(dataset, skeletons, folder / "stage1", settings, folder / "stage2", Silent()).as_dict()

    return run


class _Stop(Exception):
    pass


def weights(folder: Path, stage: int) -> dict[str, torch.Tensor]:
    return load_model(folder / f"stage{stage}" / "model.safetensors", f"stage{stage}")[0]


@pytest.mark.parametrize(
    "changes", [{}, {"ema": 0.9, "clip_gradient": 0.5, "prototype_momentum": 0.5, "predict_skeletons": True}]
)
def test_training_stopped_within_an_epoch_resumes_to_the_same_weights(
    changes: dict, settings: Settings, train: Callable[..., dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A skeleton encoder that trains drops out: the random numbers have to go on where they stopped.
    settings = change(change(settings, "runtime", save_minutes=0), "stage2", train_skeleton_encoder=True, **changes)
    train(1, settings, tmp_path)
    train(2, settings, tmp_path)
    whole = weights(tmp_path, 2)
    (tmp_path / "stage2" / "model.safetensors").unlink()

    calls, loss_terms = [], stage2.loss_terms

    def fail_later(*arguments: object) -> dict[str, torch.Tensor]:
        calls.append(1)
        if len(calls) == 7:
            raise _Stop
        return loss_terms(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(stage2, "loss_terms", fail_later)
    with pytest.raises(_Stop):
        train(2, settings, tmp_path)
    progress = torch.load(tmp_path / "stage2" / "state.pt", weights_only=True)["progress"]
    assert progress["step"] > 0, "stopped within an epoch"
    monkeypatch.undo()
    train(2, settings, tmp_path)
    resumed = weights(tmp_path, 2)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_two_processes_train_as_one(plain: Settings, train: Callable[..., dict], tmp_path: Path) -> None:
    alone = [train(stage, plain, tmp_path / "one") for stage in (1, 2)]
    (tmp_path / "settings.json").write_text(plain.model_dump_json())
    program = tmp_path / "program.py"
    program.write_text(f"""
import torch
from pathlib import Path
torch.set_num_threads(1)
from csip.config import Settings
from csip.data.readers import load_dataset
from csip.monitor import Silent
from csip.training.stage1 import train_stage1
from csip.training.stage2 import train_stage2
from pose_cache.errors import PoseCacheError
from pose_cache.pieces import Share, Spread
settings = Settings.model_validate_json(Path({str(tmp_path / "settings.json")!r}).read_text())
dataset, skeletons, out = load_dataset(settings.dataset), settings.dataset.path / "skeletons.h5", Path({str(tmp_path / "two")!r})
train_stage1(dataset, skeletons, settings, out / "stage1", Silent())
train_stage2(dataset, skeletons, out / "stage1", settings, out / "stage2", Silent())
""")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)
    for stage, one in zip((1, 2), alone, strict=True):
        two = json.loads((tmp_path / "two" / f"stage{stage}" / "metrics.json").read_text())
        for name in {"loss", "ce", "triplet", "csip", "frame", "distill"} & one.keys():
            assert two[name] == pytest.approx(one[name], rel=1e-4, abs=1e-5), name
        first, second = weights(tmp_path / "one", stage), weights(tmp_path / "two", stage)
        # Adam divides by the gradient's size, so rounding shows in weights whose gradient is next to nothing.
        far = sum(int((~torch.isclose(first[n], second[n], rtol=1e-2, atol=2e-4)).sum()) for n in first)
        assert far <= 0.001 * sum(tensor.numel() for tensor in first.values())


def test_processes_that_cannot_share_a_batch_are_refused() -> None:
    with pytest.raises(CsipError, match="cannot be shared by 3 processes"):
        IdentityBatches([0, 0, 1, 1], ids=2, tracklets=2, seed=0, share=(0, 3))
    whole = list(IdentityBatches([0] * 4 + [1] * 4, ids=2, tracklets=2, seed=0))
    halves = [list(IdentityBatches([0] * 4 + [1] * 4, ids=2, tracklets=2, seed=0, share=(r, 2))) for r in (0, 1)]
    assert whole == [one + two for one, two in zip(*halves, strict=True)]


def test_a_moving_average_is_what_is_kept(
    settings: Settings, train: Callable[..., dict], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = change(change(settings, "dataset", val_ids=0), "stage2", epochs=1, ema=0.5)
    train(1, settings, tmp_path)
    seen: list[dict[str, torch.Tensor]] = []
    update = AveragedModel.update_parameters

    def remember(average: AveragedModel, model: torch.nn.Module) -> None:
        seen.append({name: value.detach().clone() for name, value in model.named_parameters()})
        update(average, model)

    monkeypatch.setattr(AveragedModel, "update_parameters", remember)
    train(2, settings, tmp_path)
    kept = weights(tmp_path, 2)
    name = "heads.0.classifier.weight"
    expected = seen[0][name]
    for step in seen[1:]:
        expected = 0.5 * expected + 0.5 * step[name]
    assert len(seen) > 1 and not torch.equal(seen[-1][name], seen[0][name])
    torch.testing.assert_close(kept[name], expected)


def test_where_nobody_is_held_out_predicted_skeletons_weigh_as_much_as_the_rest_and_it_is_said(
    settings: Settings, tmp_path: Path
) -> None:
    settings = change(change(settings, "dataset", val_ids=0), "stage1", epochs=1)
    settings = change(settings, "stage2", epochs=1, predict_skeletons=True, reader_steps=2)
    dataset, cache, heard = load_dataset(settings.dataset), settings.dataset.path / "skeletons.h5", Heard()
    train_stage1(dataset, cache, settings, tmp_path / "stage1", Silent())
    result = train_stage2(dataset, cache, tmp_path / "stage1", settings, tmp_path / "stage2", heard)
    assert result.f4_map == {} and weights(tmp_path, 2)["prediction.weight"] == 1
    assert any("nobody is held out" in text for text in heard.said)

    tensors, description = load_model(tmp_path / "stage2/model.safetensors", "stage2")
    del tensors["prediction.weight"]  # as in files of earlier versions
    prediction = restore(tensors, description).prediction
    assert prediction is not None and prediction.weight == 1


def test_gradients_are_clipped(settings: Settings, train: Callable[..., dict], tmp_path: Path) -> None:
    norms: list[float] = []
    step = torch.optim.Adam.step

    def measure(optimizer: torch.optim.Adam, *arguments: object, **options: object) -> object:
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()))
        return step(optimizer, *arguments, **options)  # type: ignore[arg-type]

    train(1, settings, tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.Adam, "step", measure)
        train(2, change(settings, "stage2", epochs=1, clip_gradient=0.01), tmp_path)
    assert norms and max(norms) <= 0.01 * 1.001


def test_recomputed_activations_give_the_same_training(
    settings: Settings, train: Callable[..., dict], tmp_path: Path
) -> None:
    train(1, settings, tmp_path)
    kept = train(2, settings, tmp_path)
    (tmp_path / "stage2" / "model.safetensors").unlink()
    recomputed = train(2, change(settings, "runtime", recompute=True), tmp_path)
    assert recomputed["ce"] == pytest.approx(kept["ce"], rel=1e-4)


def test_embedding_frames_goes_on_where_it_stopped(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "SHARD", 20)
    settings = change(settings, "runtime", embed_batch=10)
    dataset = load_dataset(settings.dataset)
    torch.manual_seed(0)
    vision = create_vision(settings.vision.model, None, (64, 32)).eval()
    arguments = (vision, dataset.root, dataset.train, settings, make_fabric(settings.runtime))
    whole = frame_features(tmp_path / "whole.h5", *arguments, Silent())

    class StopIn(Silent):
        def __init__(self, part: str) -> None:
            self.part, self.tasks = part, set()

        def progress(self, task: str, done: int, total: int, note: str = "") -> None:
            self.tasks.add(task)
            if task.startswith(f"embedding frames, part {self.part} "):
                raise _Stop

    with pytest.raises(_Stop):
        frame_features(tmp_path / "cut.h5", *arguments, StopIn("3"))
    shards = sorted((tmp_path / "cut.h5.shards").glob("*.npy"))
    assert len(shards) == 2 and not (tmp_path / "cut.h5").exists()
    second = StopIn("none")
    resumed = frame_features(tmp_path / "cut.h5", *arguments, second)
    assert all("part 1 " not in task and "part 2 " not in task for task in second.tasks)
    assert all(np.array_equal(a, b) for a, b in zip(whole, resumed, strict=True))
    assert not (tmp_path / "cut.h5.shards").exists()


def test_frames_embedded_by_workers_and_in_shares_have_the_same_bits(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_cache, "SHARD", 20)
    settings = change(settings, "runtime", embed_batch=10)
    dataset = load_dataset(settings.dataset)
    fabric = make_fabric(settings.runtime)
    whole = embed_training_frames(dataset, settings, tmp_path / "whole", fabric, Silent())

    def fill(folder: str, spread: Spread) -> list[np.ndarray] | None:
        return fill_features(dataset, settings, tmp_path / folder, spread, fabric, Silent())

    with pytest.raises(PoseCacheError, match=r"(\d+) of \1 frames are not done; run the rest without shares"):
        fill("shares", Spread(merge=True))
    for job in (2, 1):
        assert fill("shares", Spread(share=Share(job, 2))) is None
    for folder, spread in (("shares", Spread(merge=True)), ("workers", Spread(2, "threading"))):
        made = fill(folder, spread)
        assert made is not None and all(np.array_equal(a, b) for a, b in zip(whole, made, strict=True))
        assert [path.name for path in (tmp_path / folder).iterdir()] == ["features.h5"]
        assert digest(tmp_path / folder / "features.h5") == digest(tmp_path / "whole/features.h5")


class _StopAfterAnEpoch(Silent):
    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        if task.startswith("stage") and done == 1:
            raise _Stop


@pytest.fixture
def cut(settings: Settings, tmp_path: Path) -> Callable[..., dict]:
    """Stage 1 stopped after its first epoch; call what comes back to start it again."""

    def run(monitor: Silent, overwrite: bool = False) -> dict:
        dataset, skeletons = load_dataset(settings.dataset), settings.dataset.path / "skeletons.h5"
        return train_stage1(dataset, skeletons, settings, tmp_path / "stage1", monitor, overwrite).as_dict()

    with pytest.raises(_Stop):
        run(_StopAfterAnEpoch())
    return lambda overwrite=False: run(Silent(), overwrite)


def test_training_time_adds_up_over_resumes(cut: Callable[..., dict], tmp_path: Path) -> None:
    state = torch.load(tmp_path / "stage1/state.pt", weights_only=True)
    assert 0 < state["progress"]["seconds"] < 60
    state["progress"]["seconds"] += 1000
    torch.save(state, tmp_path / "stage1/state.pt")
    assert 1000 < cut()["seconds"] < 1120


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("state.pt", lambda content: content[: len(content) // 2], r"stage1/state\.pt: missing or damaged"),
        ("state.pt", lambda content: b"", r"stage1/state\.pt: missing or damaged"),
        ("inputs.json", lambda content: content[:-20], r"stage1/inputs\.json: missing or damaged"),
    ],
    ids=["half a state", "an empty state", "half of the inputs"],
)
def test_damaged_state_is_refused_with_the_way_out(
    name: str, damage: Callable[[bytes], bytes], message: str, cut: Callable[..., dict], tmp_path: Path
) -> None:
    path = tmp_path / "stage1" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CsipError, match=f"{message}.* overwrite the run") as refused:
        cut()
    assert refused.value.parameter == "overwrite"
    assert cut(overwrite=True)["loss"] > 0


def test_state_of_another_version_is_refused(cut: Callable[..., dict], tmp_path: Path) -> None:
    torch.save({"encoder": {}, "epoch": 1}, tmp_path / "stage1/state.pt")
    with pytest.raises(CsipError, match=r"state\.pt: written by another version of csip"):
        cut()
