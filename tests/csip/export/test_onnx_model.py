"""The exported test branch against torch, and what happens to files that are none."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn
from whole_method import WHOLE

from csip.config import ClipSettings, Settings, SkeletonEncoderSettings, Stage2Settings
from csip.errors import CsipError
from csip.export import onnx_export
from csip.export.onnx_export import Comparison, compare, export_onnx, sample_pixels, sizes
from csip.export.onnx_model import KEY, OnnxDescription, OnnxModel
from csip.models.reid import ReIDModel
from csip.models.skeleton_encoder import SkeletonGraphTransformer
from csip.models.vision import create_vision
from csip.retrieval.embedding import PixelModel
from pipelines.advice import advice
from pose_cache.joints import H36M17

pytestmark = pytest.mark.slow

HEIGHT, WIDTH, D, C, CAMERAS = 32, 16, 64, 24, 3
CLIPS = ClipSettings(frames=4, height=HEIGHT, width=WIDTH, mean=(0.4, 0.5, 0.3), std=(0.2, 0.3, 0.25))
TOWER = {"image_size": [HEIGHT, WIDTH], "layers": 2, "width": D, "head_width": 16, "patch_size": 8}


def build(folder: Path, cameras: int = CAMERAS, quick_gelu: bool = False, **options: Any) -> ReIDModel:
    """A small model that nothing is at its start of: cameras, positions and the scales of norms are drawn."""
    path = folder / "tower.json"
    path.write_text(json.dumps({"embed_dim": C, "vision_cfg": TOWER, "quick_gelu": quick_gelu}))
    torch.manual_seed(0)
    seen = {"bones": True, "face_front": True, "frequencies": 3} if "predict_skeletons" in options else {}
    skeleton = SkeletonGraphTransformer(H36M17, C, SkeletonEncoderSettings(depth=1, heads=2, **seen))
    part_norm = options.pop("part_norm", True)
    vision = create_vision(str(path), None, (HEIGHT, WIDTH), cameras)
    model = ReIDModel(
        vision, skeleton, 5, Stage2Settings(prototype_heads=2, **{**WHOLE, **options}), part_norm=part_norm
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim < 2 or "camera_embedding" in name:
                parameter += 0.3 * torch.randn_like(parameter)
    return model.eval()


def described(model: ReIDModel, clips: ClipSettings = CLIPS) -> OnnxDescription:
    embedding = model.vision.camera_embedding
    cameras = {} if embedding is None else {10 + row: row for row in range(len(embedding))}
    return OnnxDescription(
        version="1.2", model="0123456789abcdef", dataset="made up", vision="tower.json", pretrained=None,
        cameras=cameras, frames=clips.frames, height=clips.height, width=clips.width, mean=clips.mean, std=clips.std,
        part_norm=model.part_norm,
    )  # fmt: skip


def export(model: ReIDModel, path: Path) -> OnnxModel:
    export_onnx(PixelModel(model, CLIPS), path, described(model))
    return OnnxModel(path)


def by_torch(model: ReIDModel, images: Tensor, camera: Tensor) -> Tensor:
    """The model's descriptors of pixels that are normalised here, one clip at a time."""
    mean, std = np.array(CLIPS.mean), np.array(CLIPS.std)
    pixels = (images.numpy() / 255 - mean[:, None, None]) / std[:, None, None]
    with torch.no_grad():
        clips = torch.from_numpy(pixels).float().split(1)
        return torch.cat([model.embed(clip, row) for clip, row in zip(clips, camera.split(1), strict=True)])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ReIDModel:
    return build(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def exported(model: ReIDModel, tmp_path_factory: pytest.TempPathFactory) -> OnnxModel:
    return export(model, tmp_path_factory.mktemp("exported") / "model.onnx")


# ---- what it computes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("batch", "frames"), [(1, 1), (1, 4), (4, 1), (2, 3), (3, 3), (7, 2), (2, 13), (16, 5)])
def test_it_is_the_model_at_any_batch_and_length(
    model: ReIDModel, exported: OnnxModel, batch: int, frames: int
) -> None:
    images = sample_pixels(batch, frames, HEIGHT, WIDTH, seed=batch * 100 + frames)
    camera = torch.arange(batch) % (CAMERAS + 1) - 1
    ours, theirs = by_torch(model, images, camera), exported.embed_pixels(images, camera)
    assert theirs.dtype == torch.float32 and theirs.shape == (batch, 2 * D + C)
    torch.testing.assert_close(theirs, ours, rtol=0, atol=1e-5)
    assert torch.allclose(theirs.norm(dim=1), torch.ones(batch))


def test_cameras_and_the_order_of_frames_count(model: ReIDModel, exported: OnnxModel) -> None:
    images = sample_pixels(1, 5, HEIGHT, WIDTH).expand(CAMERAS + 1, -1, -1, -1, -1).contiguous()
    rows = torch.arange(-1, CAMERAS)
    found = exported.embed_pixels(images, rows)
    apart = torch.cdist(found, found)[~torch.eye(CAMERAS + 1, dtype=torch.bool)]
    assert apart.min() > 0.01, "every camera, and none, gives another descriptor"
    torch.testing.assert_close(exported.embed_pixels(images), found[:1].expand_as(found), rtol=0, atol=1e-5)
    turned = images.flip(1)
    assert (exported.embed_pixels(turned, rows) - found).abs().max() > 1e-4
    torch.testing.assert_close(exported.embed_pixels(turned, rows), by_torch(model, turned, rows), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [
        {"cameras": 0},
        {"cameras": 1},
        {"quick_gelu": True, "frame_position": False, "temporal_heads": 8, "part_norm": False, "lambda_distill": 0},
        {"ta": False},
        {"mte": False, "atd": False, "ta": False},
        {"mte": False, "atd": False},
        {"predict_skeletons": True},
    ],
    ids=[
        "no cameras",
        "one camera",
        "the authors' settings",
        "no aggregation",
        "no temporal modelling",
        "no messages",
        "predicted skeletons",
    ],
)
def test_every_form_of_the_test_branch_is_exported(tmp_path: Path, options: dict[str, Any]) -> None:
    model = build(tmp_path, **options)
    exported = export(model, tmp_path / "model.onnx")
    images = sample_pixels(3, 2, HEIGHT, WIDTH, seed=3)
    camera = torch.arange(3) % (exported.cameras + 1) - 1
    ours = by_torch(model, images, camera)
    length = ours.norm(dim=1, keepdim=True)
    torch.testing.assert_close(exported.embed_pixels(images, camera) / length, ours / length, rtol=0, atol=1e-5)
    if not model.part_norm:
        assert (length - 1).abs().min() > 0.1, "descriptors are as long as they are"


def test_the_split_of_the_state_is_what_the_test_branch_reads(model: ReIDModel) -> None:
    model = copy.deepcopy(model)
    tested, training = model.split_state()
    assert not tested.keys() & training.keys() and {**tested, **training}.keys() == model.state_dict().keys()
    images = torch.randn(2, 3, 3, HEIGHT, WIDTH)
    before = model.embed(images, torch.tensor([0, 2]))
    (before * torch.randn_like(before)).sum().backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert learning == tested.keys() & dict(model.named_parameters()).keys()
    for value in training.values():
        value.zero_()
    assert torch.equal(model.embed(images, torch.tensor([0, 2])), before)


# ---- what is in the file ---------------------------------------------------------------------------------------------


def test_the_file_describes_itself(exported: OnnxModel, tmp_path: Path) -> None:
    file = onnx.load(exported.path)
    onnx.checker.check_model(file, full_check=True)
    assert [entry.key for entry in file.metadata_props] == [KEY]
    says = json.loads(file.metadata_props[0].value)
    assert says["cameras"] == {"10": 0, "11": 1, "12": 2} and says["mean"] == list(CLIPS.mean)
    assert (says["height"], says["width"], says["model"], says["version"]) == (HEIGHT, WIDTH, "0123456789abcdef", "1.2")

    def form(value: onnx.ValueInfoProto) -> tuple[str, int, list[str | int]]:
        tensor = value.type.tensor_type
        return value.name, tensor.elem_type, [side.dim_param or side.dim_value for side in tensor.shape.dim]

    assert [form(value) for value in file.graph.input] == [
        ("images", TensorProto.UINT8, ["batch", "frames", 3, HEIGHT, WIDTH]),
        ("camera", TensorProto.INT64, ["batch"]),
    ]
    assert [form(value) for value in file.graph.output] == [("descriptors", TensorProto.FLOAT, ["batch", 2 * D + C])]
    assert all(value.doc_string for value in (*file.graph.input, *file.graph.output))
    content = exported.path.read_bytes()
    assert str(Path(__file__).parents[3]).encode() not in content, "no paths of the machine that made it"
    weights = sum(np.prod(tensor.dims) for tensor in file.graph.initializer)
    tested, _ = build(tmp_path).split_state()
    assert weights < 1.02 * sum(value.numel() for value in tested.values()), "nothing that only training needs"


def test_its_settings_are_those_that_tracklets_are_read_by(exported: OnnxModel) -> None:
    settings = Settings.model_validate({"dataset": {"name": "x"}, "runtime": {"embed_batch": 7}})
    applied = exported.description.apply_to(settings)
    for name in ("frames", "height", "width", "mean", "std"):
        assert getattr(applied.clips, name) == getattr(CLIPS, name)
    assert applied.runtime.embed_batch == 7 and applied.vision.model == "tower.json"
    other = settings.model_copy(update={"evaluation": settings.evaluation.model_copy(update={"part_norm": False})})
    with pytest.raises(CsipError, match=r"export the model without part_norm") as refused:
        exported.description.apply_to(other)
    assert refused.value.parameter == "no-part-norm"


# ---- what must not pass ----------------------------------------------------------------------------------------------


def test_a_file_that_computes_something_else_gets_no_name(
    model: ReIDModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One weight of the written model is off: an error says by how much, and what was there stays."""
    write = onnx_export._write

    def write_another(pixels: PixelModel, path: Path, description: OnnxDescription) -> None:
        other = copy.deepcopy(pixels)
        with torch.no_grad():
            other.model.vision.visual.ln_post.weight[3] += 0.2
        write(other, path, description)

    path = tmp_path / "model.onnx"
    path.write_bytes(b"an earlier export")
    monkeypatch.setattr(onnx_export, "_write", write_another)
    with pytest.raises(CsipError, match=r"model\.onnx: not written(.|\n)*differ from torch's: by \d"):
        export_onnx(PixelModel(model, CLIPS), path, described(model))
    assert path.read_bytes() == b"an earlier export" and [f.name for f in tmp_path.iterdir()] == ["model.onnx"]


class FixedCamera(nn.Module):
    """A test branch that takes one camera for all."""

    def __init__(self, pixels: PixelModel) -> None:
        super().__init__()
        self.pixels = pixels
        self.model, self.cameras = pixels.model, pixels.cameras

    def embed_pixels(self, images: Tensor, camera: Tensor) -> Tensor:
        return self.pixels.embed_pixels(images, torch.zeros_like(camera))


class MixedFrames(FixedCamera):
    """A test branch in which the frames of different clips change places."""

    def embed_pixels(self, images: Tensor, camera: Tensor) -> Tensor:
        return self.pixels.embed_pixels(images.transpose(0, 1).reshape(images.shape), camera)


@pytest.mark.parametrize("wrong", [FixedCamera, MixedFrames])
def test_the_comparison_sees_what_an_exporter_may_get_wrong(
    model: ReIDModel, exported: OnnxModel, wrong: type[FixedCamera]
) -> None:
    right = compare(PixelModel(model, CLIPS), exported, sizes(CLIPS.frames))
    assert len(right) == 5 and all(c.equal for c in right)
    found = compare(wrong(PixelModel(model, CLIPS)), exported, sizes(CLIPS.frames))  # type: ignore[arg-type]
    assert not all(c.equal for c in found)


def test_what_is_no_number_is_not_equal() -> None:
    assert Comparison(1, 1, 9e-4, 0.99995).equal
    for difference, cosine in ((2e-3, 1.0), (0.0, 0.999), (float("nan"), 1.0), (0.0, float("nan"))):
        assert not Comparison(1, 1, difference, cosine).equal


def test_a_model_that_fits_no_file_is_refused(
    model: ReIDModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx_export, "_LARGEST", 1000)
    with pytest.raises(CsipError, match=r"model\.onnx: an ONNX file holds 2 GiB at most"):
        export_onnx(PixelModel(model, CLIPS), tmp_path / "model.onnx", described(model))


def foreign(path: Path, metadata: dict[str, str]) -> None:
    """A sound ONNX file of another network."""
    value = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "other", value[:1], value[1:])
    file = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    for key, text in metadata.items():
        entry = file.metadata_props.add()
        entry.key, entry.value = key, text
    onnx.save(file, path)


def cut(path: Path, content: bytes) -> None:
    path.write_bytes(content[: len(content) // 2])


def scramble(path: Path, content: bytes) -> None:
    path.write_bytes(bytes(reversed(content)))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "damaged, or not an ONNX file"),
        (scramble, "damaged, or not an ONNX file"),
        (lambda path, content: path.write_bytes(b""), "damaged, or not an ONNX file|did not write"),
        (lambda path, content: path.write_text("weights: none\n"), "damaged, or not an ONNX file"),
        (lambda path, content: path.mkdir(), "no such file"),
        (lambda path, content: None, "no such file"),
        (lambda path, content: foreign(path, {}), "an ONNX file that csip did not write"),
        (lambda path, content: foreign(path, {KEY: "{"}), "its description is not one that this version of csip knows"),
        (lambda path, content: foreign(path, {KEY: '{"format": 2}'}), r".*knows \(format"),
    ],
    ids=["cut", "scrambled", "empty", "text", "folder", "missing", "foreign", "no JSON", "another format"],
)
def test_files_that_are_no_export_are_named(
    exported: OnnxModel, tmp_path: Path, damage: Callable[[Path, bytes], None], words: str,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    path = tmp_path / "other.onnx"
    damage(path, exported.path.read_bytes())
    with pytest.raises(CsipError, match=rf"other\.onnx: ({words})") as refused:
        OnnxModel(path)
    assert "csip export" in advice(refused.value.parameter)
    assert capfd.readouterr() == ("", ""), "what is wrong is in the error alone"


def test_a_description_on_another_network_is_refused(model: ReIDModel, tmp_path: Path) -> None:
    foreign(tmp_path / "other.onnx", {KEY: described(model).model_dump_json()})
    with pytest.raises(CsipError, match=r"other\.onnx: its inputs and outputs are x, y, expected images, camera"):
        OnnxModel(tmp_path / "other.onnx")


@pytest.mark.parametrize(
    ("images", "rows", "words"),
    [
        (
            torch.zeros(1, 2, 3, 64, 32, dtype=torch.uint8),
            [0],
            r"takes \(batch, frames, 3, 32, 16\) uint8 pixels, got \(1, 2",
        ),
        (torch.zeros(1, 2, 3, HEIGHT, WIDTH), [0], r"got \(1, 2, 3, 32, 16\) float32"),
        (torch.zeros(2, 3, HEIGHT, WIDTH, dtype=torch.uint8), [0, 0], r"got \(2, 3, 32, 16\) uint8"),
        (torch.zeros(1, 0, 3, HEIGHT, WIDTH, dtype=torch.uint8), [0], r"got \(1, 0, 3, 32, 16\) uint8"),
        (torch.zeros(1, 2, 3, HEIGHT, WIDTH, dtype=torch.uint8), [3], "row 3 of a camera embedding of 3 rows"),
        (torch.zeros(2, 2, 3, HEIGHT, WIDTH, dtype=torch.uint8), [0], "cannot be run on"),
    ],
    ids=["size", "floats", "no frames' axis", "no frames", "no such row", "too few cameras"],
)
def test_other_inputs_are_refused(exported: OnnxModel, images: Tensor, rows: list[int], words: str) -> None:
    with pytest.raises(CsipError, match=rf"model\.onnx: .*{words}"):
        exported.embed_pixels(images, torch.tensor(rows))
