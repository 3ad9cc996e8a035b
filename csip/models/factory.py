"""Models made from settings, and restored from what training wrote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csip.config import Settings
from csip.data.dataset import Tracklet, fingerprint
from csip.data.fingerprints import TrainingData
from csip.errors import CsipError
from csip.models.checkpoints import load_model
from csip.models.losses import LearnableTemperature
from csip.models.reid import ReIDModel
from csip.models.skeleton_encoder import SkeletonGraphTransformer
from csip.models.vision import create_vision
from pose_cache.joints import joint_set


def empty_encoder(joints: str, width: int, settings: Settings) -> SkeletonGraphTransformer:
    """Make an untrained skeleton encoder for a joint set, with features of ``width`` numbers."""
    return SkeletonGraphTransformer(joint_set(joints), width, settings.skeleton_encoder)


def load_encoder(
    path: Path, train: Sequence[Tracklet], settings: Settings, now: TrainingData | None = None
) -> tuple[SkeletonGraphTransformer, LearnableTemperature]:
    """Load what `train_stage1` wrote, for the identities that it was trained on.

    Parameters
    ----------
    path
        The model's file.
    train
        The tracklets to train on, without those that are held out.
    settings
        Of what it is loaded for.
    now
        What the data set holds now; not compared where it is not given.

    Raises
    ------
    CsipError
        The file is missing, damaged, was trained on other data, or on frames another step apart while it sees frequencies.
    """
    encoder, temperature, description = read_encoder(path)
    if description["identities"] != fingerprint(train):
        raise CsipError(
            f"{path}: this stage-1 model was trained on other tracklets (data set {description['dataset']}, "
            f"fingerprint {description['identities']}) than asked for now (data set {settings.dataset.name}, "
            f"{fingerprint(train)}); train stage 1 on this data set, with the same dataset.val_ids"
        )
    if now is not None and (changes := now.changes(description)):
        raise CsipError(
            f"{path}: stage 1 was trained on other data than data set {settings.dataset.name} holds now; changed: {changes}; "
            "train stage 1 again, over this one"
        )
    step, asked = Settings.model_validate(description["settings"]).clips.stride, settings.clips.stride
    if encoder.frequencies and step != asked:
        raise CsipError(
            f"{path}: stage 1 saw the frequencies of frames that are {step} apart: expected clips.stride={step}, found {asked}; "
            "set it so, or train stage 1 again"
        )
    return encoder, temperature


def read_encoder(path: Path) -> tuple[SkeletonGraphTransformer, LearnableTemperature, dict[str, Any]]:
    """Load what `train_stage1` wrote, whatever it was trained on, and its description.

    Raises
    ------
    CsipError
        The file is missing, damaged, or no stage-1 model.
    """
    tensors, description = load_model(path, "stage1")
    settings = Settings.model_validate(description["settings"])
    encoder = empty_encoder(description["joint_set"], description["width"], settings)
    encoder.load_state_dict(_part(tensors, "encoder."))
    temperature = LearnableTemperature(settings.stage1.tau)
    temperature.load_state_dict(_part(tensors, "temperature."))
    return encoder, temperature, description


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def build_model(
    encoder: SkeletonGraphTransformer,
    tau: float,
    identities: int,
    cameras: int,
    settings: Settings,
    load_vision: bool = True,
) -> ReIDModel:
    """Make the model before its training: pretrained encoders, new modules with weights from ``runtime.seed``.

    Without ``load_vision`` the image encoder has the form that ``vision.pretrained`` asks for, and random weights.
    """
    clips = settings.clips
    torch.manual_seed(settings.runtime.seed)
    vision = create_vision(
        settings.vision.model,
        settings.vision.pretrained,
        (clips.height, clips.width),
        cameras=cameras if settings.stage2.camera_embedding else 0,
        load=load_vision,
    )
    vision.freeze(settings.stage2.frozen_blocks)
    if settings.runtime.recompute:
        vision.visual.set_grad_checkpointing()
    if settings.runtime.compile:
        vision.compile()
    return ReIDModel(
        vision,
        encoder,
        identities,
        settings.stage2,
        normalize=settings.stage1.normalize,
        tau=tau,
        part_norm=settings.evaluation.part_norm,
    )


def restore(tensors: Mapping[str, Tensor], description: dict[str, Any]) -> ReIDModel:
    """Make the trained model of a file's content; what a slim file lacks, which the test branch never reads, is random."""
    model = untrained_like(description, pretrained=False)
    _, training = model.split_state()
    if model.sgtm is not None and model.sgtm.skeleton_message is None:
        # Files of earlier versions hold these, which nothing read.
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("sgtm.skeleton_message.")}
    if model.prediction is not None:
        # In files of earlier versions f4 weighs as much as another part.
        tensors = {"prediction.weight": model.prediction.weight, **tensors}
    model.load_state_dict({**training, **tensors} if description.get("slim") else tensors)
    return model


def untrained_like(description: dict[str, Any], pretrained: bool) -> ReIDModel:
    """Make the model of a description as it was before both stages; ``vision.pretrained`` is used or left out."""
    settings = Settings.model_validate(description["settings"])
    encoder = empty_encoder(description["joint_set"], description["width"], settings)
    cameras = len(description["cameras"])
    return build_model(encoder, 1.0, description["identities"], cameras, settings, load_vision=pretrained)
