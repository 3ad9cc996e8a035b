from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from csip.errors import CsipError
from csip.models.checkpoints import load_model, save_model
from pipelines.advice import advice


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    shared = torch.arange(6.0).view(2, 3)
    save_model(tmp_path / "m.safetensors", {"a": shared, "b": shared.T}, {"kind": "stage1", "n": [1, 2]})
    tensors, description = load_model(tmp_path / "m.safetensors", "stage1")
    assert torch.equal(tensors["a"], shared) and torch.equal(tensors["b"], shared.T)
    assert description == {"kind": "stage1", "n": [1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"], "no temporary file is left"


def test_settings_that_this_version_does_not_know_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    settings = {"dataset": {"name": "x"}, "stage2": {"lambda_distil": 1.0}}
    save_model(path, {"a": torch.ones(1)}, {"kind": "stage2", "settings": settings})
    with pytest.raises(CsipError, match=r"(?s)m\.safetensors.*stage2\.lambda_distil.*another version of csip"):
        load_model(path, "stage2")


def test_wrong_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    with pytest.raises(CsipError, match=r"m.safetensors: missing") as refused:
        load_model(path, "stage1")
    assert advice(refused.value.parameter).startswith("; `csip train-stage1`")
    save_model(path, {"a": torch.ones(1000)}, {"kind": "stage2"})
    with pytest.raises(CsipError, match="a stage2 model, expected one of stage1"):
        load_model(path, "stage1")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CsipError, match="damaged"):
        load_model(path, "stage2")
    save_file({"a": torch.ones(1)}, path)
    with pytest.raises(CsipError, match="did not write"):
        load_model(path, "stage2")
    for description in ("", "{", "[1]", "[" * 100_000):
        save_file({"a": torch.ones(1)}, path, {"csip": description})
        with pytest.raises(CsipError, match=r"m\.safetensors: damaged: its description is no JSON"):
            load_model(path, "stage2")
