"""Dropout on a processor: as often, as much and as independent as it says, and repeatable."""

import pytest
import torch

from csip.models.attention import Dropout


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.3, 0.5])
def test_zeroes_the_share_that_it_says_and_keeps_the_mean(p: float, kind: torch.dtype):
    torch.manual_seed(0)
    ones = torch.ones(1001, 999, dtype=kind)
    found = Dropout(p)(ones)
    values = found.unique()
    assert len(values) == 2 and values[0] == 0
    assert (found == 0).float().mean().item() == pytest.approx(p, abs=1 / 512 + 0.002)
    assert found.float().mean().item() == pytest.approx(1, abs=0.01)


def test_neighbours_are_dropped_independently_of_each_other():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(800_000)) > 0).float() * 2 - 1
    for step in (1, 2, 4, 8, 64):
        assert abs((kept[step:] * kept[:-step]).mean().item()) < 0.006


def test_the_gradient_passes_where_the_values_pass():
    torch.manual_seed(0)
    inputs = torch.randn(3, 77, requires_grad=True)
    outputs = Dropout(0.3)(inputs)
    outputs.sum().backward()
    assert inputs.grad is not None
    torch.testing.assert_close(inputs.grad * inputs.detach(), outputs.detach())


def test_the_seed_decides_and_evaluation_drops_nothing():
    layer, inputs = Dropout(0.3), torch.randn(5, 13)
    torch.manual_seed(3)
    first = layer(inputs)
    torch.manual_seed(3)
    assert torch.equal(first, layer(inputs)) and not torch.equal(first, layer(inputs))
    assert layer.eval()(inputs) is inputs or torch.equal(layer(inputs), inputs)
    assert torch.equal(Dropout(0.0)(inputs), inputs)
