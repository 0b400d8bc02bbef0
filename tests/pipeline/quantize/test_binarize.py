import numpy as np
import pytest
import torch
from torch import nn

from pipeline.errors import InputError
from pipeline.quantize.apply import attach_palettes, follow_weights
from pipeline.quantize.binarize import sign_palette, static_palette


def test_the_static_scale_is_the_best_of_all_scales_for_signs() -> None:
    weights = np.random.default_rng(0).normal(size=500).astype(np.float32)
    low, high = static_palette(weights)
    assert low == -high
    assert high == pytest.approx(np.abs(weights).mean(), rel=1e-6)
    errors = [float(np.square(weights - a * np.sign(weights)).sum()) for a in (0.98 * high, high, 1.02 * high)]
    assert errors[1] == min(errors)


def test_weights_that_are_no_numbers_are_refused() -> None:
    for weights in (np.zeros(0, np.float32), np.array([np.nan], np.float32)):
        with pytest.raises(InputError, match="finite values"):
            static_palette(weights)


@pytest.mark.parametrize("rule", ["static", "sign", "kmeans"])
def test_a_binary_layer_has_two_values_by_its_rule(rule) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(30, 20))
    latent = network[0].weight.detach().clone() + 0.05  # not symmetric around zero
    network[0].weight.data.copy_(latent)
    attach_palettes(network, {"0": 1}, rule)
    values = torch.unique(network[0].weight.detach())
    expected = {
        "static": [-latent.abs().mean(), latent.abs().mean()],
        "sign": [-1.0, 1.0],
        "kmeans": [latent[latent < values.mean()].mean(), latent[latent > values.mean()].mean()],
    }[rule]
    torch.testing.assert_close(values, torch.tensor(expected))
    if rule != "kmeans":
        torch.testing.assert_close(network[0].weight.detach().sign(), latent.sign())
    else:
        assert abs(float(values.sum())) > 1e-3  # its two centroids are not tied to zero


def test_only_the_sign_rule_stays_when_weights_move() -> None:
    for rule, moves in (("static", True), ("sign", False), ("kmeans", True)):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(30, 20))
        attach_palettes(network, {"0": 1}, rule)  # type: ignore[arg-type]
        before = torch.unique(network[0].weight.detach())
        with torch.no_grad():
            network[0].parametrizations.weight.original.mul_(2)
        follow_weights(network)
        assert (not torch.equal(torch.unique(network[0].weight.detach()), before)) == moves, rule


def test_rules_for_one_bit_refuse_more() -> None:
    with pytest.raises(InputError, match="palette rule static: expected 1 bit, found 2 bits"):
        attach_palettes(nn.Sequential(nn.Linear(3, 3)), {"0": 2}, "static")


def test_sign_palette() -> None:
    assert sign_palette().tolist() == [-1.0, 1.0]
