"""One typed tree of settings, loaded from YAML and strict: an unknown key is an error that names the nearest valid one.

A file may name another in ``extends`` (relative to itself) and then states only what differs. ``key=value`` overrides
(``stage1.epochs=3``) come last.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from csip.errors import CsipError


class Section(BaseModel):
    """A part of the tree: immutable, and it refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetSettings(Section):
    """Which tracklets, and which of them train."""

    name: str
    layout: Literal["mars", "lsvid", "ilidsvid", "prid2011", "folder", "kgbd", "biwi", "ias", "ks20", "transg"] = (
        "folder"
    )
    root: Path | None = None
    """Folder of the data set; ``data/NAME`` where it is not given."""
    gallery: Literal["with_queries", "without_queries"] = "with_queries"
    """Whether query tracklets stay in the gallery (the original protocol of MARS and LS-VID) or are taken out of it."""
    probe: str | None = None
    """BIWI (Still, Walking), IAS-Lab (A, B), transg (those or probe): which part asks; the first one where not given."""
    split: int = Field(0, ge=0)
    """iLIDS-VID and PRID2011: which of the divisions into people who train and people who are tested, from 0."""
    piece_frames: int | None = Field(48, ge=1)
    """LS-VID: frames of the pieces that longer training tracklets are cut into; null keeps them whole."""
    train_share: float = Field(0.5, gt=0, lt=1)
    """Folder layout without train/ and test/ folders: share of the people that train."""
    val_ids: int = Field(0, ge=0)
    """Training identities held out to choose the checkpoint and to measure stage 1; 0 uses the last epoch."""

    @property
    def path(self) -> Path:
        return self.root if self.root is not None else Path("data") / self.name


class ClipSettings(Section):
    """How a tracklet becomes a clip of frames."""

    frames: int = Field(8, ge=1)
    height: int = Field(256, ge=16)
    width: int = Field(128, ge=16)
    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    flip: float = Field(0.5, ge=0, le=1)
    pad: int = Field(10, ge=0)
    erase: float = Field(0.5, ge=0, le=1)
    max_gap: int = Field(5, ge=0)
    """Frames without a pose between two that have one are interpolated if they are at most this many in a row."""


class VisionSettings(Section):
    """The image encoder: an OpenCLIP name or model file, and its weights."""

    model: str = "ViT-B-16"
    pretrained: str | None = "openai"


class SkeletonEncoderSettings(Section):
    """The Skeleton Graph Transformer."""

    depth: int = Field(10, ge=1)
    heads: int = Field(8, ge=1)
    mlp_ratio: float = Field(2.0, gt=0)
    dropout: float = Field(0.3, ge=0, lt=1)
    positions: int = Field(10, ge=1)
    temporal: bool = True
    """Attend along time too; without it the encoder cannot see the order of frames (the authors' setting)."""
    temporal_every: int = Field(2, ge=1)
    """Every how many blocks one attends along time, from the first."""
    sign_flips: bool = True
    """Draw the signs of the graph's eigenvectors at random in training."""
    bones: bool = False
    """Joints also know their bone's vector, and how its length over the clip differs from the average person's."""


class Stage1Settings(Section):
    """Contrastive skeleton-image pretraining."""

    epochs: int = Field(120, ge=1)
    batch: int = Field(64, ge=2)
    lr: float = Field(3.5e-4, gt=0)
    min_lr: float = Field(1e-6, ge=0)
    warmup_epochs: int = Field(5, ge=0)
    weight_decay: float = Field(1e-4, ge=0)
    val_every: int = Field(10, ge=1)
    """Epochs between two measurements of skeleton-to-image retrieval on the held-out identities."""
    batches: Literal["random", "camera"] = "random"
    """What shares a batch: any clips, or those of one camera, where the camera cannot tell who belongs to whom."""
    clips_per_tracklet: int = Field(1, ge=1)
    """Random clips of each tracklet in one epoch."""
    normalize: bool = True
    tau: float = Field(0.07, gt=0)
    """Temperature: the start of a learnable one where ``normalize``, a constant otherwise."""


class Stage2Settings(Section):
    """Prototype-guided fine-tuning of the image encoder."""

    epochs: int = Field(80, ge=1)
    ids_per_batch: int = Field(4, ge=2)
    tracklets_per_id: int = Field(4, ge=2)
    batches: Literal["random", "alike"] = "random"
    """Which identities share a batch: any, or pairs whose image prototypes are most alike."""
    lr: float = Field(5e-6, gt=0)
    new_lr_factor: float = Field(10.0, gt=0)
    bias_lr_factor: float = Field(2.0, gt=0)
    weight_decay: float = Field(1e-4, ge=0)
    warmup_epochs: int = Field(10, ge=0)
    decay_epochs: tuple[int, ...] = (30, 50, 70)
    smoothing: float = Field(0.1, ge=0, lt=1)
    margin: float = Field(0.3, ge=0)
    lambda_ce: float = Field(0.25, ge=0)
    lambda_triplet: float = Field(1.0, ge=0)
    lambda_csip: float = Field(1.0, ge=0)
    """lambda_1 of the paper."""
    lambda_frame: float = Field(0.1625, ge=0)
    """lambda_2 of the paper; the authors ran 1.3 / T."""
    lambda_distill: float = Field(1.0, ge=0)
    """Weight of the distillation from the branch with skeletons to the one that the test uses."""
    fusion: Literal["weight", "gate"] = "weight"
    prototype_attention: Literal["full", "induced"] = "full"
    """How prototypes see each other: all pairs, or through 64 learnable points, which pays with many identities."""
    update_prototypes: bool = True
    """Each clip changes the prototypes that it is compared with; without, they are the fused ones."""
    detach_tokens: bool = True
    """What updates the prototypes leaves the encoders alone; False is the authors' way."""
    update_tokens: Literal["cls", "all"] = "cls"
    prototype_momentum: float | None = Field(None, ge=0, lt=1)
    train_skeleton_encoder: bool = False
    detach_visual: bool = True
    mte: bool = True
    """Temporal modelling: message tokens that attend to each other over the frames. Without ``ta`` too there is none."""
    atd: bool = True
    """Temporal modelling: the skeleton's messages are distilled into the visual ones; needs ``mte``."""
    ta: bool = True
    """Temporal modelling: aggregation of each frame's tokens, pooled by attention."""
    temporal_heads: int | None = Field(None, ge=1)
    """Attention heads of temporal modelling; the image encoder's width / 64 where it is not given, the authors' 8."""
    frame_position: bool = True
    """Temporal modelling: messages know their place in the clip; the authors' do not."""
    temporal_residual: bool = False
    """Temporal modelling: a frame's vector is its CLS token and what is added to it, nothing at the start of training."""
    camera_embedding: bool = True
    clip_gradient: float | None = Field(None, gt=0)
    """Largest norm of the gradient of all parameters; longer ones are shortened to it."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of a moving average of the weights; where given, the average is what is validated and kept."""
    val_every: int = Field(5, ge=1)


class SkeletonAugmentation(Section):
    """Random changes of a window of skeletons in training, the same for all its frames but for ``jitter``."""

    rotation: float = Field(10.0, ge=0, le=180)
    """Largest turn about the vertical, degrees."""
    noise: float = Field(0.01, ge=0)
    """Standard deviation of each joint's offset, metres."""
    jitter: float = Field(0.003, ge=0)
    """The same, of each frame's own offset."""
    scale: float = Field(0.0, ge=0)
    """Standard deviation of the factor on the body's size; size tells people apart, so little of it."""
    mirror: float = Field(0.0, ge=0, le=1)
    """Probability to swap left and right."""
    stride: int = Field(1, ge=1)
    """Largest step between the frames of a window."""


class WindowNetworkSettings(Section):
    """The network of ``skeleton_training.encoder: window``: a residual perceptron over all numbers of a window."""

    width: int = Field(512, ge=8)
    depth: int = Field(2, ge=1)
    dropout: float = Field(0.3, ge=0, lt=1)
    joints: bool = True
    """Input: root-centred joints."""
    bones: bool = True
    """Input: bone vectors."""
    lengths: bool = True
    """Input: bone lengths."""
    velocities: bool = False
    """Input: each joint's change from frame to frame."""
    distances: bool = False
    """Input: distances between all pairs of joints."""
    face_front: bool = False
    """Turn each window about the vertical so that shoulders and hips face the same way."""


class SkeletonTrainingSettings(Section):
    """Re-identification from skeletons alone."""

    encoder: Literal["graph", "window"] = "graph"
    """The Skeleton Graph Transformer (``skeleton_encoder``), which stage 1 pretrains, or a network over the whole window."""
    window: WindowNetworkSettings = WindowNetworkSettings()
    width: int = Field(128, ge=8)
    """Width of the graph transformer where it is not pretrained."""
    embedding: int = Field(256, ge=8)
    """Numbers of a descriptor."""
    frames: int = Field(6, ge=1)
    """Frames of a window, f."""
    epochs: int = Field(60, ge=1)
    batch: int = Field(256, ge=2)
    lr: float = Field(3.5e-4, gt=0)
    min_lr: float = Field(1e-6, ge=0)
    warmup_epochs: int = Field(1, ge=0)
    weight_decay: float = Field(0.0, ge=0)
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of a moving average of the weights; where given, the average is what is validated and kept."""
    val_share: float = Field(0.15, ge=0, lt=1)
    """Share of the people of whom one training sequence is held out to choose the epoch (where too few have two: the share of
    each sequence, at its end); 0 keeps the last epoch."""
    augment: SkeletonAugmentation = SkeletonAugmentation()
    contrast: float = Field(1.0, ge=0)
    """Weight of lambda * GPC + (1 - lambda) * STPR."""
    lambda_gpc: float = Field(0.5, ge=0, le=1)
    alpha: float = Field(0.5, ge=0, le=1)
    """Prototype contrast: share of the sequence level; the rest is of single frames."""
    beta: float = Field(0.5, ge=0, le=1)
    """Reconstruction: share of masked joints; the rest is of masked frames."""
    tau_sequence: float = Field(0.07, gt=0)
    """Temperature of the cosine between a window and the prototypes, t1."""
    tau_frame: float = Field(14.0, gt=0)
    """Divisor of the inner product between a frame and the prototypes, t2."""
    mask_joints: float = Field(0.5, ge=0, lt=1)
    """Share of the joints that reconstruction masks: 10 of 20, 7 of 17 are .5, .41."""
    mask_frames: int = Field(2, ge=0)
    classifier: float = Field(0.0, ge=0)
    """Weight of the cosine classifier with a margin, label-smoothed."""
    margin: float = Field(0.2, ge=0)
    temperature: float = Field(16.0, gt=0)
    """Factor on the classifier's cosines."""
    smoothing: float = Field(0.1, ge=0, lt=1)

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


class EvaluationSettings(Section):
    """How tracklets are embedded and ranked."""

    sampling: Literal["dense", "rrs"] = "dense"
    level: Literal["tracklet", "clip"] = "tracklet"
    """What is ranked: tracklets, the mean of their clips, or every clip on its own."""
    bootstrap: int = Field(1000, ge=0)
    """Samples of queries that the 95 % confidence intervals come from; 0 gives none."""
    rerank: bool = False
    """Also score k-reciprocal re-ranking, which uses the other queries."""
    rerank_k1: int = Field(20, ge=1)
    rerank_k2: int = Field(6, ge=1)
    rerank_mix: float = Field(0.3, ge=0, le=1)
    """Weight of the original distance, lambda of the paper."""
    part_norm: bool = True
    compare_untrained: bool = False
    """Also score the same model before its two stages of training, with random and with its initial weights."""


class RuntimeSettings(Section):
    """The machine."""

    seed: int = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "32-true", "bf16-mixed", "16-mixed"] = "auto"
    """``auto``: bf16-mixed where the device has units for it (GPUs; processors with AVX512-BF16 or AMX), else 32-true."""
    workers: int = Field(2, ge=0)
    """Processes that decode frames."""
    embed_batch: int = Field(128, ge=1)
    """Frames embedded at once where nothing is trained."""
    save_minutes: float = Field(10.0, ge=0)
    """Training is saved after each epoch, and within an epoch when this much time has passed since."""
    compile: bool = False
    """Let torch.compile translate the image encoder: minutes at the start, faster steps on a GPU."""
    recompute: bool = False
    """Keep no activations of the image encoder's blocks, but compute them again for the gradient: less memory, more time."""


class Settings(Section):
    """Everything that a run is a function of."""

    dataset: DatasetSettings
    estimator: Literal["human3d", "demo"] = "human3d"
    clips: ClipSettings = ClipSettings()
    vision: VisionSettings = VisionSettings()
    skeleton_encoder: SkeletonEncoderSettings = SkeletonEncoderSettings()
    stage1: Stage1Settings = Stage1Settings()
    stage2: Stage2Settings = Stage2Settings()
    skeleton_training: SkeletonTrainingSettings = SkeletonTrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    runtime: RuntimeSettings = RuntimeSettings()

    @model_validator(mode="after")
    def check_decay(self) -> Settings:
        if list(self.stage2.decay_epochs) != sorted(self.stage2.decay_epochs):
            raise ValueError("stage2.decay_epochs must rise")
        return self

    @model_validator(mode="after")
    def check_modules(self) -> Settings:
        if self.stage2.atd and not self.stage2.mte:
            raise ValueError("stage2.atd distils message tokens and needs stage2.mte: true; set stage2.atd: false too")
        return self


def load_settings(path: Path, overrides: Iterable[str] = ()) -> Settings:
    """Read a settings file and apply ``key=value`` overrides.

    Raises
    ------
    CsipError
        The file is missing or no YAML mapping, a key is unknown (the nearest valid one is named), or a value has the
        wrong type or range.
    """
    tree = _read_tree(path)
    for override in overrides:
        key, separator, text = override.partition("=")
        if not separator:
            raise CsipError(f"--set {override}: expected key=value, e.g. stage1.epochs=3")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise CsipError(f"--set {key}: {text!r} is not a YAML value ({error.__class__.__name__})") from error
        _put(tree, key.strip().split("."), _number(value), override)
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise CsipError(_explain(error, path)) from error


def dump_settings(settings: Settings) -> str:
    """Return the settings as YAML that `load_settings` reads back to the same tree."""
    return yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False)


def _read_tree(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text())
    except FileNotFoundError as error:
        raise CsipError(f"{path}: no such settings file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CsipError(f"{path}: not a YAML file: {error}") from error
    if not isinstance(tree, dict):
        raise CsipError(f"{path}: expected a mapping of sections, found {type(tree).__name__}")
    base = tree.pop("extends", None)
    return _merge(_read_tree(path.parent / base), tree) if base else tree


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _put(tree: dict[str, Any], keys: list[str], value: Any, override: str) -> None:
    for key in keys[:-1]:
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            raise CsipError(f"--set {override}: {key} is a value, not a section")
    tree[keys[-1]] = value


def _number(value: Any) -> Any:
    """YAML 1.1 reads 1e-4 as a string; people write it all the same."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _explain(error: ValidationError, path: Path) -> str:
    lines = [f"{path}: {error.error_count()} setting(s) cannot be used"]
    for problem in error.errors():
        key = ".".join(map(str, problem["loc"]))
        if problem["type"] == "extra_forbidden":
            nearest = difflib.get_close_matches(key, valid_keys(), n=1, cutoff=0.0)
            lines.append(f"  {key}: unknown key; did you mean {nearest[0]}?")
        else:
            given = "" if problem["type"] == "missing" else f", got {problem['input']!r}"
            lines.append(f"  {key or 'settings'}: {problem['msg']}{given}")
    return "\n".join(lines)


def valid_keys(section: type[BaseModel] = Settings, prefix: str = "") -> list[str]:
    """Every dotted key of the tree, sections included."""
    keys = []
    for name, field in section.model_fields.items():
        keys.append(prefix + name)
        kinds = [field.annotation, *get_args(field.annotation)]
        for kind in kinds:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                keys += valid_keys(kind, f"{prefix}{name}.")
    return keys
