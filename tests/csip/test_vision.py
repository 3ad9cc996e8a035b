import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from csip.errors import CsipError
from csip.models.vision import create_vision, resize_positions
from pose_cache.compat import guard_torchvision

guard_torchvision()
import open_clip  # noqa: E402  (only safe behind the guard)
from open_clip.model import resize_pos_embed  # noqa: E402

CONFIG = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": [32, 16], "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 4, "vocab_size": 10, "width": 16, "heads": 2, "layers": 1},
}


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "small.json"
    path.write_text(json.dumps(CONFIG))
    return str(path)


@pytest.fixture
def clip():
    torch.manual_seed(0)
    return open_clip.CLIP(**json.loads(json.dumps(CONFIG))).eval()


def images(count=3, height=32, width=16):
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_output_is_open_clips_own(model, clip, tmp_path, whole, suffix):
    path = tmp_path / f"weights{suffix}"
    weights = clip.state_dict() if whole else clip.visual.state_dict()
    if suffix == ".pt":
        torch.save({"state_dict": weights}, path)
    else:
        save_file(weights, path)
    encoder = create_vision(model, str(path), (32, 16), cameras=4).eval()
    assert (encoder.width, encoder.embed_dim, encoder.size) == (32, 12, (32, 16))
    output = encoder(images())
    assert output.tokens.shape == (3, 1 + 4 * 2, 32)
    torch.testing.assert_close(output.projected, clip.encode_image(images()))
    torch.testing.assert_close(output.cls, output.tokens[:, 0])
    clip.visual.output_tokens = True
    torch.testing.assert_close(output.tokens[:, 1:], clip.visual(images())[1])


def test_its_own_state_loads_as_weights(model, tmp_path):
    encoder = create_vision(model, None, (32, 16)).eval()
    save_file(encoder.state_dict(), tmp_path / "encoder.safetensors")
    again = create_vision(model, str(tmp_path / "encoder.safetensors"), (32, 16)).eval()
    assert torch.equal(again(images()).projected, encoder(images()).projected)


def test_weights_of_a_torchscript_archive_load(model, clip, tmp_path):
    """OpenAI publishes CLIP as TorchScript."""

    class Holder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.visual = torch.nn.Module()
            for name, value in clip.visual.state_dict().items():
                if "." not in name:
                    self.visual.register_buffer(name, value)

        def forward(self, x):
            return x

    path = tmp_path / "archive.pt"
    torch.jit.script(Holder()).save(str(path))
    with pytest.raises(CsipError, match=r"Missing key.*transformer"):  # read, and found to lack the blocks
        create_vision(model, str(path), (32, 16))


def test_cameras_add_to_the_cls_token_and_unknown_ones_do_not(model):
    torch.manual_seed(0)
    encoder = create_vision(model, None, (32, 16), cameras=2).eval()
    none = encoder(images()).projected
    torch.testing.assert_close(encoder(images(), torch.tensor([0, 1, -1])).projected, none)  # zero at the start
    torch.nn.init.normal_(encoder.camera_embedding)
    some = encoder(images(), torch.tensor([0, 1, -1])).projected
    torch.testing.assert_close(some[2], none[2])
    assert (some[:2] - none[:2]).abs().amax(dim=1).min() > 1e-3

    with torch.no_grad():  # the same as a class embedding of that camera's own
        encoder.visual.class_embedding += encoder.camera_embedding[1]
    torch.testing.assert_close(encoder(images()).projected[1], some[1])


def test_an_encoder_without_camera_embedding_ignores_cameras(model):
    encoder = create_vision(model, None, (32, 16)).eval()
    assert encoder.camera_embedding is None
    torch.testing.assert_close(encoder(images(), torch.tensor([0, 5, 7])).cls, encoder(images()).cls)


@pytest.mark.parametrize(("trained", "patches"), [(56, 49), ([32, 16], 8)])
def test_positions_are_resized_as_open_clip_does(clip, trained, patches):
    positions = torch.randn(1 + patches, 32)
    if patches == 49:
        state = {"visual.positional_embedding": positions.clone()}
        resize_pos_embed(state, clip)
        torch.testing.assert_close(
            resize_positions(positions, (4, 2), trained, 8), state["visual.positional_embedding"]
        )
    same = resize_positions(positions, (4, 2) if patches == 8 else (7, 7), trained, 8)
    assert torch.equal(same, positions)


def test_a_grid_that_is_no_square_is_resized_along_its_own_sides():
    rows = torch.arange(4.0)[:, None].expand(4, 2).reshape(8, 1)
    positions = torch.cat((torch.full((1, 1), 9.0), rows))
    resized = resize_positions(positions, (8, 4), (32, 16), 8)
    assert resized[0].item() == 9.0
    grid = resized[1:].reshape(8, 4)
    torch.testing.assert_close(grid, grid[:, :1].expand(8, 4))
    assert (grid[1:] >= grid[:-1] - 1e-6).all() and grid[-1, 0] > grid[0, 0] + 2
    with pytest.raises(CsipError, match="neither a square"):
        resize_positions(torch.randn(8, 4), (4, 2), 224, 16)


def test_weights_of_another_input_size_load(model, clip, tmp_path):
    save_file(clip.visual.state_dict(), tmp_path / "weights.safetensors")
    encoder = create_vision(model, str(tmp_path / "weights.safetensors"), (64, 32)).eval()
    assert encoder(images(2, 64, 32)).tokens.shape == (2, 1 + 8 * 4, 32)


@pytest.mark.parametrize(("named", "tag", "quick"), [
    ("ViT-B-16", "openai", True), ("ViT-B-16-quickgelu", "openai", True), ("ViT-B-16", "laion2b_s34b_b88k", False),
])
def test_a_tag_brings_its_activation_and_the_grid_its_positions(monkeypatch, tmp_path, named, tag, quick):
    """Without network: the download hands out weights of a CLIP with one block."""
    small = {"width": 32, "layers": 1, "head_width": 16, "patch_size": 16, "image_size": 224}
    config = {"embed_dim": 8, "vision_cfg": small, "text_cfg": CONFIG["text_cfg"], "quick_gelu": not quick}
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: json.loads(json.dumps(config)))
    torch.manual_seed(0)
    source = open_clip.CLIP(**{**config, "quick_gelu": quick}).eval()
    save_file(source.state_dict(), tmp_path / "clip.safetensors")
    monkeypatch.setattr(open_clip, "download_pretrained", lambda source: str(tmp_path / "clip.safetensors"))
    encoder = create_vision(named, tag, (224, 224)).eval()
    torch.testing.assert_close(encoder(images(1, 224, 224)).projected, source.encode_image(images(1, 224, 224)))
    tall = create_vision(named, tag, (256, 128))
    assert len(tall.visual.positional_embedding) == 1 + 16 * 8


def test_without_network_the_error_says_what_to_fetch(monkeypatch):
    def fail(source):
        raise ConnectionError("no route")

    monkeypatch.setattr(open_clip, "download_pretrained", fail)
    with pytest.raises(CsipError) as caught:
        create_vision("ViT-B-16", "openai", (256, 128))
    message = str(caught.value)
    assert "https://huggingface.co/timm/vit_base_patch16_clip_224.openai/resolve/main/open_clip_model.safetensors" in message
    assert "vision.model: ViT-B-16-quickgelu" in message and "vision.pretrained: path/to/" in message


@pytest.mark.parametrize(
    ("name", "pretrained", "size", "message"),
    [
        ("ViT-B-61", None, (32, 16), "OpenCLIP has no model 'ViT-B-61'"),
        ("absent.json", None, (32, 16), "no model file absent.json"),
        ("RN50", None, (256, 128), "no plain vision transformer"),
        ("coca_ViT-B-32", None, (256, 128), "no vision transformer with a CLS token"),
        ("ViT-B-16", "opnai", (256, 128), "neither a file .* nor a tag of ViT-B-16; its tags: openai"),
        ("ViT-B-16", "absent.safetensors", (256, 128), "no file absent.safetensors"),
        ("ViT-B-16", None, (8, 128), "do not hold a patch of 16"),
    ],
)
def test_what_cannot_be_had_is_named(name, pretrained, size, message):
    with pytest.raises(CsipError, match=message):
        create_vision(name, pretrained, size)


def test_damaged_and_foreign_files_are_named(model, tmp_path):
    for name, content in (("bad.safetensors", b"nonsense"), ("bad.pt", b"nonsense")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CsipError, match=name):
            create_vision(model, str(tmp_path / name), (32, 16))
    torch.save({"weight": Path("x")}, tmp_path / "code.pt")
    with pytest.raises(CsipError, match="holds more than tensors"):
        create_vision(model, str(tmp_path / "code.pt"), (32, 16))
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(CsipError, match="mapping of names to tensors"):
        create_vision(model, str(tmp_path / "list.pt"), (32, 16))
    save_file({"head.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(CsipError, match="not weights of"):
        create_vision(model, str(tmp_path / "other.safetensors"), (32, 16))
    (tmp_path / "half.json").write_text('{"embed_dim": 4}')
    with pytest.raises(CsipError, match="lacks vision_cfg"):
        create_vision(str(tmp_path / "half.json"), None, (32, 16))


def test_the_demo_model_is_for_people(request):
    path = request.config.rootpath / "configs" / "vision" / "demo.json"
    encoder = create_vision(str(path), None, (128, 64), cameras=2)
    assert encoder.embed_dim == 128 and encoder(images(1, 128, 64)).tokens.shape[1] == 1 + 8 * 4
