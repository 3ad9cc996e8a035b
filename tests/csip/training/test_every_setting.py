"""No setting that nothing reads: changing each one changes what is computed, written or asked for.

`SHOWN` says for every leaf of the settings a value to change it to and where the change shows. A new setting without an
entry fails the first test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from setting_probes import (
    Ground,
    Probe,
    batch,
    built,
    descriptors,
    encoder,
    extraction,
    index,
    loaders,
    machine,
    make_ground,
    saving,
    scores,
    skeleton_index,
    skeletons,
    stage1,
    stage2,
)

from csip.config import load_settings, valid_keys
from csip.errors import CsipError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ground(walkers: Path, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return make_ground(walkers, tmp_path_factory.mktemp("ground"))


@dataclass(frozen=True)
class Case:
    """A value to change a setting to, where it shows, what else must hold for it to show, and whether it may be refused."""

    value: Any
    probe: Probe
    given: tuple[str, ...] = ()
    refused: bool = False


LSVID = ("dataset.layout=lsvid", "dataset.root={folder}/lsvid")
ILIDSVID = ("dataset.layout=ilidsvid", "dataset.root={folder}/ilidsvid")
FOLDERS = ("dataset.layout=folder", "dataset.root={folder}/folders")
GRAPH = ("dataset.layout=transg", "dataset.root={folder}/transg")
CLASSIFIED = (*GRAPH, "skeleton_training.contrast=0", "skeleton_training.classifier=1")
WINDOW = (*CLASSIFIED, "skeleton_training.encoder=window")
PREDICTED = ("stage2.predict_skeletons=true",)

SHOWN: dict[str, Case] = {
    "dataset.name": Case("others", index),
    "dataset.layout": Case("folder", index, refused=True),
    "dataset.root": Case("{folder}/fewer", index, FOLDERS),
    "dataset.gallery": Case("without_queries", index),
    "dataset.probe": Case("Walking", skeleton_index, GRAPH),
    "dataset.split": Case(3, index, ILIDSVID),
    "dataset.piece_frames": Case(4, index, LSVID),
    "dataset.train_share": Case(0.25, index, FOLDERS),
    "dataset.val_ids": Case(1, stage1),
    "estimator": Case("demo", extraction),
    "clips.frames": Case(3, batch),
    "clips.stride": Case(1, batch),
    "clips.height": Case(48, batch),
    "clips.width": Case(32, batch),
    "clips.mean": Case([0.5, 0.5, 0.5], batch),
    "clips.std": Case([0.5, 0.5, 0.5], batch),
    "clips.flip": Case(0.0, batch),
    "clips.pad": Case(0, batch),
    "clips.erase": Case(0.0, batch),
    "clips.erase_area": Case(0.1, batch, ("clips.erase=1.0",)),
    "clips.max_gap": Case(0, batch),
    "vision.model": Case("{folder}/other.json", stage1),
    "vision.pretrained": Case("{folder}/tower.safetensors", stage1),
    "skeleton_encoder.width": Case(12, encoder),
    "skeleton_encoder.depth": Case(3, encoder),
    "skeleton_encoder.heads": Case(4, encoder),
    "skeleton_encoder.mlp_ratio": Case(1.0, encoder),
    "skeleton_encoder.dropout": Case(0.1, encoder),
    "skeleton_encoder.positions": Case(4, encoder),
    "skeleton_encoder.temporal": Case(False, encoder),
    "skeleton_encoder.temporal_every": Case(1, encoder),
    "skeleton_encoder.sign_flips": Case(False, encoder),
    "skeleton_encoder.bones": Case(True, encoder),
    "skeleton_encoder.face_front": Case(True, encoder),
    "skeleton_encoder.frequencies": Case(4, encoder),
    "skeleton_encoder.projection": Case(True, encoder),
    "stage1.epochs": Case(2, stage1),
    "stage1.batch": Case(4, stage1),
    "stage1.lr": Case(1e-3, stage1),
    "stage1.min_lr": Case(1e-4, stage1),
    "stage1.warmup_epochs": Case(0, stage1),
    "stage1.weight_decay": Case(0.1, stage1),
    "stage1.val_every": Case(1, stage1),
    "stage1.clips_per_tracklet": Case(2, stage1),
    "stage1.batches": Case("camera", stage1),
    "stage1.normalize": Case(False, stage1),
    "stage1.tau": Case(0.5, stage1),
    "stage1.lambda_skeletons": Case(1.0, stage1, ("stage1.batches=alike",)),
    "stage2.epochs": Case(2, stage2),
    "stage2.ids_per_batch": Case(3, stage2),
    "stage2.tracklets_per_id": Case(3, stage2),
    "stage2.batches": Case("alike", stage2),
    "stage2.lr": Case(2e-3, stage2),
    "stage2.new_lr_factor": Case(2.0, stage2),
    "stage2.bias_lr_factor": Case(1.0, stage2),
    "stage2.weight_decay": Case(0.1, stage2),
    "stage2.warmup_epochs": Case(0, stage2),
    "stage2.warmup_start": Case(0.5, stage2, ("stage2.warmup_epochs=2",)),
    "stage2.new_lr_modules": Case("authors", stage2),
    "stage2.skeletons": Case("others", stage2),
    "stage2.prototypes": Case("images", stage2),
    "stage2.project_prototypes": Case(True, stage2),
    "stage2.dropout": Case(0.5, stage2),
    "stage2.share_classifier": Case(True, stage2),
    "stage2.decay_epochs": Case([1, 2], stage2),
    "stage2.smoothing": Case(0.0, stage2),
    "stage2.margin": Case(0.6, stage2),
    "stage2.lambda_ce": Case(0.0, stage2),
    "stage2.lambda_triplet": Case(0.0, stage2),
    "stage2.lambda_csip": Case(0.0, stage2),
    "stage2.lambda_frame": Case(0.0, stage2),
    "stage2.lambda_distill": Case(0.5, stage2),
    "stage2.fusion": Case("gate", stage2),
    "stage2.prototype_attention": Case("induced", stage2),
    "stage2.prototype_heads": Case(4, stage2),
    "stage2.prototype_layers": Case(1, stage2),
    "stage2.update_prototypes": Case(False, stage2),
    "stage2.detach_tokens": Case(False, stage2),
    "stage2.update_tokens": Case("all", stage2),
    "stage2.prototype_momentum": Case(0.5, stage2),
    "stage2.frozen_blocks": Case(1, stage2),
    "stage2.train_skeleton_encoder": Case(True, stage2),
    "stage2.detach_visual": Case(False, stage2),
    "stage2.mte": Case(False, stage2, ("stage2.atd=false",)),
    "stage2.atd": Case(False, stage2),
    "stage2.ta": Case(False, stage2),
    "stage2.predict_skeletons": Case(True, stage2),
    "stage2.reader_steps": Case(3, stage2, PREDICTED),
    "stage2.temporal_heads": Case(2, stage2),
    "stage2.frame_position": Case(False, stage2),
    "stage2.temporal_residual": Case(True, stage2),
    "stage2.camera_embedding": Case(False, stage2),
    "stage2.clip_gradient": Case(0.01, stage2),
    "stage2.ema": Case(0.5, stage2),
    "stage2.val_every": Case(1, stage2),
    "skeleton_training.encoder": Case("window", skeletons, CLASSIFIED),
    "skeleton_training.window.width": Case(16, skeletons, WINDOW),
    "skeleton_training.window.depth": Case(1, skeletons, WINDOW),
    "skeleton_training.window.dropout": Case(0.0, skeletons, WINDOW),
    "skeleton_training.window.joints": Case(False, skeletons, WINDOW),
    "skeleton_training.window.bones": Case(False, skeletons, WINDOW),
    "skeleton_training.window.lengths": Case(False, skeletons, WINDOW),
    "skeleton_training.window.velocities": Case(True, skeletons, WINDOW),
    "skeleton_training.window.distances": Case(True, skeletons, WINDOW),
    "skeleton_training.window.face_front": Case(True, skeletons, WINDOW),
    "skeleton_training.width": Case(16, skeletons, GRAPH),
    "skeleton_training.embedding": Case(16, skeletons, GRAPH),
    "skeleton_training.frames": Case(4, skeletons, GRAPH),
    "skeleton_training.epochs": Case(1, skeletons, GRAPH),
    "skeleton_training.batch": Case(4, skeletons, GRAPH),
    "skeleton_training.lr": Case(1e-3, skeletons, GRAPH),
    "skeleton_training.min_lr": Case(1e-4, skeletons, GRAPH),
    "skeleton_training.warmup_epochs": Case(0, skeletons, GRAPH),
    "skeleton_training.weight_decay": Case(0.1, skeletons, GRAPH),
    "skeleton_training.ema": Case(0.5, skeletons, GRAPH),
    "skeleton_training.val_share": Case(0.0, skeletons, GRAPH),
    "skeleton_training.augment.rotation": Case(90.0, skeletons, GRAPH),
    "skeleton_training.augment.noise": Case(0.1, skeletons, GRAPH),
    "skeleton_training.augment.jitter": Case(0.1, skeletons, GRAPH),
    "skeleton_training.augment.scale": Case(0.1, skeletons, GRAPH),
    "skeleton_training.augment.mirror": Case(0.5, skeletons, GRAPH),
    "skeleton_training.augment.stride": Case(3, skeletons, GRAPH),
    "skeleton_training.contrast": Case(0.5, skeletons, GRAPH),
    "skeleton_training.lambda_gpc": Case(0.9, skeletons, GRAPH),
    "skeleton_training.alpha": Case(0.9, skeletons, GRAPH),
    "skeleton_training.beta": Case(0.9, skeletons, GRAPH),
    "skeleton_training.tau_sequence": Case(0.5, skeletons, GRAPH),
    "skeleton_training.tau_frame": Case(1.0, skeletons, GRAPH),
    "skeleton_training.reconstruct_every": Case(2, skeletons, GRAPH),
    "skeleton_training.mask_joints": Case(0.2, skeletons, GRAPH),
    "skeleton_training.mask_frames": Case(1, skeletons, GRAPH),
    "skeleton_training.classifier": Case(1.0, skeletons, GRAPH),
    "skeleton_training.margin": Case(0.0, skeletons, CLASSIFIED),
    "skeleton_training.temperature": Case(4.0, skeletons, CLASSIFIED),
    "skeleton_training.smoothing": Case(0.0, skeletons, CLASSIFIED),
    "evaluation.sampling": Case("rrs", scores),
    "evaluation.level": Case("clip", scores),
    "evaluation.bootstrap": Case(0, scores),
    "evaluation.rerank": Case(False, scores),
    "evaluation.rerank_k1": Case(8, scores),
    "evaluation.rerank_k2": Case(4, scores),
    "evaluation.rerank_mix": Case(0.9, scores),
    "evaluation.part_norm": Case(False, descriptors),
    "evaluation.compare_untrained": Case(True, scores),
    "runtime.seed": Case(1, stage1),
    "runtime.device": Case("cuda", machine, refused=True),
    "runtime.precision": Case("bf16-mixed", machine),
    "runtime.workers": Case(3, loaders),
    "runtime.embed_batch": Case(2, descriptors),
    "runtime.save_minutes": Case(0.0, saving),
    "runtime.compile": Case(True, built),
    "runtime.recompute": Case(True, built),
}


def leaves() -> Iterator[str]:
    keys = valid_keys()
    return (key for key in keys if not any(other.startswith(f"{key}.") for other in keys))


def test_every_setting_has_an_entry() -> None:
    assert set(leaves()) == SHOWN.keys(), "a setting is new or gone: say in SHOWN how its change shows"


@pytest.mark.parametrize("key", SHOWN)
def test_changing_it_changes_something(key: str, ground: Ground) -> None:
    case = SHOWN[key]
    given = tuple(line.format(folder=ground.folder) for line in case.given)
    value = case.value.format(folder=ground.folder) if isinstance(case.value, str) else case.value
    known = f"{case.probe.__name__} {given}"
    if known not in ground.before:
        ground.before[known] = observe(case.probe, ground, given)
        assert same(ground.before[known], observe(case.probe, ground, given)), "what shows it is not the same twice"
    text = value if isinstance(value, str) else json.dumps(value)
    after = observe(case.probe, ground, (*given, f"{key}={text}"), case.refused)
    assert not same(ground.before[known], after)


def observe(probe: Probe, ground: Ground, changes: tuple[str, ...], refused: bool = False) -> Any:
    path = ground.folder / "base.yaml"
    path.write_text(yaml.safe_dump(ground.settings.model_dump(mode="json")))
    settings = load_settings(path, changes)
    try:
        return probe(settings, ground)
    except CsipError as error:
        if not refused:
            raise
        return str(error)


def same(one: Any, two: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(two, torch.Tensor) and one.shape == two.shape and torch.equal(one, two)
    if isinstance(one, (list, tuple)) and isinstance(two, (list, tuple)):
        return len(one) == len(two) and all(same(a, b) for a, b in zip(one, two, strict=True))
    return bool(one == two)
