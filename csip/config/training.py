"""The sections of the settings that say how a model is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from csip.config.sections import Section


class Stage1Settings(Section):
    """Stage 1: contrastive skeleton-image pretraining."""

    epochs: int = Field(120, ge=1)
    """Training epochs (authors: 120)."""
    batch: int = Field(64, ge=2)
    """Clips per batch (authors: 64)."""
    lr: float = Field(3.5e-4, gt=0)
    """Learning rate of Adam after warm-up (authors: 3.5e-4)."""
    min_lr: float = Field(1e-6, ge=0)
    """Learning rate at the end of the cosine schedule (authors: 1e-6)."""
    warmup_epochs: int = Field(5, ge=0)
    """Epochs of linear warm-up (authors: 5)."""
    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay (authors: 1e-4)."""
    val_every: int = Field(10, ge=1)
    """Epochs between two measurements of skeleton-to-image retrieval on the held-out identities."""
    batches: Literal["random", "camera", "alike"] = "random"
    """Clips that share a batch: any; those of one camera, so that the camera does not give the identity away; or four of each
    identity, the identities in pairs with the most similar images, so that the images do not."""
    clips_per_tracklet: int = Field(1, ge=1)
    """Random clips per tracklet and epoch."""
    normalize: bool = True
    """Cosine similarity with a learnable temperature; false: inner product with a constant one (authors)."""
    tau: float = Field(0.07, gt=0)
    """Temperature: the initial value where normalize is true, otherwise the constant (authors: 1)."""
    lambda_skeletons: float = Field(0.0, ge=0)
    """Weight of a supervised contrast among the skeletons of a batch, of which several then have to show one identity
    (batches: alike); 0: off (authors)."""


class Stage2Settings(Section):
    """Stage 2: prototype-guided fine-tuning of the image encoder."""

    epochs: int = Field(80, ge=1)
    """Training epochs (authors: 80, iLIDS-VID 60)."""
    ids_per_batch: int = Field(4, ge=2)
    """Identities per batch (authors: 4)."""
    tracklets_per_id: int = Field(4, ge=2)
    """Tracklets per identity in a batch (authors: 4)."""
    batches: Literal["random", "alike"] = "random"
    """Identities that share a batch: any, or pairs with the most similar image prototypes."""
    lr: float = Field(5e-6, gt=0)
    """Learning rate of Adam for pretrained weights after warm-up (authors: 5e-6)."""
    new_lr_factor: float = Field(10.0, gt=0)
    """Factor on the learning rate of new modules (authors: 10; LS-VID and iLIDS-VID 1)."""
    new_lr_modules: Literal["all", "authors"] = "all"
    """New modules that the factor is for: all, or fusion, updater, temporal modelling and the classifier of f2 (authors)."""
    bias_lr_factor: float = Field(2.0, gt=0)
    """Factor on the learning rate of biases (authors: 2)."""
    weight_decay: float = Field(1e-4, ge=0)
    """Weight decay (authors: 1e-4)."""
    warmup_epochs: int = Field(10, ge=0)
    """Epochs of linear warm-up (authors: 10, counted from 1, so 9 here)."""
    warmup_start: float = Field(0.1, gt=0, le=1)
    """Factor on the learning rate in the first epoch of the warm-up (authors: 0.19)."""
    decay_epochs: tuple[int, ...] = (30, 50, 70)
    """Epochs after which the learning rate falls to a tenth, in rising order (authors: 29, 49, 69)."""
    smoothing: float = Field(0.1, ge=0, lt=1)
    """Label smoothing of all classification losses (authors: 0.1)."""
    margin: float = Field(0.3, ge=0)
    """Margin of the batch-hard triplet loss, Euclidean distance (authors: 0.3)."""
    lambda_ce: float = Field(0.25, ge=0)
    """Weight of the identity classification loss (authors: 0.25)."""
    lambda_triplet: float = Field(1.0, ge=0)
    """Weight of the triplet loss (authors: 1)."""
    lambda_csip: float = Field(1.0, ge=0)
    """Weight of the prototype loss L_CSIP, lambda_1 of the paper (authors: 1)."""
    lambda_frame: float = Field(0.1625, ge=0)
    """Weight of the frame classification loss L_Frame, lambda_2 of the paper (authors: 1.3 / T)."""
    lambda_distill: float = Field(0.0, ge=0)
    """Weight of the distillation from the branch with skeletons to the test branch, with temporal modelling; 0: off (authors)."""
    skeletons: Literal["own", "others"] = "own"
    """Skeletons that training sees: each identity's own; control: those of another identity."""
    prototypes: Literal["fused", "images"] = "fused"
    """Prototypes: fused from both modalities; control: from images alone."""
    fusion: Literal["weight", "gate"] = "weight"
    """Fusion of image and skeleton prototypes: a learnable weight per identity (paper), or an MLP (authors)."""
    prototype_attention: Literal["full", "induced"] = "full"
    """Self-attention of the prototypes: all pairs, or through 64 learnable points, cheaper with many identities."""
    prototype_heads: int = Field(8, ge=1)
    """Attention heads of the prototype decoder."""
    prototype_layers: int = Field(2, ge=1)
    """Layers of the prototype decoder (paper: 2)."""
    project_prototypes: bool = False
    """The updater as the authors have it: LayerNorm and projection of prototypes and tokens, quick GELU, no zero start."""
    update_prototypes: bool = False
    """Update of the fused prototypes by each clip before they are compared with it (PFU; paper: true)."""
    detach_tokens: bool = True
    """Stops the gradient from the prototype update to the encoders (authors: false)."""
    update_tokens: Literal["cls", "all"] = "cls"
    """Tokens that update the prototypes: CLS tokens of all frames (paper), or all tokens averaged over time (authors)."""
    prototype_momentum: float | None = Field(None, ge=0, lt=1)
    """Momentum of the refresh of the image prototypes before each epoch; null: no refresh."""
    frozen_blocks: int = Field(0, ge=0)
    """Lowest blocks of the image encoder that are not trained, nor the embeddings below them; faster steps, less memory."""
    train_skeleton_encoder: bool = False
    """Fine-tuning of the skeleton encoder too; false: frozen (paper)."""
    detach_visual: bool = True
    """Stops the gradient from temporal modelling to the image encoder (authors: true)."""
    mte: bool = False
    """Temporal modelling: message tokens with attention over time; without mte and ta there is none (paper: true)."""
    atd: bool = False
    """Temporal modelling: distillation of the skeleton's message tokens into the visual ones; needs mte (paper: true)."""
    ta: bool = False
    """Temporal modelling: aggregation of each frame's tokens by attention pooling (paper: true)."""
    predict_skeletons: bool = True
    """Prediction of the skeletons from the images after the epochs, and a feature of how they move, which the test then has;
    held-out identities choose its weight (authors: false)."""
    reader_steps: int = Field(400, ge=1)
    """Batches of 128 clips that teach the reader of predicted skeletons who moves how."""
    temporal_heads: int | None = Field(None, ge=1)
    """Attention heads of temporal modelling; null: the image encoder's width / 64 (authors: 8)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout probability of attention and MLP in the updater and in temporal modelling (authors: 0.1)."""
    share_classifier: bool = False
    """One classifier for the temporal feature of a clip and of its frames (authors: true)."""
    frame_position: bool = True
    """Temporal modelling: position embedding of the frames (authors: false)."""
    temporal_residual: bool = False
    """Temporal modelling: a frame's vector is its CLS token plus a learned term that is zero at the start."""
    camera_embedding: bool = True
    """Learnable embedding per training camera, added to the CLS token (side information embedding)."""
    clip_gradient: float | None = Field(None, gt=0)
    """Largest norm of the gradient of all parameters; null: no clipping."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of a moving average of the weights, which is then validated and kept; null: no average."""
    val_every: int = Field(5, ge=1)
    """Epochs between two validations on the held-out identities."""


class SkeletonAugmentation(Section):
    """Random changes of a training window of skeletons, the same for all its frames except for ``jitter``."""

    rotation: float = Field(10.0, ge=0, le=180)
    """Largest rotation about the vertical axis in degrees."""
    noise: float = Field(0.01, ge=0)
    """Standard deviation of an offset per joint and window in metres."""
    jitter: float = Field(0.003, ge=0)
    """Standard deviation of an offset per joint and frame in metres."""
    scale: float = Field(0.0, ge=0)
    """Standard deviation of the factor on the body's size, which itself identifies people; 0: off."""
    mirror: float = Field(0.0, ge=0, le=1)
    """Probability that left and right are swapped."""
    stride: int = Field(1, ge=1)
    """Largest step between two frames of a window."""


class WindowNetworkSettings(Section):
    """The network of ``skeleton_training.encoder: window``: a residual MLP over all values of a window."""

    width: int = Field(512, ge=8)
    """Width of the hidden layers."""
    depth: int = Field(2, ge=1)
    """Residual blocks."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout probability in the blocks."""
    joints: bool = True
    """Input: root-centred joints."""
    bones: bool = True
    """Input: bone vectors."""
    lengths: bool = True
    """Input: bone lengths."""
    velocities: bool = False
    """Input: change of each joint from frame to frame."""
    distances: bool = False
    """Input: distances between all pairs of joints."""
    face_front: bool = False
    """Rotation of each window about the vertical axis so that shoulders and hips face the same way."""


class SkeletonTrainingSettings(Section):
    """Re-identification from skeletons alone (`csip train-skeleton`)."""

    encoder: Literal["graph", "window"] = "graph"
    """Encoder: the Skeleton Graph Transformer, which stage 1 can pretrain, or an MLP over the whole window."""
    window: WindowNetworkSettings = WindowNetworkSettings()
    """The network of encoder: window."""
    width: int = Field(128, ge=8)
    """Width of the graph transformer where it is not pretrained."""
    embedding: int = Field(256, ge=8)
    """Length of a descriptor."""
    frames: int = Field(6, ge=1)
    """Frames per window, f (TranSG: 6)."""
    epochs: int = Field(60, ge=1)
    """Training epochs."""
    batch: int = Field(256, ge=2)
    """Windows per batch (TranSG: 256)."""
    lr: float = Field(3.5e-4, gt=0)
    """Learning rate of AdamW after warm-up (TranSG: 3.5e-4)."""
    min_lr: float = Field(1e-6, ge=0)
    """Learning rate at the end of the cosine schedule."""
    warmup_epochs: int = Field(1, ge=0)
    """Epochs of linear warm-up."""
    weight_decay: float = Field(0.0, ge=0)
    """Weight decay."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of a moving average of the weights, which is then validated and kept; null: no average."""
    val_share: float = Field(0.15, ge=0, lt=1)
    """Share of the identities with one training sequence held out to choose the epoch; where too few have two sequences,
    share of each sequence, at its end; 0: the last epoch is kept."""
    augment: SkeletonAugmentation = SkeletonAugmentation()
    """Augmentation of the training windows."""
    contrast: float = Field(1.0, ge=0)
    """Weight of lambda_gpc * GPC + (1 - lambda_gpc) * STPR, the losses of TranSG (CVPR 2023); 0: off."""
    lambda_gpc: float = Field(0.5, ge=0, le=1)
    """Share of the graph prototype contrast (GPC) against reconstruction (STPR), lambda (TranSG: 0.5)."""
    alpha: float = Field(0.5, ge=0, le=1)
    """GPC: share of the sequence level against the level of single frames (TranSG: 0.5)."""
    beta: float = Field(0.5, ge=0, le=1)
    """STPR: share of masked joints against masked frames (TranSG: 0.5)."""
    tau_sequence: float = Field(0.07, gt=0)
    """GPC: temperature of the cosine between a window and the prototypes, t1."""
    tau_frame: float = Field(14.0, gt=0)
    """GPC: temperature of the inner product between a frame and the prototypes, t2."""
    reconstruct_every: int = Field(1, ge=1)
    """STPR: interval in batches between two with it; it costs two passes of the encoder (TranSG: every batch)."""
    mask_joints: float = Field(0.5, ge=0, lt=1)
    """STPR: share of the joints that are masked (TranSG: 10 of 20, 7 of 17)."""
    mask_frames: int = Field(2, ge=0)
    """STPR: frames per window that are masked, fewer than frames (TranSG: 2)."""
    classifier: float = Field(0.0, ge=0)
    """Weight of the cosine classifier with margin; 0: off."""
    margin: float = Field(0.2, ge=0)
    """Classifier: margin subtracted from the cosine of the own identity."""
    temperature: float = Field(16.0, gt=0)
    """Classifier: factor on the cosines."""
    smoothing: float = Field(0.1, ge=0, lt=1)
    """Classifier: label smoothing."""

    @model_validator(mode="after")
    def check_losses(self) -> SkeletonTrainingSettings:
        if self.contrast == 0 and self.classifier == 0:
            raise ValueError("contrast and classifier are both 0: there is nothing to train by")
        if self.encoder == "window" and self.contrast > 0:
            raise ValueError("encoder window has no frames and joints to contrast: use contrast=0 and classifier=1")
        if self.mask_frames >= self.frames and self.contrast > 0:
            raise ValueError("mask_frames must be below frames")
        window = self.window
        if not (window.joints or window.bones or window.lengths or window.velocities or window.distances):
            raise ValueError("window: every input is off")
        return self
