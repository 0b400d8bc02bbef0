import copy

import torch

from calibration.norms import recalibrate_norms
from pipeline.models.registry import build_model
from pipeline.models.spec import ModelSpec


def test_shifted_and_scaled_weights_are_made_up_for() -> None:
    torch.manual_seed(0)
    network = build_model(ModelSpec(architecture="resnet10", base_channels=4, embedding_dim=16)).eval()
    crops = list(torch.randn(20, 40, 80))
    recalibrate_norms(network, crops)
    x = torch.randn(3, 40, 80)
    with torch.no_grad():
        wanted = network(x)
        moved = copy.deepcopy(network)
        for module in moved.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.mul_(1.5)
        assert not torch.allclose(moved(x), wanted, rtol=0.05)
        recalibrate_norms(moved, crops)
        # Up to the epsilon under the norms' roots, the scale is gone.
        torch.testing.assert_close(moved(x), wanted, rtol=1e-2, atol=1e-3)
    assert not moved.training


def test_statistics_are_those_of_the_crops() -> None:
    norm = torch.nn.BatchNorm2d(1)
    network = torch.nn.Sequential(torch.nn.Unflatten(1, (1, 5)), norm).eval()
    crops = [torch.full((5, 3), float(k)) for k in range(16)]
    recalibrate_norms(network, crops)
    assert float(norm.running_mean) == 7.5
    assert norm.momentum == 0.1
