"""The image encoder: OpenCLIP's vision transformer at the input size of people, with camera embeddings."""

import math
import pickle
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from csip.errors import CsipError
from csip.files import parse_json
from csip.models.attention import ImageAttention
from pose_cache.compat import guard_torchvision
from pose_cache.shipped import CONFIGS

# The text tower is not built: a smallest possible one stands in for it.
NO_TEXT = {"context_length": 1, "vocab_size": 2, "width": 8, "heads": 1, "layers": 1}
QUICK = "-quickgelu"
WEIGHT_FILES = (".safetensors", ".pt", ".pth", ".bin")
HUB = "hf-hub:"
# What a tower's config counts, and the most of it: layers without end would be a damaged file.
_COUNTS = ("layers", "width", "head_width", "patch_size")
_LARGEST = 16_384
# Scalars beside the parameters, which only OpenAI's own archives of CLIP hold.
OPENAI_MARKS = frozenset({"input_resolution", "context_length", "vocab_size"})


class VisionOutput(NamedTuple):
    """What the encoder says of N images with P patches each."""

    tokens: Tensor
    """(N, 1 + P, D), all tokens of the last block after its LayerNorm, the CLS token first."""
    cls: Tensor
    """(N, D), the CLS token among them."""
    projected: Tensor
    """(N, C), the CLS token in the joint embedding space: what OpenCLIP's ``encode_image`` returns."""


class VisionEncoder(nn.Module):
    """Run an OpenCLIP vision transformer and return its tokens as well as its embedding.

    Parameters
    ----------
    visual : nn.Module
        ``open_clip.transformer.VisionTransformer`` that pools by its CLS token.
    cameras : int
        Rows of the camera embedding, which starts at zero; 0 for none.

    Attributes
    ----------
    width, embed_dim : int
        D of tokens and C of the joint embedding space.
    size : tuple of int
        (height, width) of the images, pixels.
    camera_embedding : nn.Parameter or None
        (cameras, D), added to the CLS token before the blocks.
    """

    def __init__(self, visual: Any, cameras: int = 0) -> None:
        super().__init__()
        self.visual = visual
        for block in visual.transformer.resblocks:
            block.attn = ImageAttention.of(block.attn)
        self.width, self.embed_dim = (int(size) for size in visual.proj.shape)
        height, width = visual.image_size
        self.size = (int(height), int(width))
        self.camera_embedding = nn.Parameter(torch.zeros(cameras, self.width)) if cameras else None

    def freeze(self, blocks: int) -> None:
        """Leave the lowest blocks, and the embeddings of patches, positions and cameras below them, as they are.

        Raises
        ------
        CsipError
            There are not so many blocks.
        """
        visual: Any = self.visual
        all_blocks = list(visual.transformer.resblocks)
        if blocks > len(all_blocks):
            raise CsipError(
                f"stage2.frozen_blocks: expected at most {len(all_blocks)}, the encoder's blocks, found {blocks}"
            )
        if not blocks:
            return
        for module in (visual.conv1, visual.ln_pre, *all_blocks[:blocks]):
            module.requires_grad_(False)
        for parameter in (visual.class_embedding, visual.positional_embedding, self.camera_embedding):
            if parameter is not None:
                parameter.requires_grad_(False)

    def forward(self, images: Tensor, camera: Tensor | None = None) -> VisionOutput:
        """Encode images.

        Parameters
        ----------
        images : Tensor
            (N, 3, H, W), normalised as the weights expect.
        camera : Tensor, optional
            (N,) int64 rows of the camera embedding; -1 is an unknown camera and adds nothing, as does None. Ignored by
            an encoder without camera embedding.
        """
        visual: Any = self.visual
        patches = visual.conv1(images).flatten(2).transpose(1, 2)
        cls = visual.class_embedding.expand(images.shape[0], -1)
        if self.camera_embedding is not None and camera is not None:
            known = (camera >= 0)[:, None]
            cls = cls + F.embedding(camera.clamp(min=0), self.camera_embedding) * known
        x = torch.cat((cls.to(patches.dtype)[:, None], patches), dim=1)
        x = visual.ln_pre(visual.patch_dropout(x + visual.positional_embedding.to(x.dtype)))
        tokens = visual.ln_post(visual.transformer(x))
        return VisionOutput(tokens, tokens[:, 0], tokens[:, 0] @ visual.proj)


def create_vision(
    model: str, pretrained: str | None, size: tuple[int, int], cameras: int = 0, load: bool = True
) -> VisionEncoder:
    """Build the image encoder.

    Parameters
    ----------
    model : str
        Name of an OpenCLIP model with a plain vision transformer (``ViT-B-16``), or path of a model's JSON file. A
        file that is not there is looked for among the project's configs (``vision/demo.json``), weights likewise.
    pretrained : str or None
        OpenCLIP's tag of weights (``openai``) or ``hf-hub:ORGANISATION/NAME``, downloaded on first use; a local file,
        .safetensors or .pt, of a whole CLIP or of its visual tower alone; None for random weights. With a tag, the
        activation is the one that the weights were trained with (``openai`` means ``-quickgelu``); otherwise it is the
        model's: say ``ViT-B-16-quickgelu`` for OpenAI's weights.
    size : tuple of int
        (height, width) of the images, pixels; the positional embedding is resized to its grid.
    cameras : int
        Rows of the camera embedding.
    load : bool
        False leaves random weights in place, for a model whose own weights follow: `pretrained` then decides the
        activation alone, and nothing is read or downloaded.

    Raises
    ------
    CsipError
        If the model, the weights or the size cannot be had; says what to download and where to put it.
    """
    guard_torchvision()
    import open_clip  # slow to import, and only safe behind the guard

    config = _read_config(model)
    vision = config["vision_cfg"]
    trained_size, patch = vision.get("image_size", 224), vision.get("patch_size", 16)
    if not isinstance(patch, int) or any(side < patch for side in size):
        raise CsipError(f"{model}: images of {size[0]}x{size[1]} pixels do not hold a patch of {patch} pixels")

    quick_gelu, weights_file = config.get("quick_gelu", False), None
    if pretrained is not None and pretrained.startswith(HUB):
        weights_file = _from_hub(model, pretrained, quick_gelu) if load else None
    elif pretrained is not None and Path(pretrained).suffix in WEIGHT_FILES:
        weights_file = _shipped(pretrained) if load else None
    elif pretrained is not None:
        known = model.removesuffix(QUICK)
        source = open_clip.get_pretrained_cfg(known, pretrained)
        if not source:
            tags = ", ".join(open_clip.list_pretrained_tags_by_model(known)) or "none"
            raise CsipError(
                f"vision.pretrained: {pretrained!r} is neither a file ({', '.join(WEIGHT_FILES)}), nor {HUB}..., "
                f"nor a tag of {model}; its tags: {tags}"
            )
        quick_gelu = source.get("quick_gelu", False)
        weights_file = _download(known, pretrained, source) if load else None

    visual = _tower(model, config, size, quick_gelu)
    if weights_file is not None:
        weights, from_openai = _read_weights(weights_file)
        if from_openai and not quick_gelu:
            fix = '"quick_gelu": true in it' if model.endswith(".json") else f"vision.model: {model + QUICK}"
            raise CsipError(
                f"{weights_file}: OpenAI's weights, trained with the quick GELU, which {model} has not; set {fix}"
            )
        try:
            if "positional_embedding" in weights:
                weights["positional_embedding"] = resize_positions(
                    weights["positional_embedding"], visual.grid_size, trained_size, patch
                )
            visual.load_state_dict(weights)
        except (CsipError, RuntimeError) as error:
            raise CsipError(f"{weights_file}: these are not weights of {model}: {error}") from error
    return VisionEncoder(visual, cameras)


def _tower(model: str, config: dict[str, Any], size: tuple[int, int], quick_gelu: bool) -> Any:
    """Build the visual tower of a config, with random weights."""
    import open_clip

    try:
        visual = open_clip.CLIP(
            embed_dim=config["embed_dim"],
            vision_cfg={**config["vision_cfg"], "image_size": tuple(size)},
            text_cfg=NO_TEXT,
            quick_gelu=quick_gelu,
        ).visual
    except (TypeError, ValueError, AttributeError, ArithmeticError, AssertionError, RuntimeError) as error:
        raise CsipError(f"{model}: no vision transformer can be made of its vision_cfg ({error})") from error
    if getattr(visual, "attn_pool", 1) is not None or getattr(visual, "pool_type", "") != "tok":
        raise CsipError(f"vision.model: {model} is no vision transformer with a CLS token; choose one, e.g. ViT-B-16")
    return visual


def resize_positions(
    positions: Tensor, grid: tuple[int, int], trained_size: int | tuple[int, int] | list[int], patch: int
) -> Tensor:
    """Resize the positional embedding of a CLS token and a grid of patches, bicubic.

    Parameters
    ----------
    positions : Tensor
        (1 + P, D).
    grid : tuple of int
        Rows and columns wanted.
    trained_size : int or pair of int
        Image size that the model's config states; where its grid does not have P patches, the grid is a square.
    patch : int
        Patch size, pixels.

    Raises
    ------
    CsipError
        If P patches make neither the stated grid nor a square one.
    """
    patches = len(positions) - 1
    if patches == grid[0] * grid[1]:
        return positions
    height, width = trained_size if isinstance(trained_size, (tuple, list)) else (trained_size, trained_size)
    source = (height // patch, width // patch)
    if source[0] * source[1] != patches:
        side = math.isqrt(patches)
        source = (side, side)
        if side * side != patches:
            raise CsipError(f"positional embedding of {patches} patches: neither a square nor the model's own grid")
    cls, image = positions[:1], positions[1:].float()
    image = image.T.reshape(1, -1, *source)
    image = F.interpolate(image, size=grid, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat((cls, image.flatten(2)[0].T.to(positions)))


def _shipped(path: str) -> Path:
    """Return the file, or where there is none the one of this name that ships with the project."""
    return CONFIGS / path if not Path(path).exists() and (CONFIGS / path).exists() else Path(path)


def _read_config(model: str) -> dict[str, Any]:
    import open_clip

    if model.endswith(".json"):
        try:
            config = parse_json(_shipped(model).read_bytes())
        except FileNotFoundError as error:
            raise CsipError(f"vision.model: there is no model file {model}") from error
        except ValueError as error:
            raise CsipError(f"{model}: not a JSON file: {error}") from error
        if not isinstance(config, dict):
            raise CsipError(f"{model}: expected a mapping with embed_dim and vision_cfg")
        config = config.get("model_cfg", config)
    else:
        config = open_clip.get_model_config(model) if model in open_clip.list_models() else None
        if config is None:
            raise CsipError(
                f"vision.model: OpenCLIP has no model {model!r}; expected the path of a model's .json or one of its "
                "names, e.g. ViT-B-16, ViT-B-32, ViT-L-14"
            )
    missing = {"embed_dim", "vision_cfg"} - set(config)
    if missing:
        raise CsipError(f"{model}: not an OpenCLIP model config, it lacks {', '.join(sorted(missing))}")
    tower = config["vision_cfg"]
    if not isinstance(tower, dict):
        raise CsipError(f"{model}: vision_cfg: expected a mapping, found {type(tower).__name__}")
    if "timm_model_name" in tower or isinstance(tower.get("layers", 12), list):
        raise CsipError(f"vision.model: {model} is no plain vision transformer; choose one, e.g. ViT-B-16")
    for name, value in {
        "embed_dim": config["embed_dim"],
        **{name: tower[name] for name in _COUNTS if name in tower},
    }.items():
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST:
            raise CsipError(f"{model}: {name}: expected a whole number from 1 to {_LARGEST:,}, found {value!r:.40}")
    return config


def _download(model: str, tag: str, source: dict[str, Any]) -> Path:
    import open_clip

    try:
        return Path(open_clip.download_pretrained(source))
    except Exception as error:  # whatever stands between here and the file: name, proxy, certificate, disk
        repository, _, file = source.get("hf_hub", "").rpartition("/")
        address = _hub_address(repository, file) if repository else source["url"]
        activated = model + QUICK if source.get("quick_gelu") else model
        raise _offline(f"{tag!r} of {model}", address, activated, error) from error


def _from_hub(model: str, name: str, quick_gelu: bool) -> Path:
    """Download weights that OpenCLIP's tags do not name, and check that `model` has their activation."""
    from open_clip.pretrained import download_pretrained_from_hf

    repository = name.removeprefix(HUB)
    try:
        described = Path(download_pretrained_from_hf(repository, filename="open_clip_config.json"))
        content = parse_json(described.read_bytes())
        weights = Path(download_pretrained_from_hf(repository))
    except Exception as error:
        raise _offline(name, _hub_address(repository), model, error) from error
    wanted = content.get("model_cfg", content).get("quick_gelu", False)
    if wanted != quick_gelu and not model.endswith(".json"):
        named = model + QUICK if wanted else model.removesuffix(QUICK)
        raise CsipError(
            f"vision.pretrained: {name} was trained with {'the quick' if wanted else 'the plain'} GELU, which {model} has "
            f"not; set vision.model: {named}"
        )
    return weights


def _hub_address(repository: str, file: str = "") -> str:
    return f"https://huggingface.co/{repository}/resolve/main/{file or 'open_clip_model.safetensors'}"


def _offline(what: str, address: str, model: str, error: Exception) -> CsipError:
    file = Path(address).name
    return CsipError(
        f"vision.pretrained: could not download {what} ({type(error).__name__}). "
        f"Where there is a network, fetch\n  {address}\nthen put it on this machine, e.g. as data/weights/{file}, and set\n"
        f"  vision.model: {model}\n  vision.pretrained: data/weights/{file}"
    )


def _read_weights(path: Path) -> tuple[dict[str, Tensor], bool]:
    """Return the visual tower's float32 weights from a file of it or of the whole CLIP, and whether it is OpenAI's own."""
    if not path.is_file():
        raise CsipError(
            f"vision.pretrained: there is no file {path}; put the weights there, or give one of OpenCLIP's tags "
            "(openai) or null for random weights"
        )
    content: Any
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        elif is_torchscript(path):  # how OpenAI publishes CLIP
            content = torch.jit.load(path, map_location="cpu").state_dict()
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CsipError(
            f"{path}: holds more than tensors, which could run code as they are read, and is not loaded; write the weights "
            "alone: torch.save(model.state_dict(), ...)"
        ) from error
    except Exception as error:  # torch, pickle and zipfile raise whatever they stumble over
        raise CsipError(f"{path}: damaged, or not a file of weights: {error}") from error
    content = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise CsipError(f"{path}: expected a mapping of names to tensors")
    weights = {name.removeprefix("module."): value.float() for name, value in content.items()}
    from_openai = weights.keys() >= OPENAI_MARKS
    if not any(name.startswith("visual.") for name in weights):
        return weights, from_openai
    tower = {name.removeprefix("visual."): value for name, value in weights.items() if name.startswith("visual.")}
    return tower, from_openai


def is_torchscript(path: Path) -> bool:
    """Tell whether a file is a TorchScript archive: programs, not weights alone."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())
