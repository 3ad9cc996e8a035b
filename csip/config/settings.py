"""The whole tree of settings."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from csip.config.sections import (
    ClipSettings,
    DatasetSettings,
    EvaluationSettings,
    RuntimeSettings,
    Section,
    SkeletonEncoderSettings,
    VisionSettings,
)
from csip.config.training import SkeletonTrainingSettings, Stage1Settings, Stage2Settings


class Settings(Section):
    """Everything that a run is a function of."""

    dataset: DatasetSettings
    """The data set: its layout, its place, its protocol and its split."""
    estimator: Literal["human3d", "demo"] = "human3d"
    """Pose estimator of `csip skeletons`: MMPose's human3d for photographs, demo for rendered people."""
    clips: ClipSettings = ClipSettings()
    """Clips: frames per clip, image size, normalisation and augmentation."""
    vision: VisionSettings = VisionSettings()
    """The image encoder."""
    skeleton_encoder: SkeletonEncoderSettings = SkeletonEncoderSettings()
    """The Skeleton Graph Transformer."""
    stage1: Stage1Settings = Stage1Settings()
    """Stage 1: contrastive skeleton-image pretraining."""
    stage2: Stage2Settings = Stage2Settings()
    """Stage 2: prototype-guided fine-tuning of the image encoder."""
    skeleton_training: SkeletonTrainingSettings = SkeletonTrainingSettings()
    """Re-identification from skeletons alone (`csip train-skeleton`)."""
    evaluation: EvaluationSettings = EvaluationSettings()
    """Embedding, ranking and metrics."""
    runtime: RuntimeSettings = RuntimeSettings()
    """Device, precision, processes and seed."""

    @model_validator(mode="after")
    def check_decay(self) -> Settings:
        if list(self.stage2.decay_epochs) != sorted(self.stage2.decay_epochs):
            raise ValueError("stage2.decay_epochs must rise")
        return self

    @model_validator(mode="after")
    def check_modules(self) -> Settings:
        if self.stage2.atd and not self.stage2.mte:
            raise ValueError(
                "stage2.atd distils message tokens and needs stage2.mte: true; set stage2.atd: false or mte: true"
            )
        temporal = self.stage2.mte or self.stage2.ta
        if self.stage2.lambda_distill and not temporal:
            raise ValueError("stage2.lambda_distill is of temporal modelling: it needs stage2.mte or stage2.ta: true")
        if self.stage2.train_skeleton_encoder and not (temporal or self.stage2.update_prototypes):
            raise ValueError(
                "stage2.train_skeleton_encoder: nothing would train it; it needs stage2.update_prototypes, mte or ta: true"
            )
        return self
