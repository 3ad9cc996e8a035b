import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from csip.errors import CsipError
from csip.models.vision import OPENAI_MARKS, create_vision, resize_positions
from pose_cache.compat import guard_torchvision

guard_torchvision()
import open_clip  # noqa: E402  (only safe behind the guard)
from open_clip.model import resize_pos_embed  # noqa: E402
from open_clip.transformer import QuickGELU  # noqa: E402

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


def openai_archive(clip, path):
    """Write a CLIP as OpenAI publishes it: a TorchScript archive in half precision, with three scalars beside."""
    whole = torch.nn.Module()
    for name, value in {**clip.state_dict(), **{mark: torch.tensor(32) for mark in OPENAI_MARKS}}.items():
        *parents, leaf = name.split(".")
        module = whole
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, torch.nn.Module())
            module = getattr(module, parent)
        module.register_buffer(leaf, value.half() if value.is_floating_point() else value)
    torch.jit.trace_module(Traced(whole), {"forward": torch.zeros(1)}).save(str(path))


class Traced(torch.nn.Module):
    def __init__(self, whole):
        super().__init__()
        for name, child in [*whole.named_children(), *whole.named_buffers(recurse=False)]:
            if isinstance(child, torch.nn.Module):
                self.add_module(name, child)
            else:
                self.register_buffer(name, child)

    def forward(self, x):
        return x + 0


def test_openai_archives_load_and_want_the_quick_gelu(model, tmp_path):
    torch.manual_seed(0)
    source = open_clip.CLIP(**json.loads(json.dumps(CONFIG)), quick_gelu=True).half().float().eval()
    archive = tmp_path / "ViT.pt"
    openai_archive(source, archive)
    with pytest.raises(CsipError, match=r'ViT\.pt: OpenAI\'s weights, trained with the quick GELU.*"quick_gelu": true'):
        create_vision(model, str(archive), (32, 16))
    quick = tmp_path / "quick.json"
    quick.write_text(json.dumps({**CONFIG, "quick_gelu": True}))
    encoder = create_vision(str(quick), str(archive), (32, 16)).eval()
    torch.testing.assert_close(encoder(images()).projected, source.encode_image(images()))
    with pytest.raises(CsipError, match=r"set vision\.model: ViT-B-16-quickgelu"):
        create_vision("ViT-B-16", str(archive), (256, 128))


@pytest.mark.parametrize("prefix", ["", "module."])
def test_training_checkpoints_load_whatever_wraps_them(model, clip, tmp_path, prefix):
    """What open_clip's trainer writes: counters beside the weights, a prefix for each wrapped model."""
    weights = {prefix + name: value for name, value in clip.state_dict().items()}
    torch.save({"epoch": 3, "name": "laion", "state_dict": weights}, tmp_path / "epoch_3.pt")
    encoder = create_vision(model, str(tmp_path / "epoch_3.pt"), (32, 16)).eval()
    torch.testing.assert_close(encoder(images()).projected, clip.encode_image(images()))


@pytest.mark.parametrize("name", ["ViT-B-32-quickgelu", "ViT-B-16", "ViT-L-14", "ViT-H-14"])
def test_published_architectures_equal_open_clip(name, tmp_path):
    """Every width, head and patch of the original; one block, for speed."""
    config = open_clip.get_model_config(name)
    config["vision_cfg"]["layers"], config["text_cfg"] = 1, CONFIG["text_cfg"]
    (tmp_path / "one.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    source = open_clip.CLIP(**json.loads(json.dumps(config))).eval()
    save_file(source.visual.state_dict(), tmp_path / "one.safetensors")
    encoder = create_vision(str(tmp_path / "one.json"), str(tmp_path / "one.safetensors"), (224, 224)).eval()
    with torch.no_grad():
        ours, theirs = encoder(images(1, 224, 224)).projected, source.encode_image(images(1, 224, 224))
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("tag", "quick"), [("openai", True), ("laion2b_s34b_b88k", False)])
def test_without_loading_a_tag_still_brings_its_activation(monkeypatch, tag, quick):
    """A trained model is read back where there is no network and no file of what it started from."""
    monkeypatch.setattr(open_clip, "download_pretrained", lambda source: pytest.fail("downloads"))
    config = open_clip.get_model_config("ViT-B-16")
    config["vision_cfg"].update(layers=1, width=64)
    monkeypatch.setattr(open_clip, "get_model_config", lambda name: config)
    encoder = create_vision("ViT-B-16", tag, (32, 16), load=False)
    assert any(isinstance(module, QuickGELU) for module in encoder.modules()) is quick
    create_vision("ViT-B-16", "absent.safetensors", (32, 16), load=False)
    create_vision("ViT-B-16", "hf-hub:nobody/nothing", (32, 16), load=False)


def test_weights_from_the_hub_by_name(monkeypatch, model, clip, tmp_path):
    from open_clip import pretrained

    save_file(clip.state_dict(), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": {**CONFIG, "quick_gelu": True}}))
    monkeypatch.setattr(
        pretrained,
        "download_pretrained_from_hf",
        lambda name, filename="open_clip_model.safetensors": str(tmp_path / filename),
    )
    encoder = create_vision(model, "hf-hub:somebody/clip", (32, 16)).eval()
    torch.testing.assert_close(encoder(images()).projected, clip.encode_image(images()))
    with pytest.raises(
        CsipError, match=r"the quick GELU, which ViT-B-16 has not; set vision.model: ViT-B-16-quickgelu"
    ):
        create_vision("ViT-B-16", "hf-hub:somebody/clip", (256, 128))

    def fail(name, filename=""):
        raise FileNotFoundError("no network")

    monkeypatch.setattr(pretrained, "download_pretrained_from_hf", fail)
    with pytest.raises(CsipError, match=r"fetch\n  https://huggingface.co/somebody/clip/resolve/main/open_clip_model"):
        create_vision(model, "hf-hub:somebody/clip", (32, 16))


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


@pytest.mark.parametrize(
    ("named", "tag", "quick"),
    [("ViT-B-16", "openai", True), ("ViT-B-16-quickgelu", "openai", True), ("ViT-B-16", "laion2b_s34b_b88k", False)],
)
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
    assert (
        "https://huggingface.co/timm/vit_base_patch16_clip_224.openai/resolve/main/open_clip_model.safetensors"
        in message
    )
    assert "vision.model: ViT-B-16-quickgelu" in message and "vision.pretrained: data/weights/" in message


@pytest.mark.parametrize(
    ("name", "pretrained", "size", "message"),
    [
        ("ViT-B-61", None, (32, 16), "OpenCLIP has no model 'ViT-B-61'"),
        ("absent.json", None, (32, 16), "no model file absent.json"),
        ("RN50", None, (256, 128), "no plain vision transformer"),
        ("coca_ViT-B-32", None, (256, 128), "no vision transformer with a CLS token"),
        ("ViT-B-16", "opnai", (256, 128), "neither a file .*nor a tag of ViT-B-16; its tags: openai"),
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


def test_frozen_blocks_and_what_is_below_them_do_not_train(tower: Path) -> None:
    encoder = create_vision(str(tower), None, (64, 32), cameras=2)
    encoder.freeze(1)
    output = encoder(torch.randn(2, 3, 64, 32), torch.tensor([0, 1]))
    output.projected.square().sum().backward()
    trained = {name for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    blocks = {name.split(".")[3] for name in trained if "resblocks" in name}
    assert blocks == {"1"} and {"visual.proj", "visual.ln_post.weight"} <= trained
    assert not {"camera_embedding", "visual.conv1.weight", "visual.positional_embedding"} & trained
    with pytest.raises(CsipError, match=r"stage2\.frozen_blocks: expected at most 2, the encoder's blocks, found 3"):
        encoder.freeze(3)
