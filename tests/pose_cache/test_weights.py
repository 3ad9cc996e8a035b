import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from pose_cache.errors import PoseCacheError
from pose_cache.weights import Weights, find_weights, load_weights


class History:
    """Stands for MMEngine's HistoryBuffer: an object in a training checkpoint."""


@pytest.fixture
def model() -> torch.nn.Linear:
    return torch.nn.Linear(3, 2)


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"weight": torch.randn(2, 3, generator=generator), "bias": torch.randn(2, generator=generator)}


def same(model: torch.nn.Linear, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_safetensors_and_published_files_are_loaded(tmp_path: Path, model: torch.nn.Linear, state: dict):
    save_file(state, tmp_path / "a.safetensors")
    load_weights(model, tmp_path / "a.safetensors")
    assert same(model, state)
    # Published files keep arrays and numbers of NumPy beside the weights, and "module." before names.
    meta = {"joint_weights": np.ones(3, np.float32), "sigma": np.float64(0.5), "names": np.array(["a"])}
    torch.save({"state_dict": {f"module.{k}": v * 2 for k, v in state.items()}, "meta": meta}, tmp_path / "b.pth")
    load_weights(model, tmp_path / "b.pth")
    assert same(model, {key: value * 2 for key, value in state.items()})


def test_files_with_other_objects_are_refused_with_advice(tmp_path: Path, model: torch.nn.Linear, state: dict):
    torch.save({"state_dict": state, "message_hub": History()}, tmp_path / "training.pth")
    with pytest.raises(PoseCacheError, match=r"training\.pth holds more than weights.*save its .state_dict."):
        load_weights(model, tmp_path / "training.pth")


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_damaged_and_foreign_files_are_named(tmp_path: Path, model: torch.nn.Linear, state: dict, suffix: str):
    path = tmp_path / f"weights.{suffix}"
    save = (
        (lambda s: save_file(s, path)) if suffix == "safetensors" else (lambda s: torch.save({"state_dict": s}, path))
    )
    save(state)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(PoseCacheError, match=rf"weights\.{suffix}"):
        load_weights(model, path)
    save({"weight": state["weight"]})
    with pytest.raises(PoseCacheError, match="lacks 1 tensors, the first is bias"):
        load_weights(model, path)
    save({**state, "weight": torch.zeros(4, 3)})
    with pytest.raises(PoseCacheError, match="does not fit the model"):
        load_weights(model, path)


def test_downloads_are_kept_checked_and_explained(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("CSIP_CACHE", str(tmp_path / "cache"))
    address = "http://127.0.0.1:9/weights-1234.pth"
    with pytest.raises(
        PoseCacheError, match=r"cannot download http://127\.0\.0\.1:9/.*put it at .*cache/weights-1234\.pth"
    ):
        find_weights(Weights(address, "12345678"))
    assert list((tmp_path / "cache").iterdir()) == []
    placed = tmp_path / "cache" / "weights-1234.pth"
    placed.write_bytes(b"content")
    digest = hashlib.sha256(b"content").hexdigest()
    assert find_weights(Weights(address, digest[:8])) == placed
    placed.write_bytes(b"kontent")
    with pytest.raises(PoseCacheError, match=rf"not the file that is meant.*expected {digest[:8]}"):
        find_weights(Weights(address, digest[:8]))
    with pytest.raises(PoseCacheError, match=r"no weights at .*gone\.pth"):
        find_weights(Weights(str(tmp_path / "gone.pth")))


def test_a_download_arrives_once(tmp_path: Path, monkeypatch):
    import http.server
    import threading

    (tmp_path / "served").mkdir()
    (tmp_path / "served" / "w.pth").write_bytes(b"weights")
    requests: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(tmp_path / "served"), **kwargs)

        def log_message(self, *args):
            requests.append(self.path)

    monkeypatch.setenv("CSIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/w.pth"
        digest = hashlib.sha256(b"weights").hexdigest()
        for _ in range(2):
            assert find_weights(Weights(address, digest[:8])).read_bytes() == b"weights"
        assert requests == ["/w.pth"]
        (tmp_path / "cache" / "w.pth").unlink()
        with pytest.raises(PoseCacheError, match="invalid hash"):
            find_weights(Weights(address, "00000000"))
        assert list((tmp_path / "cache").iterdir()) == []
        server.shutdown()
