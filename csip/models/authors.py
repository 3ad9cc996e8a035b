"""Stage-2 weights that were trained with the code of the method's authors, as weights of our model.

Their state dict holds five kinds of parameters:

    image_encoder.*                              OpenAI's vision transformer                     -> vision.visual.*
    cv_embed                                     a row a camera                                  -> vision.camera_embedding
    TMM.*                                        skeleton-guided temporal modelling              -> sgtm.*
    bottleneck*.*, classifier*.weight            BN necks and classifiers                        -> heads.*, frame_head.*
    VTU.*, PF.*, skeleton_encoder.*, *_ske.*     fusion, update and skeletons: training alone    left over

Their test branch and ours compute the same from them, given the settings of ``configs/paper/common.yaml``: quick GELU,
8 heads in temporal modelling, no frame positions, pixels normalised with ImageNet's mean, and a descriptor [f1; f2; f3]
that is normalised as a whole.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from csip.config import Settings
from csip.errors import CsipError
from csip.models.factory import build_model, empty_encoder
from csip.models.reid import ReIDModel
from csip.models.vision import is_torchscript

JOINT_SET = "h36m17"

# Their modules and ours, parameter for parameter; a neck's counter and an attention's projections are in `_names`.
MODULES = {
    "TMM.msg_fc_vis": "sgtm.visual_message.project",
    "TMM.msg_ln_vis": "sgtm.visual_message.norm",
    "TMM.msg_fc_ske": "sgtm.project_skeleton",
    "TMM.msg_ln_ske": "sgtm.skeleton_message.norm",
    "TMM.norm_vis": "sgtm.distil_norm",
    "TMM.norm_ske": "sgtm.distil_memory_norm",
    "TMM.ln_1": "sgtm.aggregate.norm",
    "TMM.ln_2": "sgtm.aggregate.mlp_norm",
    "TMM.mlp.0": "sgtm.aggregate.mlp.0",
    "TMM.mlp.3": "sgtm.aggregate.mlp.3",
    "TMM.token_attn_score.0": "sgtm.aggregate.score",
}
ATTENTIONS = {
    "TMM.msg_attn_vis": "sgtm.visual_message.attention",
    "TMM.msg_attn_ske": "sgtm.skeleton_message.attention",
    "TMM.cross_attn_ske_to_vis": "sgtm.distil",
    "TMM.attention": "sgtm.aggregate.attention",
}
NECKS = {
    "bottleneck": "heads.0.neck",
    "bottleneck_proj": "heads.1.neck",
    "bottleneck_proj_temp2": "heads.2.neck",
    "bottleneck_proj_temp": "frame_head.neck",
}
# One classifier of theirs serves the clip's temporal feature and its frames, as ours does with `share_classifier`.
CLASSIFIERS = {
    "classifier": ("heads.0.classifier",),
    "classifier_proj": ("heads.1.classifier",),
    "classifier_proj_temp": ("heads.2.classifier", "frame_head.classifier"),
}
TRAINING_ALONE = {
    "VTU.": "update of the prototypes",
    "PF.": "fusion of the prototypes",
    "skeleton_encoder.": "skeleton encoder",
    "classifier_ske.": "skeleton classifier",
    "bottleneck_ske.": "skeleton neck",
    "classifier_proj_temp2.": "never used by its authors either",
}
UNKNOWN = "unknown"
# Settings of stage 2 that the authors' test branch cannot do without.
REQUIRED = {
    "temporal_heads": 8,
    "frame_position": False,
    "temporal_residual": False,
    "mte": True,
    "atd": True,
    "ta": True,
}


@dataclass(frozen=True)
class Key:
    """What became of one parameter of the file.

    Attributes
    ----------
    name, shape
        As in the file, without ``module.``.
    status
        ``used`` under its own name below another prefix, ``renamed``, or ``left over``.
    becomes
        Names in our model; empty where it is left over.
    why
        Why it is left over; `UNKNOWN` for a name that the authors' code does not have.
    """

    name: str
    shape: tuple[int, ...]
    status: Literal["used", "renamed", "left over"]
    becomes: tuple[str, ...] = ()
    why: str = ""


@dataclass(frozen=True)
class Imported:
    """A stage-2 model made of somebody else's weights.

    Attributes
    ----------
    model
        Evaluates as theirs; what only training uses and the file cannot give has its initial value.
    settings
        Of the model: as asked for, with the smallest skeleton encoder.
    identities, cameras
        N and the number of cameras (0 without camera embedding), as the file has them.
    keys
        Every parameter of the file, in its order.
    initial
        Names of our model's parameters that are not from the file. None of them is in the test branch.
    """

    model: ReIDModel
    settings: Settings
    identities: int
    cameras: int
    keys: tuple[Key, ...]
    initial: tuple[str, ...]


def read_reference(path: Path) -> dict[str, Tensor]:
    """Read a state dict as ``torch.save(model.state_dict(), path)`` writes it; nothing in the file is executed.

    Returns
    -------
    dict
        Float32 tensors (counters stay integers) by name, without DataParallel's ``module.``.

    Raises
    ------
    CsipError
        The file is missing or damaged, holds more than tensors, or a number that is not finite.
    """
    if not path.is_file():
        raise CsipError(f"{path}: no such file; expected a state dict of a stage-2 model of the method's authors")
    advice = (
        "a whole pickled model can run code as it is read, so it is not. Where the file was made, load the model and write "
        "its weights alone: torch.save(model.state_dict(), 'weights.pth')"
    )
    content: Any
    try:
        if is_torchscript(path):
            raise CsipError(f"{path}: a TorchScript program; {advice}")
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Torch's own message advises to read the file all the same.
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f" (it asks for {asked[1]})" if asked else ""
        raise CsipError(f"{path}: holds more than tensors{what}; {advice}") from error
    except CsipError:
        raise
    except Exception as error:  # torch, pickle and zipfile raise whatever they stumble over
        raise CsipError(f"{path}: damaged, or not a file that torch.save wrote: {error}") from error
    content = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        found = type(content).__name__ if not isinstance(content, Mapping) else "a mapping that holds other things"
        raise CsipError(
            f"{path}: expected a mapping of names to tensors, found {found}; write model.state_dict() alone"
        )
    weights = {
        name.removeprefix("module."): value.float() if value.is_floating_point() else value
        for name, value in content.items()
    }
    broken = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if broken:
        raise CsipError(f"{path}: numbers that are not finite in {_some(broken)}")
    return weights


def import_reference(weights: Mapping[str, Tensor], settings: Settings) -> Imported:
    """Make our stage-2 model of the authors' weights.

    Parameters
    ----------
    weights
        Of `read_reference`.
    settings
        Of the model that they are to become; ``configs/paper`` has the authors'. ``stage2.camera_embedding`` says whether
        ``cv_embed`` must be there.

    Raises
    ------
    CsipError
        Parameters are missing or have other shapes than the settings' model, or the settings are not the authors' where
        the descriptor depends on them.
    """
    _check_settings(settings)
    # Nothing of the skeleton encoder is taken over: the smallest one stands in for it.
    shallow = settings.skeleton_encoder.model_copy(update={"depth": 1, "temporal": False})
    settings = settings.model_copy(update={"skeleton_encoder": shallow})
    identities = len(weights["classifier.weight"]) if "classifier.weight" in weights else 2
    cameras = len(weights["cv_embed"]) if settings.stage2.camera_embedding and "cv_embed" in weights else 0
    encoder = empty_encoder(JOINT_SET, _embedding_width(weights), settings)
    model = build_model(encoder, settings.stage1.tau, identities, max(cameras, 1), settings, load_vision=False)
    _check_activation(model, settings)

    target = model.state_dict()
    names = _names(target)
    missing = [name for name in names if name not in weights and not name.endswith("num_batches_tracked")]
    if missing:
        advice, parameter = "is it a stage-2 checkpoint of CSIP-ReID?", ""
        if missing == ["cv_embed"]:
            advice, parameter = "for a model without camera embedding set stage2.camera_embedding=false", "settings"
        raise CsipError(f"{len(missing)} parameters are missing: {_some(missing)}; {advice}", parameter=parameter)
    wrong = [
        f"{name} is {tuple(weights[name].shape)}, expected {tuple(target[ours].shape)}"
        for name, all_ours in names.items()
        for ours in all_ours[:1]
        if name in weights and weights[name].shape != target[ours].shape
    ]
    if wrong:
        raise CsipError(
            f"{len(wrong)} parameters have other shapes than {settings.vision.model} with images of "
            f"{settings.clips.height}x{settings.clips.width} pixels has: {_some(wrong, '; ')}"
        )

    taken = {ours: weights[name] for name, all_ours in names.items() if name in weights for ours in all_ours}
    # Theirs has no second projection of the skeletons' messages.
    project = "sgtm.skeleton_message.project"
    rest = {f"{project}.weight": torch.eye(len(target[f"{project}.bias"])), f"{project}.bias": torch.zeros(())}
    with torch.no_grad():
        for name, value in (taken | rest).items():
            target[name].copy_(value)
    return Imported(
        model,
        settings,
        identities,
        cameras,
        tuple(_fate(name, value, names) for name, value in weights.items()),
        tuple(name for name in target if name not in taken),
    )


def _names(target: Mapping[str, Tensor]) -> dict[str, tuple[str, ...]]:
    """Return our names for each of theirs that our model has a place for."""
    names: dict[str, tuple[str, ...]] = {
        f"image_encoder.{name.removeprefix('vision.visual.')}": (name,)
        for name in target
        if name.startswith("vision.visual.")
    }
    if "vision.camera_embedding" in target:
        names["cv_embed"] = ("vision.camera_embedding",)
    names["TMM.token_type_embed.weight"] = ("sgtm.types",)
    for theirs, ours in MODULES.items():
        names |= {f"{theirs}.{part}": (f"{ours}.{part}",) for part in ("weight", "bias")}
    for theirs, ours in ATTENTIONS.items():
        for part in ("weight", "bias"):
            names[f"{theirs}.in_proj_{part}"] = (f"{ours}.in_proj.{part}",)
            names[f"{theirs}.out_proj.{part}"] = (f"{ours}.out_proj.{part}",)
    for theirs, ours in NECKS.items():
        for part in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
            names[f"{theirs}.{part}"] = (f"{ours}.{part}",)
    for theirs, all_ours in CLASSIFIERS.items():
        names[f"{theirs}.weight"] = tuple(f"{ours}.weight" for ours in all_ours if f"{ours}.weight" in target)
    return names


def _fate(name: str, value: Tensor, names: Mapping[str, tuple[str, ...]]) -> Key:
    shape = tuple(value.shape)
    if name in names:
        kept = name.startswith("image_encoder.")
        return Key(name, shape, "used" if kept else "renamed", names[name])
    why = next((why for prefix, why in TRAINING_ALONE.items() if name.startswith(prefix)), UNKNOWN)
    return Key(name, shape, "left over", why=why if why == UNKNOWN else f"training alone: {why}")


def _embedding_width(weights: Mapping[str, Tensor]) -> int:
    proj = weights.get("image_encoder.proj")
    if proj is None or proj.ndim != 2:
        raise CsipError(
            "image_encoder.proj is missing or no matrix: expected the state dict of a stage-2 model of CSIP-ReID with a "
            "vision transformer"
        )
    return proj.shape[1]


def _check_settings(settings: Settings) -> None:
    wrong = [
        f"stage2.{name} is {getattr(settings.stage2, name)}, theirs {value}"
        for name, value in REQUIRED.items()
        if getattr(settings.stage2, name) != value
    ]
    if wrong:
        raise CsipError(f"these settings are not the authors': {'; '.join(wrong)}; configs/paper has theirs")


def _check_activation(model: ReIDModel, settings: Settings) -> None:
    from open_clip.transformer import QuickGELU

    if not any(isinstance(module, QuickGELU) for module in model.vision.modules()):
        raise CsipError(
            f"vision.model: {settings.vision.model} with vision.pretrained: {settings.vision.pretrained} has the plain GELU, "
            "the authors' image encoder the quick one; use ViT-B-16 with openai, or ViT-B-16-quickgelu"
        )


def _some(items: list[str], separator: str = ", ", count: int = 8) -> str:
    more = f"{separator}and {len(items) - count} more" if len(items) > count else ""
    return separator.join(items[:count]) + more
