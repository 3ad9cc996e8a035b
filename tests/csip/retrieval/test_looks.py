"""A test world is scored once a seed; a second model has to be asked for, and is counted."""

import json
from pathlib import Path

import pytest

from csip.data.dataset import Dataset
from csip.errors import CsipError
from csip.retrieval.looks import FILE, look


def world(root: Path, part: str) -> Dataset:
    (root / "strata.json").write_text(json.dumps({"part": part, "test": {}}))
    return Dataset("x", root, (), (), ())


def test_a_second_model_of_a_seed_is_refused_unless_asked_for(tmp_path: Path) -> None:
    dataset = world(tmp_path, "test")
    assert look(dataset, "first", 0, again=False) == 1
    assert look(dataset, "first", 0, again=False) == 1, "the same model again tells nothing new"
    assert look(dataset, "other seed", 1, again=False) == 1
    with pytest.raises(CsipError, match="another model of seed 0 was scored already"):
        look(dataset, "second", 0, again=False)
    assert look(dataset, "second", 0, again=True) == 2
    assert look(dataset, "third", 0, again=True) == 3


def test_validation_worlds_and_other_data_may_be_looked_at(tmp_path: Path) -> None:
    assert look(Dataset("x", tmp_path, (), (), ()), "any", 0, again=False) is None
    validation = world(tmp_path, "validation")
    for model in ("one", "two"):
        assert look(validation, model, 0, again=False) is None
    assert not (tmp_path / FILE).exists()


@pytest.mark.parametrize("text", ["", "{", '[{"model": 1}]', "[1]"])
def test_a_damaged_record_is_refused(tmp_path: Path, text: str) -> None:
    dataset = world(tmp_path, "test")
    (tmp_path / FILE).write_text(text)
    with pytest.raises(CsipError, match=rf"{FILE}: damaged"):
        look(dataset, "any", 0, again=True)
