import pytest
import torch
from torch import nn

from calibration.sensitivity import mean_hessian_traces
from pipeline.quantize.apply import weight_layers


class Tiny(nn.Module):
    """Two layers with something bent between them: [N, frames, mel] -> [N, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(4, 5)
        self.two = nn.Linear(5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(torch.tanh(self.one(x)).mean(dim=1))


@pytest.fixture
def network() -> Tiny:
    torch.manual_seed(0)
    return Tiny().double().eval()


def _exact_trace(network: Tiny, crop: torch.Tensor, name: str) -> float:
    """Trace of the Hessian of 1 - cos at the network's own weights, by second derivatives."""
    layer = weight_layers(network)[name]
    reference = network(crop[None])[0].detach()

    def loss(weight: torch.Tensor) -> torch.Tensor:
        moved = torch.func.functional_call(network, {f"{name}.weight": weight}, (crop[None],))[0]
        return 1 - nn.functional.cosine_similarity(moved, reference, dim=0)

    weight = layer.weight.detach()
    hessian = torch.autograd.functional.hessian(loss, weight).reshape(weight.numel(), -1)
    return float(hessian.diagonal().mean())


@pytest.mark.parametrize("name", ["one", "two"])
def test_it_is_the_mean_trace_of_the_hessian(network: Tiny, name: str) -> None:
    crops = [torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    estimate = mean_hessian_traces(network, crops, probes=400, seed=0)[name]
    exact = sum(_exact_trace(network, crop, name) for crop in crops) / len(crops)
    assert estimate == pytest.approx(exact, rel=0.1)


def test_seeds_decide_and_progress_is_told(network: Tiny) -> None:
    crops = [torch.randn(6, 4, dtype=torch.float64)]
    calls: list[int] = []
    one = mean_hessian_traces(network, crops, probes=3, seed=1, progress=lambda: calls.append(1))
    assert len(calls) == 3
    assert one == mean_hessian_traces(network, crops, probes=3, seed=1)
    assert one != mean_hessian_traces(network, crops, probes=3, seed=2)
    assert all(value >= 0 for value in one.values())
