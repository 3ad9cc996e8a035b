"""Settings that nothing reads, because the part that would is off.

A settings file may hold the settings of parts that it leaves off. An override of one asks for a change that would not come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from csip.config.settings import Settings


@dataclass(frozen=True)
class Part:
    """A part of the method, and the settings that nothing else reads.

    Attributes
    ----------
    on
        Whether settings have it.
    turned_on_by
        How they get it, for the message.
    keys
        Its settings, and sections of them.
    """

    on: Callable[[Settings], bool]
    turned_on_by: str
    keys: tuple[str, ...]


PARTS = (
    Part(
        lambda s: s.stage2.update_prototypes,
        "stage2.update_prototypes=true",
        ("stage2.update_tokens", "stage2.detach_tokens", "stage2.prototype_attention", "stage2.prototype_heads",
         "stage2.prototype_layers", "stage2.project_prototypes"),
    ),
    Part(
        lambda s: s.stage2.mte or s.stage2.ta,
        "stage2.mte=true or stage2.ta=true",
        ("stage2.detach_visual", "stage2.temporal_heads", "stage2.share_classifier", "stage2.frame_position",
         "stage2.temporal_residual", "stage2.lambda_frame"),
    ),
    Part(
        lambda s: s.stage2.update_prototypes or s.stage2.mte or s.stage2.ta,
        "stage2.update_prototypes=true, stage2.mte=true or stage2.ta=true",
        ("stage2.dropout",),
    ),
    Part(lambda s: s.stage2.predict_skeletons, "stage2.predict_skeletons=true", ("stage2.reader_steps",)),
    Part(lambda s: s.skeleton_training.encoder == "graph", "skeleton_training.encoder=graph", ("skeleton_training.width",)),
    Part(lambda s: s.skeleton_training.encoder == "window", "skeleton_training.encoder=window", ("skeleton_training.window",)),
    Part(
        lambda s: s.skeleton_training.contrast > 0,
        "skeleton_training.contrast=1",
        ("skeleton_training.lambda_gpc", "skeleton_training.alpha", "skeleton_training.beta", "skeleton_training.tau_sequence",
         "skeleton_training.tau_frame", "skeleton_training.reconstruct_every", "skeleton_training.mask_joints",
         "skeleton_training.mask_frames"),
    ),
    Part(
        lambda s: s.skeleton_training.classifier > 0,
        "skeleton_training.classifier=1",
        ("skeleton_training.margin", "skeleton_training.temperature", "skeleton_training.smoothing"),
    ),
    Part(
        lambda s: s.evaluation.rerank,
        "evaluation.rerank=true",
        ("evaluation.rerank_k1", "evaluation.rerank_k2", "evaluation.rerank_mix"),
    ),
)  # fmt: skip


def unread(settings: Settings, keys: Iterable[str]) -> list[str]:
    """Say which of `keys` nothing reads with these settings, and what would have them read."""
    return [
        f"{key}: nothing reads it without {part.turned_on_by}"
        for key in dict.fromkeys(keys)
        for part in PARTS
        if not part.on(settings) and any(key == own or key.startswith(f"{own}.") for own in part.keys)
    ]
