"""Loss terms are read a step late, and what is wrong with one is still said of its own step."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from csip.config import Settings
from csip.errors import CsipError
from csip.monitor import Silent
from csip.runtime import make_fabric
from csip.training.keeper import Keeper, LateTerms, Progress
from csip.training.run_folder import RunFolder


@pytest.fixture
def keeper(tmp_path: Path) -> Keeper:
    tree = {"dataset": {"name": "any"}, "runtime": {"device": "cpu", "precision": "32-true", "save_minutes": 0}}
    settings = Settings.model_validate(tree)
    fabric = make_fabric(settings.runtime)
    run = RunFolder(tmp_path, settings, {})
    state = run.open(False, fabric)
    model = torch.nn.Linear(2, 2)
    keeper = Keeper(run, fabric, Silent(), "stage 2", model, torch.optim.Adam(model.parameters()))
    keeper.start(5, state)
    return keeper


def terms(ce: float, csip: float) -> dict[str, torch.Tensor]:
    return {"ce": torch.tensor(ce), "csip": torch.tensor(csip)}


def test_terms_are_read_a_step_late() -> None:
    late = LateTerms()
    assert late.push(terms(1.0, 2.0)) is None
    assert late.push(terms(3.0, 4.0)) == {"ce": 1.0, "csip": 2.0}
    assert late.pop() == {"ce": 3.0, "csip": 4.0} and late.pop() is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_term_is_said_of_its_own_step(value: float, keeper: Keeper) -> None:
    keeper.end_step(terms(1.0, 1.0))
    keeper.end_step(terms(1.0, value))
    with pytest.raises(CsipError, match=rf'stage 2, epoch 1, step 2: loss term "csip" is non-finite \({value}\)'):
        keeper.end_step(terms(1.0, 1.0))


def test_a_non_finite_term_is_never_saved(keeper: Keeper, tmp_path: Path) -> None:
    keeper.end_step(terms(1.0, 1.0))
    keeper.save_if_due()
    before = (tmp_path / "state.pt").read_bytes()
    keeper.end_step(terms(float("nan"), 1.0))
    with pytest.raises(CsipError, match=r'epoch 1, step 2: loss term "ce" is non-finite'):
        keeper.save_if_due()
    assert (tmp_path / "state.pt").read_bytes() == before
    keeper.progress = Progress()
    keeper.end_step(terms(float("nan"), 1.0))
    with pytest.raises(CsipError, match=r'epoch 1, step 1: loss term "ce" is non-finite'):
        keeper.end_steps()


def test_means_are_of_every_step(keeper: Keeper) -> None:
    for value in (1.0, 2.0, 6.0):
        keeper.end_step(terms(value, 2 * value))
    assert keeper.end_steps() == {"ce": 3.0, "csip": 6.0}
    with pytest.raises(CsipError, match="stage 2: an epoch without a batch"):
        keeper.end_steps()
