"""The sections of the settings around training: data, clips, encoders, evaluation, machine.

The text below a setting is its description: `csip settings` prints it, and docs/settings.md is made of it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1)]


class Section(BaseModel):
    """A part of the tree: immutable, described, and closed to unknown keys and non-finite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class DatasetSettings(Section):
    """The data set: its layout, its place, its protocol and its split."""

    name: Text
    """Name of the data set: its data are in data/NAME, its runs in runs/NAME."""
    layout: Literal["mars", "lsvid", "ilidsvid", "prid2011", "folder", "kgbd", "biwi", "ias", "ks20", "transg"] = (
        "folder"
    )
    """Layout of the files on disk, which selects the reader."""
    root: Path | None = None
    """Folder of the data set; null: data/NAME."""
    gallery: Literal["with_queries", "without_queries"] = "with_queries"
    """MARS, LS-VID: whether query tracklets stay in the gallery; with_queries is the original protocol."""
    probe: Text | None = None
    """Probe set of BIWI (Still, Walking), IAS-Lab (A, B) and transg (those or probe); null: the first one."""
    split: int = Field(0, ge=0)
    """iLIDS-VID, PRID2011: index of the split into training and test identities, from 0."""
    piece_frames: int | None = Field(48, ge=1)
    """LS-VID: length in frames of the pieces that longer training tracklets are cut into; null: whole tracklets."""
    train_share: float = Field(0.5, gt=0, lt=1)
    """Folder layout without train/ and test/: share of the identities that are used for training."""
    val_ids: int = Field(0, ge=0)
    """Training identities held out to choose the checkpoint and to measure stage 1; 0: the last epoch is kept."""

    @property
    def path(self) -> Path:
        return self.root if self.root is not None else Path("data") / self.name


class ClipSettings(Section):
    """Clips: frames per clip, image size, normalisation and augmentation."""

    frames: int = Field(8, ge=1)
    """Frames per clip, T (paper: 8)."""
    stride: int | None = Field(None, ge=1)
    """Step in frames between the frames of a clip, in training and test; null: training clips span the tracklet (paper)."""
    height: int = Field(256, ge=16)
    """Height of an image in pixels after resizing (paper: 256)."""
    width: int = Field(128, ge=16)
    """Width of an image in pixels after resizing (paper: 128)."""
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    """Mean of red, green and blue, of pixels in 0 to 1, that is subtracted; default: CLIP's."""
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    """Standard deviation of red, green and blue, of pixels in 0 to 1, to divide by; default: CLIP's."""
    flip: float = Field(0.5, ge=0, le=1)
    """Probability that a training clip of stage 2 is mirrored, skeletons included."""
    pad: int = Field(10, ge=0)
    """Pixels of black padding before the random crop of a training clip; 0: no crop."""
    erase: float = Field(0.5, ge=0, le=1)
    """Probability that a random rectangle of a training frame is erased."""
    erase_area: float = Field(0.4, gt=0.02, le=1)
    """Largest share of a frame that is erased; the smallest is 0.02 (authors: 0.2)."""
    max_gap: int = Field(5, ge=0)
    """Longest run of frames without a pose that is interpolated between two frames with one; 0: none."""


class VisionSettings(Section):
    """The image encoder."""

    model: Text = "ViT-B-16"
    """OpenCLIP name of a vision transformer, or its JSON model file (paper: CLIP ViT-B/16)."""
    pretrained: Text | None = "openai"
    """OpenCLIP tag or weights file of the initial weights; null: random weights."""


class SkeletonEncoderSettings(Section):
    """The Skeleton Graph Transformer."""

    width: int | None = Field(None, ge=8)
    """Width of the blocks; null: that of the features, which the image encoder's embedding decides (authors)."""
    depth: int = Field(10, ge=1)
    """Transformer blocks (authors: 10)."""
    heads: int = Field(8, ge=1)
    """Attention heads per block (authors: 8)."""
    mlp_ratio: float = Field(2.0, gt=0)
    """Hidden width of a block's MLP as a multiple of the block's width (authors: 2)."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout probability in the blocks (authors: 0.3)."""
    positions: int = Field(10, ge=1)
    """Eigenvectors of the graph Laplacian in the positional encoding of a joint, K (authors: 10)."""
    temporal: bool = True
    """Attention over time per joint; without it the encoder cannot see the order of frames (authors: false)."""
    temporal_every: int = Field(2, ge=1)
    """Interval in blocks between two with attention over time, from the first block on."""
    sign_flips: bool = True
    """Random signs of the Laplacian eigenvectors in training."""
    bones: bool = False
    """Additional input per joint: its bone's vector and the deviation of the bone's length from the training mean."""
    face_front: bool = False
    """Rotation of each frame about the vertical axis so that shoulders and hips face the same way."""
    frequencies: int = Field(0, ge=0, le=32)
    """Additional input of the CLS token: mean, spread and spectrum of each joint over the clip, at so many multiples of 1/64
    cycles a frame; needs frames at a fixed step (clips.stride); 0: off."""
    projection: bool = False
    """Linear projection of the tokens of the last block (authors: true)."""


class EvaluationSettings(Section):
    """Embedding, ranking and metrics."""

    sampling: Literal["dense", "interleaved", "rrs", "rrs_first"] = "dense"
    """Test clips: every frame in consecutive clips, in clips with the time step of training, or one clip of the centre or
    the first frame (authors) of each chunk."""
    level: Literal["tracklet", "clip"] = "tracklet"
    """Unit that is ranked: tracklets (the mean descriptor of their clips) or single clips."""
    bootstrap: int = Field(1000, ge=0)
    """Bootstrap samples of the queries for the 95 % confidence intervals; 0: no intervals."""
    rerank: bool = False
    """Additional metrics after k-reciprocal re-ranking (Zhong et al., CVPR 2017), which uses the other queries."""
    rerank_k1: int = Field(20, ge=1)
    """Re-ranking: size of the k-reciprocal neighbourhood, k1."""
    rerank_k2: int = Field(6, ge=1)
    """Re-ranking: neighbours of the local query expansion, k2."""
    rerank_mix: float = Field(0.3, ge=0, le=1)
    """Re-ranking: weight of the original distance, lambda; the Jaccard distance has the rest."""
    part_norm: bool = True
    """L2 normalisation of each part of a descriptor before the whole; false: of the whole only (authors)."""
    compare_untrained: bool = False
    """Additional metrics of the same model with random and with its initial weights, as a baseline."""


class RuntimeSettings(Section):
    """Device, precision, processes and seed."""

    seed: int = 0
    """Seed of all random numbers; it also selects the random split of KGBD and KS20."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device; auto: cuda where torch sees a GPU, otherwise cpu."""
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """Numerical precision; auto: bf16-mixed on devices with bf16 units, else 32-true."""
    workers: int | None = Field(None, ge=0)
    """Processes that decode frames, per training process; 0: the main process does; null: one per core, at most 8."""
    embed_batch: int = Field(128, ge=1)
    """Frames per batch where images are embedded without training."""
    save_minutes: float = Field(10.0, ge=0)
    """Minutes between two saves of the training state within an epoch of stage 2; each stage also saves it after every epoch."""
    compile: bool = False
    """torch.compile of the image encoder: minutes at the start, faster steps on a GPU."""
    recompute: bool = False
    """Activation checkpointing of the image encoder: less memory, more time per step."""

    @property
    def decoders(self) -> int:
        """Processes that decode frames; the processes of ``torchrun`` on one machine share its cores."""
        if self.workers is not None:
            return self.workers
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(min(cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1)), 8), 1)
