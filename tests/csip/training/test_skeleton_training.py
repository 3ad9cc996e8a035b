"""Skeletons alone: losses and inputs against independent references, and training that resumes, refuses and learns."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import csip.models.skeleton_reid as reid
from csip.config import (
    Settings,
    SkeletonAugmentation,
    SkeletonEncoderSettings,
    SkeletonTrainingSettings,
    WindowNetworkSettings,
)
from csip.data.sequences import SkeletonDataset, SkeletonSequence
from csip.errors import CsipError
from csip.models.checkpoints import load_model, save_model
from csip.models.factory import empty_encoder
from csip.models.skeleton_encoder import SkeletonGraphTransformer, laplacian_encoding
from csip.monitor import Silent
from csip.retrieval.skeletons_alone import embed_windows, load_skeleton_model, rank_windows
from csip.training.skeletons_alone import TrainingWindows, train_skeleton
from pipelines.advice import advice
from pose_cache.joints import H36M17, KINECT20

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
WINDOW = {"encoder": "window", "contrast": 0, "classifier": 1, "ema": 0.9, "window": {"width": 16, "depth": 1}}
GRAPH = {"encoder": "graph", "width": 16}


def people(count: int = 4, walks: int = 5, frames: int = 24) -> SkeletonDataset:
    """People who differ in the lengths of their bones, walking: limbs swing, the body turns."""
    random = np.random.default_rng(0)
    parts: tuple[list[SkeletonSequence], ...] = ([], [], [])
    for pid in range(1, count + 1):
        directions = np.random.default_rng(100).normal(size=(len(KINECT20.bones), 3))
        lengths = 0.3 * np.exp(0.3 * random.normal(size=len(KINECT20.bones)))
        for walk in range(walks):
            sway = directions + 0.2 * random.normal(size=(frames, len(KINECT20.bones), 3))
            joints = np.zeros((frames, 20, 3))
            for bone, (a, b) in enumerate(KINECT20.bones):
                unit = sway[:, bone] / np.linalg.norm(sway[:, bone], axis=1, keepdims=True)
                joints[:, b] = joints[:, a] + lengths[bone] * unit
            joints += random.normal(size=3)
            sequence = SkeletonSequence(f"{pid}_{walk}", pid, joints.astype(np.float32))
            parts[(0, 0, 1, 2, 2)[walk % 5]].append(sequence)
    train, probe, gallery = (tuple(part) for part in parts)
    return SkeletonDataset("people", Path("nowhere"), "kinect20", "", train, probe, gallery)


def settings(**training: object) -> Settings:
    chosen = {"epochs": 3, "batch": 8, "lr": 3e-3, "embedding": 16, "val_share": 0.5, **training}
    return Settings.model_validate({
        "dataset": {"name": "people", "layout": "kgbd"},
        "skeleton_encoder": {"depth": 2, "heads": 2, "dropout": 0.0},
        "skeleton_training": chosen,
        "runtime": {"device": "cpu", "precision": "32-true"},
    })  # fmt: skip


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder / "model.safetensors", "skeleton")[0]


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


# --- ranking


def test_windows_are_ranked_as_by_brute_force() -> None:
    random = np.random.default_rng(1)
    probe, gallery = random.normal(size=(30, 5)), random.normal(size=(80, 5))
    probe_ids, gallery_ids = random.integers(0, 6, 30), random.integers(0, 6, 80)
    scores = rank_windows(probe, probe_ids, gallery, gallery_ids, CPU)
    hits, precisions = [], []
    for x, pid in zip(probe, probe_ids, strict=True):
        order = np.argsort([np.sum((x - y) ** 2) for y in gallery])
        match = gallery_ids[order] == pid
        found = np.flatnonzero(match)
        hits.append(found[0])
        precisions.append(np.mean([(k + 1) / (place + 1) for k, place in enumerate(found)]))
    assert scores.valid_queries == 30, "no camera filter: every window has a match"
    assert scores.map == pytest.approx(np.mean(precisions))
    for k in (1, 5, 10):
        assert scores.cmc[k] == pytest.approx(np.mean(np.array(hits) < k))


# --- models and losses


def test_prototype_contrast_is_cross_entropy_of_windows_and_frames() -> None:
    torch.manual_seed(0)
    window, frames, prototypes = torch.randn(5, 8), torch.randn(5, 3, 8), torch.randn(4, 8)
    labels = torch.tensor([0, 3, 1, 1, 2])
    chosen = SkeletonTrainingSettings(alpha=0.3, tau_sequence=0.1, tau_frame=2.0)
    expected = 0.0
    for i, label in enumerate(labels):
        cosines = [float(window[i] @ p / window[i].norm() / p.norm()) / 0.1 for p in prototypes]
        expected -= 0.3 / 5 * (cosines[label] - np.log(np.exp(cosines).sum()))
        for t in range(3):
            inner = [float(frames[i, t] @ p) / 2.0 for p in prototypes]
            expected -= 0.7 / 15 * (inner[label] - np.log(np.exp(inner).sum()))
    loss = reid.prototype_contrast(reid.Embedded(window, frames), prototypes, labels, chosen)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_reconstruction_cannot_see_what_it_has_to_predict(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    encoder = SkeletonGraphTransformer(KINECT20, 16, SkeletonEncoderSettings(depth=2, heads=2, dropout=0.0))
    model = reid.GraphWindows(encoder, 8).eval()
    chosen = SkeletonTrainingSettings(mask_joints=0.05, mask_frames=1)  # one of each, as below
    joints = torch.randn(3, 6, 20, 3)
    hidden, gone = torch.zeros(3, 20, dtype=torch.bool), torch.zeros(3, 6, dtype=torch.bool)
    hidden[:, 7], gone[:, 2] = True, True
    monkeypatch.setattr(reid, "_choose", lambda rows, size, count, device: hidden if size == 20 else gone)
    joint_changed, frame_changed = joints.clone(), joints.clone()
    joint_changed[:, :, 7] += 1000.0
    frame_changed[:, 2] += 1000.0

    def predict(x: torch.Tensor) -> list[torch.Tensor]:
        """What the two heads say, after checking the loss against them."""
        said: list[torch.Tensor] = []
        heads = (model.from_joints, model.from_frames)
        hooks = [head.register_forward_hook(lambda _, __, out: said.append(out)) for head in heads]
        loss = reid.masked_reconstruction(model, x, chosen)
        for hook in hooks:
            hook.remove()
        truth = x / model.encoder.scale
        expected = 0.5 * (said[0] - truth)[:, :, 7].abs().mean() + 0.5 * (said[1] - truth)[:, 2].abs().mean()
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        return said

    torch.testing.assert_close(predict(joint_changed)[0], predict(joints)[0])
    torch.testing.assert_close(predict(frame_changed)[1], predict(joints)[1])
    assert not torch.allclose(predict(frame_changed)[0], predict(joints)[0]), "what is not hidden is seen"


@pytest.mark.parametrize(("every", "times"), [(1, 6), (3, 2)])
def test_reconstruction_takes_turns(every: int, times: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[int] = []
    reconstruct = reid.masked_reconstruction
    monkeypatch.setattr(
        "csip.training.skeletons_alone.masked_reconstruction",
        lambda *given: (asked.append(len(given[1])), reconstruct(*given))[1],
    )
    chosen = settings(**GRAPH, epochs=2, batch=11, val_share=0.0, reconstruct_every=every)
    train_skeleton(people(), chosen, tmp_path, Silent())
    assert len(asked) == times, "an epoch has 32 windows and 3 batches"


def test_masks_hide_as_many_as_asked() -> None:
    for size, count in ((20, 10), (17, 7), (6, 2)):
        mask = reid._choose(50, size, count, CPU)
        assert (mask.sum(dim=1) == count).all() and len({tuple(row) for row in mask.tolist()}) > 10
    assert round(SkeletonTrainingSettings().mask_joints * 20) == 10


def test_augmentation_keeps_bodies() -> None:
    torch.manual_seed(0)
    joints = torch.from_numpy(people().train[0].joints).view(4, 6, 20, 3)
    joints = joints - joints[:, :, :1]
    lengths = reid.bone_lengths(joints, KINECT20)
    turned = reid.augment(joints, KINECT20, SkeletonAugmentation(rotation=90, noise=0, jitter=0))
    assert not torch.allclose(turned, joints, atol=0.01)
    torch.testing.assert_close(turned[..., 1], joints[..., 1])  # about the vertical
    torch.testing.assert_close(reid.bone_lengths(turned, KINECT20), lengths)
    mirrored = reid.augment(joints, KINECT20, SkeletonAugmentation(rotation=0, noise=0, jitter=0, mirror=1))
    left, right = KINECT20.joints.index("left_knee"), KINECT20.joints.index("right_knee")
    torch.testing.assert_close(mirrored[:, :, left], joints[:, :, right] * torch.tensor([-1.0, 1, 1]))
    grown = reid.augment(joints, KINECT20, SkeletonAugmentation(rotation=0, noise=0, jitter=0, scale=0.1))
    ratios = reid.bone_lengths(grown, KINECT20) / lengths
    torch.testing.assert_close(ratios, ratios[:, :1].expand_as(ratios))
    noisy = reid.augment(joints.repeat(500, 1, 1, 1), KINECT20, SkeletonAugmentation(rotation=0, noise=0.02, jitter=0))
    assert noisy[:, :, 0].abs().max() == 0, "root-centred"
    offset = noisy - joints.repeat(500, 1, 1, 1)
    assert offset[:, :, 5].std().item() == pytest.approx(0.02 * 2**0.5, rel=0.05), "its own and the root's"
    torch.testing.assert_close(offset[:, 0], offset[:, 5])  # one offset for all frames


def test_window_network_reads_what_it_is_told_to() -> None:
    joints = torch.randn(2, 6, 20, 3)
    off = {"joints": False, "bones": False, "lengths": False}

    def features(**chosen: bool) -> torch.Tensor:
        network = reid.WindowNetwork(KINECT20, 6, 8, WindowNetworkSettings(**{**off, **chosen}, width=8))
        return network.features(joints)

    torch.testing.assert_close(features(joints=True), joints.flatten(2))
    bones = torch.stack([joints[:, :, b] - joints[:, :, a] for a, b in KINECT20.bones], dim=2)
    torch.testing.assert_close(features(bones=True), bones.flatten(2))
    torch.testing.assert_close(features(lengths=True), bones.norm(dim=-1))
    assert features(distances=True).shape == (2, 6, 190)
    torch.testing.assert_close(features(distances=True)[..., 0], (joints[:, :, 0] - joints[:, :, 1]).norm(dim=-1))
    torch.testing.assert_close(features(velocities=True)[:, 1, :3], joints[:, 2, 0] - joints[:, 1, 0])
    assert features(velocities=True)[:, -1].abs().max() == 0
    both = features(joints=True, lengths=True)
    assert both.shape == (2, 6, 79)


def test_facing_front_forgets_the_heading() -> None:
    network = reid.WindowNetwork(KINECT20, 6, 8, WindowNetworkSettings(face_front=True, width=8))
    joints = torch.randn(4, 6, 20, 3)
    turned = joints @ reid.turn(torch.tensor([0.5, 1.0, 2.0, -3.0]))[:, None]
    torch.testing.assert_close(network.face_front(turned), network.face_front(joints), atol=1e-5, rtol=1e-5)
    front = network.face_front(joints)
    across = (front[:, :, [4, 12]] - front[:, :, [8, 16]]).mean(dim=(1, 2))
    assert (across[:, 0] > 0).all() and across[:, 2].abs().max() < 1e-5


def test_classifier_lowers_the_right_cosine_by_the_margin() -> None:
    torch.manual_seed(0)
    chosen = SkeletonTrainingSettings(embedding=8, margin=0.2, temperature=10, smoothing=0.0)
    classifier = reid.CosineClassifier(3, chosen)
    windows, labels = torch.randn(2, 8), torch.tensor([2, 0])
    cosines = F.cosine_similarity(windows[:, None], classifier.directions[None], dim=2)
    cosines[0, 2] -= 0.2
    cosines[1, 0] -= 0.2
    expected = -torch.log_softmax(10 * cosines, dim=1)[[0, 1], labels].mean()
    torch.testing.assert_close(classifier(windows, labels), expected)


# --- data


@pytest.mark.parametrize("cut", [None, 6])
def test_training_windows_lie_within_one_sequence(cut: int | None) -> None:
    sequences = []
    for pid, length in ((1, 24), (2, 13), (3, 6)):
        joints = np.zeros((length, 20, 3), np.float32)
        joints[:, 1, 0], joints[:, 1, 1] = pid, np.arange(length)
        sequences.append(SkeletonSequence(str(pid), pid, joints, cut))
    source = TrainingWindows(sequences, {1: 0, 2: 1, 3: 2}, 6, KINECT20, CPU)
    torch.manual_seed(0)
    places: dict[int, set[tuple[float, ...]]] = {0: set(), 1: set(), 2: set()}
    for _ in range(200):
        drawn = list(source.draw(4, 2))
        joints, labels = (torch.cat(part) for part in zip(*drawn, strict=True))
        assert len(labels) == len(source) == 7 and torch.bincount(labels).tolist() == [4, 2, 1]
        for x, label in zip(joints, labels, strict=True):
            assert (x[:, 1, 0] == label + 1).all()
            steps = x[:, 1, 1].diff()
            assert (steps == steps[0]).all() and steps[0] in (1, 2)
            places[int(label)].add(tuple(x[:, 1, 1].tolist()))
    if cut:
        assert {p[0] for p in places[0]} == {0, 6, 12, 18} and all(p[1] - p[0] == 1 for p in places[0])
    else:
        assert {p[0] for p in places[0] if p[1] - p[0] == 1} == set(range(19))
        assert {p[0] for p in places[0] if p[1] - p[0] == 2} == set(range(14))
        assert {p[0] for p in places[1] if p[1] - p[0] == 2} == {0, 1, 2}
    assert {p[0] for p in places[2]} == {0}


# --- training


@pytest.mark.parametrize("encoder", [WINDOW, GRAPH], ids=["window", "graph"])
def test_training_learns_to_know_people_on_other_walks(encoder: dict, tmp_path: Path) -> None:
    dataset = people()
    chosen = settings(**encoder, epochs=25)
    figures = train_skeleton(dataset, chosen, tmp_path, Silent()).as_dict()
    assert [entry["epoch"] for entry in figures["validation"]] == list(range(1, 26))
    best = max(figures["validation"], key=lambda entry: (entry["map"], entry["epoch"]))
    assert figures["chosen_epoch"] == best["epoch"] and figures["held_out_sequences"] == 2
    trained = load_skeleton_model(tmp_path / "model.safetensors")
    probe = np.concatenate([s.joints.reshape(-1, 6, 20, 3) for s in dataset.probe])
    gallery = np.concatenate([s.joints.reshape(-1, 6, 20, 3) for s in dataset.gallery])
    sides = [embed_windows(trained.network, x, 0, CPU) for x in (probe, gallery)]
    np.testing.assert_allclose(np.linalg.norm(sides[0], axis=1), 1, rtol=1e-5)
    ids = [np.repeat([s.pid for s in part], 4) for part in (dataset.probe, dataset.gallery)]
    scores = rank_windows(sides[0], ids[0], sides[1], ids[1], CPU)
    assert scores.rank1 > 0.75, "chance is .25"


def test_probe_and_gallery_are_never_looked_at(tmp_path: Path) -> None:
    dataset = people()
    train_skeleton(dataset, settings(**WINDOW), tmp_path / "one", Silent())
    strangers = tuple(replace(s, joints=s.joints * 3) for s in dataset.probe)
    other = replace(dataset, probe=strangers, gallery=tuple(replace(s, pid=9) for s in dataset.gallery))
    train_skeleton(other, settings(**WINDOW), tmp_path / "two", Silent())
    assert same(weights(tmp_path / "one"), weights(tmp_path / "two"))


class _Stop(Exception):
    pass


class _StopAfter(Silent):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        if done == self.epoch:
            raise _Stop


@pytest.mark.parametrize("encoder", [WINDOW, GRAPH], ids=["window", "graph"])
def test_stopped_training_resumes_to_the_same_weights(encoder: dict, tmp_path: Path) -> None:
    chosen, dataset = settings(**encoder), people()
    train_skeleton(dataset, chosen, tmp_path / "whole", Silent())
    with pytest.raises(_Stop):
        train_skeleton(dataset, chosen, tmp_path / "cut", _StopAfter(2))
    assert not (tmp_path / "cut/model.safetensors").exists()
    train_skeleton(dataset, chosen, tmp_path / "cut", Silent())
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))
    assert not (tmp_path / "cut/state.pt").exists() and not (tmp_path / "cut/best.pt").exists()


def test_killed_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    program = (
        "import sys, torch; torch.set_num_threads(1); sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path; import test_skeleton_training as t\n"
        "class Talk(t.Silent):\n"
        "    def progress(self, task, done, total, note=''): print(done, flush=True)\n"
        "t.train_skeleton(t.people(), t.settings(**t.WINDOW, epochs=40), Path(sys.argv[1]), Talk())\n"
    )
    command = [sys.executable, "-c", program]
    here = str(Path(__file__).parent)
    process = subprocess.Popen([*command, str(tmp_path / "cut"), here], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == "5":
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "cut/model.safetensors").exists()
    subprocess.run([*command, str(tmp_path / "cut"), here], check=True, stdout=subprocess.DEVNULL)
    train_skeleton(people(), settings(**WINDOW, epochs=40), tmp_path / "whole", Silent())
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "cut"))


def test_a_run_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    dataset = people()
    train_skeleton(dataset, settings(**WINDOW, epochs=1), tmp_path, Silent())
    with pytest.raises(CsipError, match="this run has finished; overwrite it"):
        train_skeleton(dataset, settings(**WINDOW, epochs=1), tmp_path, Silent())
    train_skeleton(dataset, settings(**WINDOW, epochs=1), tmp_path, Silent(), overwrite=True)
    with pytest.raises(_Stop):
        train_skeleton(dataset, settings(**WINDOW), tmp_path / "cut", _StopAfter(1))
    with pytest.raises(CsipError, match=r"skeleton_training\.lr: 0\.003 there, 0\.001 here"):
        train_skeleton(dataset, settings(**WINDOW, lr=1e-3), tmp_path / "cut", Silent())


def stage1_checkpoint(path: Path, chosen: Settings, width: int = 32) -> dict[str, torch.Tensor]:
    """What stage 1 writes, of 17 Human3.6M joints and more blocks than the run's own settings say."""
    deeper = chosen.model_copy(update={"skeleton_encoder": chosen.skeleton_encoder.model_copy(update={"depth": 3})})
    torch.manual_seed(7)
    encoder = empty_encoder(H36M17.name, width, deeper)
    encoder.scale.fill_(5.0)
    tensors = {f"encoder.{name}": t for name, t in encoder.state_dict().items()} | {
        "temperature.log_scale": torch.ones(())
    }
    description = {
        "kind": "stage1",
        "width": width,
        "joint_set": H36M17.name,
        "settings": deeper.model_dump(mode="json"),
    }
    save_model(path, tensors, description)
    return tensors


def test_a_pretrained_encoder_moves_from_17_to_20_joints(tmp_path: Path) -> None:
    chosen = settings(**GRAPH, epochs=1, lr=1e-12, min_lr=0.0, val_share=0.0)
    tensors = stage1_checkpoint(tmp_path / "stage1/model.safetensors", chosen)
    train_skeleton(people(), chosen, tmp_path / "run", Silent(), init=tmp_path / "stage1")
    trained = load_skeleton_model(tmp_path / "run/model.safetensors")
    state = trained.network.state_dict()
    assert len(trained.network.encoder.blocks) == 3 and trained.network.encoder.width == 32
    for name, tensor in tensors.items():
        if name.startswith("encoder.") and name not in ("encoder.encoding", "encoder.scale"):
            torch.testing.assert_close(state[name], tensor, atol=1e-6, rtol=0)
    torch.testing.assert_close(state["encoder.encoding"], laplacian_encoding(KINECT20, 10))
    assert 0.1 < state["encoder.scale"] < 2.0, "of these data, not of those of stage 1"


def test_an_encoder_that_sees_frequencies_moves_from_17_to_20_joints(tmp_path: Path) -> None:
    chosen = settings(**GRAPH, epochs=1, lr=1e-12, min_lr=0.0, val_share=0.0)
    update = {"skeleton_encoder": chosen.skeleton_encoder.model_copy(update={"frequencies": 4, "face_front": True})}
    tensors = stage1_checkpoint(tmp_path / "stage1/model.safetensors", chosen.model_copy(update=update))
    train_skeleton(people(), chosen, tmp_path / "run", Silent(), init=tmp_path / "stage1")
    state = load_skeleton_model(tmp_path / "run/model.safetensors").network.state_dict()
    last = max(name for name in tensors if "embed_motion" in name and name.endswith("weight"))
    torch.testing.assert_close(state[last], tensors[last], atol=1e-6, rtol=0)
    assert state["encoder.embed_motion.0.weight"].shape[1] == 20 * 6 * 6
    assert state["encoder.mean_spectrum"].abs().max() > 0, "of these data"


def test_what_cannot_be_started_from_is_named(tmp_path: Path) -> None:
    chosen = settings(**GRAPH, epochs=1)
    with pytest.raises(CsipError, match=r"nothing\.safetensors: missing") as refused:
        train_skeleton(people(), chosen, tmp_path / "run", Silent(), init=tmp_path / "nothing.safetensors")
    assert advice(refused.value.parameter).startswith("; `csip train-stage1`")
    path = tmp_path / "model.safetensors"
    stage1_checkpoint(path, chosen)
    with pytest.raises(CsipError, match=r"skeleton_training\.encoder is window; set skeleton_training\.encoder=graph"):
        train_skeleton(people(), settings(**WINDOW), tmp_path / "run", Silent(), init=path)
    with pytest.raises(CsipError, match="a stage1 model, expected one of skeleton") as refused:
        load_skeleton_model(path)
    assert advice(refused.value.parameter).startswith("; `csip train-skeleton`")
    assert not (tmp_path / "run").exists(), "nothing was started"


def test_ends_that_are_shorter_than_a_window_are_not_held_out(tmp_path: Path) -> None:
    dataset = people()
    alone = {s.pid: replace(s, joints=s.joints[:8]) for s in dataset.train}
    chosen = settings(**WINDOW, epochs=1, val_share=0.25)
    assert chosen.skeleton_training.frames > 2
    found = train_skeleton(replace(dataset, train=tuple(alone.values())), chosen, tmp_path, Silent())
    assert found.validation == () and found.chosen_epoch == 1 and found.held_out_sequences == 0


def test_a_loss_that_is_no_number_is_named(tmp_path: Path) -> None:
    with pytest.raises(CsipError, match=r'skeleton, epoch 1, step \d+: loss term "classifier" is non-finite \(nan\)'):
        train_skeleton(people(), settings(**WINDOW, lr=1e30, warmup_epochs=0), tmp_path, Silent())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contrast": 0, "classifier": 0}, "nothing to train by"),
        ({"encoder": "window"}, "encoder window has no frames and joints to contrast"),
        ({"mask_frames": 6}, "mask_frames must be below frames"),
        ({**WINDOW, "window": {"joints": False, "bones": False, "lengths": False}}, "every input is off"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        settings(**change)


def test_tensorboard_and_terms(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    read: Callable[[Path], set[str]] = lambda folder: set(EventAccumulator(str(folder)).Reload().Tags()["scalars"])  # noqa: E731
    train_skeleton(people(), settings(**GRAPH, epochs=1), tmp_path / "graph", Silent())
    assert {"skeleton/gpc", "skeleton/stpr", "skeleton/total", "skeleton/lr", "skeleton/validation_map"} <= read(
        tmp_path / "graph"
    )
    train_skeleton(people(), settings(**WINDOW, epochs=1, val_share=0), tmp_path / "window", Silent())
    assert read(tmp_path / "window") == {"skeleton/classifier", "skeleton/total", "skeleton/lr"}
