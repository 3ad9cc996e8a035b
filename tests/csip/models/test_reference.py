"""Weights of the method's authors: a state dict of their names and shapes, and their test branch written out anew."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import csip
from csip.config import Settings, load_settings
from csip.data.readers import load_dataset
from csip.errors import CsipError
from csip.models.authors import UNKNOWN, import_reference, read_reference
from csip.monitor import Silent
from csip.retrieval.embedding import Embedder
from pipelines import evaluate_run as evaluate
from pipelines import import_checkpoint
from pose_cache.shipped import CONFIGS

WIDTH, EMBED, LAYERS, PATCH, IDENTITIES, CAMERAS = 128, 48, 2, 16, 7, 3
TOWER = {
    "embed_dim": EMBED,
    "vision_cfg": {"image_size": [64, 32], "layers": LAYERS, "width": WIDTH, "head_width": 64, "patch_size": PATCH},
    "text_cfg": {"context_length": 4, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1},
    "quick_gelu": True,
}


def shapes(
    width: int, embed: int, layers: int, tokens: int, identities: int, cameras: int
) -> dict[str, tuple[int, ...]]:
    """Every parameter of the authors' stage-2 model that its test needs, and some of those that it does not."""

    def linear(name: str, into: int, out: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (out, into), f"{name}.bias": (out,)}

    def norm(name: str, size: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (size,), f"{name}.bias": (size,)}

    def attention(name: str) -> dict[str, tuple[int, ...]]:
        packed = {f"{name}.in_proj_weight": (3 * width, width), f"{name}.in_proj_bias": (3 * width,)}
        return packed | linear(f"{name}.out_proj", width, width)

    def neck(name: str, size: int) -> dict[str, tuple[int, ...]]:
        running = {f"{name}.running_mean": (size,), f"{name}.running_var": (size,), f"{name}.num_batches_tracked": ()}
        return norm(name, size) | running

    tower: dict[str, tuple[int, ...]] = {
        "cv_embed": (cameras, width),
        "image_encoder.class_embedding": (width,),
        "image_encoder.positional_embedding": (tokens, width),
        "image_encoder.proj": (width, embed),
        "image_encoder.conv1.weight": (width, 3, PATCH, PATCH),
        **norm("image_encoder.ln_pre", width),
        **norm("image_encoder.ln_post", width),
    }
    for layer in range(layers):
        block = f"image_encoder.transformer.resblocks.{layer}"
        tower |= attention(f"{block}.attn") | norm(f"{block}.ln_1", width) | norm(f"{block}.ln_2", width)
        tower |= linear(f"{block}.mlp.c_fc", width, 4 * width) | linear(f"{block}.mlp.c_proj", 4 * width, width)
    temporal = {
        **linear("TMM.msg_fc_vis", width, width),
        **norm("TMM.msg_ln_vis", width),
        **attention("TMM.msg_attn_vis"),
        **linear("TMM.msg_fc_ske", embed, width),
        **norm("TMM.msg_ln_ske", width),
        **attention("TMM.msg_attn_ske"),
        **attention("TMM.cross_attn_ske_to_vis"),
        **norm("TMM.norm_vis", width),
        **norm("TMM.norm_ske", width),
        **attention("TMM.attention"),
        **norm("TMM.ln_1", width),
        **norm("TMM.ln_2", width),
        **linear("TMM.mlp.0", width, 4 * width),
        **linear("TMM.mlp.3", 4 * width, width),
        "TMM.token_type_embed.weight": (4, width),
        **linear("TMM.token_attn_score.0", width, 1),
    }
    heads: dict[str, tuple[int, ...]] = {}
    for name, size in (("", width), ("_proj", embed), ("_proj_temp", width), ("_proj_temp2", width), ("_ske", embed)):
        heads |= neck(f"bottleneck{name}", size) | {f"classifier{name}.weight": (identities, size)}
    training = {
        "VTU.alpha": (embed,),
        **norm("VTU.norm", embed),
        "VTU.decoder.0.self_attn.q_proj.weight": (embed, embed),
        **linear("PF.fc.0", 2 * embed, embed),
        **linear("PF.fc.2", embed, 1),
        "skeleton_encoder.proj_ske": (embed, embed),
        **linear("skeleton_encoder.skeleton_graph_transformer.input_fc1", 3, embed),
    }
    return tower | temporal | heads | training


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    chance = torch.Generator().manual_seed(0)
    weights: dict[str, Tensor] = {}
    for name, shape in shapes(WIDTH, EMBED, LAYERS, 1 + 4 * 2, IDENTITIES, CAMERAS).items():
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.tensor(11)
            continue
        value = torch.randn(shape, generator=chance) * (0.5 if len(shape) < 2 else shape[-1] ** -0.5)
        weights[name] = value.abs() + 0.1 if name.endswith("running_var") else value
    return weights


@pytest.fixture
def paper(tmp_path: Path) -> Settings:
    """The authors' settings at the size of the state dict."""
    (tmp_path / "tower.json").write_text(json.dumps(TOWER))
    sizes = ["clips.height=64", "clips.width=32", f"vision.model={tmp_path / 'tower.json'}", "vision.pretrained=null"]
    runtime = ["runtime.device=cpu", "runtime.workers=0", "clips.frames=4"]
    return load_settings(CONFIGS / "paper" / "mars.yaml", [*sizes, *runtime])


# ---- the authors' test branch ----------------------------------------------------------------------------------------


def attend(state: dict[str, Tensor], name: str, x: Tensor, heads: int) -> Tensor:
    """Attention among the rows of x (G, L, D), its map written out."""
    packed = x @ state[f"{name}.in_proj_weight"].T + state[f"{name}.in_proj_bias"]
    size = x.shape[-1] // heads
    out = []
    for head in range(heads):
        first = head * size
        q, k, v = (packed[..., part * x.shape[-1] + first :][..., :size] for part in range(3))
        out.append(torch.softmax(q @ k.transpose(1, 2) / math.sqrt(size), dim=-1) @ v)
    return torch.cat(out, dim=-1) @ state[f"{name}.out_proj.weight"].T + state[f"{name}.out_proj.bias"]


def scaled(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    deviation = (centred.pow(2).mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    return centred / deviation * state[f"{name}.weight"] + state[f"{name}.bias"]


def affine(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def see(state: dict[str, Tensor], image: Tensor, camera: int | None) -> Tensor:
    """Every token of one image (3, H, W) after the last norm, (1 + P, D)."""
    rows, columns = image.shape[1] // PATCH, image.shape[2] // PATCH
    kernel = state["image_encoder.conv1.weight"].flatten(1)
    patches = [
        kernel @ image[:, r * PATCH : (r + 1) * PATCH, c * PATCH : (c + 1) * PATCH].flatten()
        for r in range(rows)
        for c in range(columns)
    ]
    cls = state["image_encoder.class_embedding"] + (0 if camera is None else state["cv_embed"][camera])
    x = torch.stack([cls, *patches]) + state["image_encoder.positional_embedding"]
    x = scaled(state, "image_encoder.ln_pre", x)
    for layer in range(LAYERS):
        block = f"image_encoder.transformer.resblocks.{layer}"
        x = x + attend(state, f"{block}.attn", scaled(state, f"{block}.ln_1", x)[None], heads=WIDTH // 64)[0]
        hidden = affine(state, f"{block}.mlp.c_fc", scaled(state, f"{block}.ln_2", x))
        x = x + affine(state, f"{block}.mlp.c_proj", hidden * torch.sigmoid(1.702 * hidden))
    return scaled(state, "image_encoder.ln_post", x)


def describe(state: dict[str, Tensor], clip: Tensor, camera: int | None) -> Tensor:
    """What the authors' model returns for a clip (T, 3, H, W): three features side by side, not normalised."""
    tokens = torch.stack([see(state, image, camera) for image in clip])
    first, second = tokens[:, 0].mean(dim=0), (tokens[:, 0] @ state["image_encoder.proj"]).mean(dim=0)

    message = affine(state, "TMM.msg_fc_vis", tokens.mean(dim=1))
    message = message + attend(state, "TMM.msg_attn_vis", scaled(state, "TMM.msg_ln_vis", message)[None], heads=8)[0]
    kinds = state["TMM.token_type_embed.weight"]
    vectors = []
    for frame, of_frame in zip(tokens, message, strict=True):
        x = torch.cat((frame + kinds[0], (of_frame + kinds[1])[None]))
        x = x + attend(state, "TMM.attention", scaled(state, "TMM.ln_1", x)[None], heads=8)[0]
        x = x + affine(state, "TMM.mlp.3", F.gelu(affine(state, "TMM.mlp.0", scaled(state, "TMM.ln_2", x))))
        score = torch.sigmoid(affine(state, "TMM.token_attn_score.0", x))
        vectors.append((x * score).sum(dim=0) / (score.sum() + 1e-6))
    return torch.cat((first, second, torch.stack(vectors).mean(dim=0)))


# ---- tests -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("camera", [None, 0, 2])
def test_the_descriptor_is_the_authors(state: dict[str, Tensor], paper: Settings, camera: int | None) -> None:
    imported = import_reference(state, paper)
    clips = torch.randn(2, 5, 3, 64, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        ours = imported.model.eval().embed(clips, None if camera is None else torch.full((2,), camera))
        theirs = torch.stack([describe(state, clip, camera) for clip in clips])
    assert ours.shape == (2, WIDTH + EMBED + WIDTH)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    assert (imported.identities, imported.cameras) == (IDENTITIES, CAMERAS)


def test_heads_and_necks_are_the_authors(state: dict[str, Tensor], paper: Settings) -> None:
    model = import_reference(state, paper).model.eval()
    feature = torch.randn(3, WIDTH, generator=torch.Generator().manual_seed(2))
    for head, neck, classifier in (
        (model.heads[0], "bottleneck", "classifier"),
        (model.heads[2], "bottleneck_proj_temp2", "classifier_proj_temp"),
        (model.frame_head, "bottleneck_proj_temp", "classifier_proj_temp"),
    ):
        normed = (feature - state[f"{neck}.running_mean"]) / (state[f"{neck}.running_var"] + 1e-5).sqrt()
        normed = normed * state[f"{neck}.weight"] + state[f"{neck}.bias"]
        with torch.no_grad():
            logits = head(feature, model.heads[2].classifier)  # theirs is shared
            torch.testing.assert_close(logits, normed @ state[f"{classifier}.weight"].T, rtol=1e-4, atol=1e-4)


def test_every_key_is_accounted_for(state: dict[str, Tensor], paper: Settings) -> None:
    imported = import_reference({**state, "novel.weight": torch.zeros(2)}, paper)
    fate = {key.name: key for key in imported.keys}
    assert fate.keys() == state.keys() | {"novel.weight"}
    assert fate["image_encoder.proj"].status == "used"
    assert fate["cv_embed"].becomes == ("vision.camera_embedding",)
    assert fate["classifier_proj_temp.weight"].becomes == ("heads.2.classifier.weight",)
    apart = paper.model_copy(update={"stage2": paper.stage2.model_copy(update={"share_classifier": False})})
    twice = {key.name: key.becomes for key in import_reference(state, apart).keys}
    assert twice["classifier_proj_temp.weight"] == ("heads.2.classifier.weight", "frame_head.classifier.weight")
    assert fate["novel.weight"].why == UNKNOWN
    left = {name for name, key in fate.items() if key.status == "left over"}
    assert {name.partition(".")[0] for name in left} == {
        "novel", "VTU", "PF", "skeleton_encoder", "classifier_ske", "bottleneck_ske", "classifier_proj_temp2"
    }  # fmt: skip
    ours = set(imported.model.state_dict())
    taken = [name for key in imported.keys for name in key.becomes]
    assert len(taken) == len(set(taken)) and set(taken) | set(imported.initial) == ours
    # What keeps its initial value is out of the test's reach: its values do not change the descriptor.
    clips = torch.randn(1, 2, 3, 64, 32)
    with torch.no_grad():
        before = imported.model.eval().embed(clips)
        for name in imported.initial:
            imported.model.state_dict()[name].fill_(float("nan"))
        assert torch.equal(imported.model.embed(clips), before)


def test_names_and_shapes_at_full_size(paper: Settings) -> None:
    """ViT-B/16 at 256x128, 625 identities, 6 cameras; without memory for any of it."""
    vision = paper.vision.model_copy(update={"model": "ViT-B-16", "pretrained": "openai"})
    clips = paper.clips.model_copy(update={"height": 256, "width": 128})
    expected = shapes(768, 512, 12, 1 + 16 * 8, 625, 6)
    with torch.device("meta"):
        weights = {name: torch.zeros(shape) for name, shape in expected.items()}
        imported = import_reference(weights, paper.model_copy(update={"vision": vision, "clips": clips}))
    assert sum(key.status != "left over" for key in imported.keys) == sum(
        not name.startswith(
            ("VTU", "PF", "skeleton_encoder", "classifier_ske", "bottleneck_ske", "classifier_proj_temp2")
        )
        for name in expected
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"TMM.ln_1.weight": None, "cv_embed": None}, ["2 parameters are missing", "cv_embed", "TMM.ln_1.weight"]),
        ({"cv_embed": None}, ["cv_embed", "set stage2.camera_embedding=false"]),
        ({"image_encoder.proj": None}, ["image_encoder.proj is missing", "CSIP-ReID"]),
        (
            {"image_encoder.positional_embedding": (11, WIDTH), "classifier_proj.weight": (9, EMBED)},
            ["2 parameters", "image_encoder.positional_embedding is (11, 128), expected (9, 128)", "64x32", "(9, 48)"],
        ),
    ],
)
def test_missing_and_misshapen_parameters_are_named(
    state: dict[str, Tensor], paper: Settings, change: dict[str, tuple[int, ...] | None], words: list[str]
) -> None:
    changed = {name: value for name, value in state.items() if name not in change}
    changed |= {name: torch.zeros(shape) for name, shape in change.items() if shape is not None}
    with pytest.raises(CsipError) as error:
        import_reference(changed, paper)
    for word in words:
        assert word in str(error.value)


def test_settings_that_compute_something_else_are_refused(state: dict[str, Tensor], paper: Settings, tmp_path: Path):
    other = paper.model_copy(update={"stage2": paper.stage2.model_copy(update={"frame_position": True})})
    with pytest.raises(CsipError, match=r"stage2\.frame_position is True, theirs False"):
        import_reference(state, other)
    (tmp_path / "plain.json").write_text(json.dumps({**TOWER, "quick_gelu": False}))
    vision = paper.vision.model_copy(update={"model": str(tmp_path / "plain.json")})
    with pytest.raises(CsipError, match="plain GELU"):
        import_reference(state, paper.model_copy(update={"vision": vision}))


def test_only_state_dicts_are_read(state: dict[str, Tensor], tmp_path: Path) -> None:
    wrapped = {f"module.{name}": value.half() if value.is_floating_point() else value for name, value in state.items()}
    torch.save(wrapped, tmp_path / "parallel.pth")
    read = read_reference(tmp_path / "parallel.pth")
    assert read.keys() == state.keys() and read["cv_embed"].dtype == torch.float32

    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pth")
    with pytest.raises(
        CsipError, match=r"whole\.pth: holds more than tensors(.|\n)*torch\.save\(model\.state_dict\(\)"
    ):
        read_reference(tmp_path / "whole.pth")
    with pytest.raises(CsipError, match=r"asks for torch\.nn\.modules\.linear\.Linear"):
        read_reference(tmp_path / "whole.pth")
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(tmp_path / "script.pth"))
    with pytest.raises(CsipError, match=r"script\.pth: a TorchScript program(.|\n)*torch\.save\(model\.state_dict\(\)"):
        read_reference(tmp_path / "script.pth")
    torch.save({0: torch.zeros(1)}, tmp_path / "numbered.pth")
    with pytest.raises(CsipError, match=r"numbered\.pth: expected a mapping of names to tensors"):
        read_reference(tmp_path / "numbered.pth")
    torch.save({"epoch": 3, "model": state}, tmp_path / "nested.pth")
    with pytest.raises(CsipError, match=r"nested\.pth: expected a mapping of names to tensors"):
        read_reference(tmp_path / "nested.pth")
    (tmp_path / "bad.pth").write_bytes(b"nonsense")
    for name in ("bad.pth", "absent.pth"):
        with pytest.raises(CsipError, match=name):
            read_reference(tmp_path / name)
    torch.save({**state, "cv_embed": state["cv_embed"] / 0}, tmp_path / "nan.pth")
    with pytest.raises(CsipError, match="not finite in cv_embed"):
        read_reference(tmp_path / "nan.pth")


def test_the_run_that_is_written_evaluates_as_the_authors_do(
    state: dict[str, Tensor], paper: Settings, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the file to descriptors of tracklets on disk: pixels, clips, cameras, mean over clips, norm of the whole."""
    torch.save(state, tmp_path / "authors.pth")
    every_frame = paper.evaluation.model_copy(update={"sampling": "dense"})
    paper = paper.model_copy(
        update={"dataset": settings.dataset, "runtime": settings.runtime, "evaluation": every_frame}
    )
    out = tmp_path / "run" / "stage2"
    import_checkpoint.run(tmp_path / "authors.pth", out, paper, [2, 1, 5], overwrite=False)
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("VTU", "left over", "image_encoder", "113 parameters"))
    written = json.loads((out / "import.json").read_text())
    assert len(written["keys"]) == len(state) == sum(written["counts"].values())
    assert written["cameras"] == {"2": 0, "1": 1, "5": 2}

    model: Any = csip.load(out, "cpu", evaluation=paper.evaluation)
    trained = Settings.model_validate(model.description["settings"])
    dataset = load_dataset(settings.dataset)
    some = dataset.query[:2]
    ours = Embedder(model.network, trained, model.camera_rows, torch.device("cpu")).tracklets(
        dataset.root, some, Silent()
    )

    from PIL import Image

    for tracklet, descriptor in zip(some, ours, strict=True):
        pixels = np.stack([np.asarray(Image.open(dataset.root / f).convert("RGB")) for f in tracklet.frames]) / 255
        pixels = (pixels - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        images = torch.from_numpy(pixels).float().permute(0, 3, 1, 2)
        clips = [images[:4], images[[4, 4, 5, 5]]]  # six frames in clips of four
        mean = torch.stack([describe(state, clip, {2: 0, 1: 1}[tracklet.camera]) for clip in clips]).mean(dim=0)
        np.testing.assert_allclose(descriptor, F.normalize(mean, dim=0).numpy(), rtol=1e-3, atol=2e-5)

    evaluate.run(paper, tmp_path / "run", cross_dataset=False)
    assert json.loads((tmp_path / "run/metrics.json").read_text())["figures"]["valid_queries"] > 0
    with pytest.raises(CsipError, match="already exists; give --overwrite"):
        import_checkpoint.run(tmp_path / "authors.pth", out, paper, None, overwrite=False)
    with pytest.raises(CsipError, match="camera embedding of 3 rows, but --cameras names 2"):
        import_checkpoint.run(tmp_path / "authors.pth", out, paper, [1, 2], overwrite=True)
