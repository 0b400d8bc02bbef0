import pytest
import torch
from torch import nn

from pipeline.artifact.decode import decode
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.models.registry import build_model
from pipeline.models.spec import ModelSpec
from pipeline.quantize.apply import activate_palettes, attach_palettes, follow_weights, press, weight_layers


def _network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    network = build_model(ModelSpec(architecture="resnet10", base_channels=4, embedding_dim=16))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # statistics as training leaves them, not zeros and ones
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    return network.eval()


def _press(network: nn.Module, name: str = "net"):
    return press(
        network,
        name=name,
        architecture="resnet10",
        frontend=FrontEndSpec(),
        created_by="tests",
        source_sha256="0" * 64,
    )


def _features() -> torch.Tensor:
    return torch.randn(2, 61, 80, generator=torch.Generator().manual_seed(0))


def _close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    assert float((got - wanted).abs().max()) <= 2e-5 * float(wanted.abs().max())


def test_pressing_without_palettes_keeps_the_network() -> None:
    network = _network()
    with torch.no_grad():
        _close(decode(_press(network))(_features()), network(_features()))


@pytest.mark.parametrize("bits", range(1, 9))
def test_the_artifact_is_the_quantized_network(bits: int) -> None:
    network = _network()
    attach_palettes(network, dict.fromkeys(weight_layers(network), bits))
    artifact = _press(network)
    assert artifact.bits_per_weight == bits
    with torch.no_grad():
        _close(decode(artifact)(_features()), network(_features()))


def test_widths_may_differ_and_layers_may_stay_fp32() -> None:
    network = _network()
    names = list(weight_layers(network))
    attach_palettes(network, {names[1]: 2, names[2]: 7})
    artifact = _press(network)
    bits = {name: layer.node.bits for name, layer in artifact.layers.items()}
    assert bits == {name: {names[1]: 2, names[2]: 7}.get(name, 32) for name in names}
    with torch.no_grad():
        _close(decode(artifact)(_features()), network(_features()))


def test_the_gradient_goes_straight_through() -> None:
    layer = nn.Linear(6, 5, bias=False)
    holder = nn.Sequential(layer)
    latent = layer.weight.detach().clone()
    attach_palettes(holder, {"0": 2})
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    target = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    (holder(x) * target).sum().backward()
    original = layer.parametrizations.weight.original
    assert torch.equal(original, latent)
    torch.testing.assert_close(original.grad, target.T @ x)  # d(sum target * x W^T)/dQ(W), whatever Q is
    assert len(torch.unique(layer.weight.detach())) == 4


def test_palettes_follow_their_weights() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(50, 40))
    attach_palettes(network, {"0": 3})
    layer = network[0]

    def error() -> float:
        return float((layer.weight - layer.parametrizations.weight.original).detach().square().mean())

    fitted = error()
    with torch.no_grad():
        layer.parametrizations.weight.original.add_(0.05)
    behind = error()
    for _ in range(10):
        follow_weights(network)
    assert error() < 1.1 * fitted < behind


def test_palettes_wait_until_they_are_active() -> None:
    network = _network()
    names = list(weight_layers(network))
    before = {name: layer.weight.detach().clone() for name, layer in weight_layers(network).items()}
    attach_palettes(network, dict.fromkeys(names, 2), active=False)
    latent = network.get_submodule(names[1]).parametrizations.weight.original
    with torch.no_grad():
        latent.mul_(3.0)  # what training did before the layer's turn
    activate_palettes(network, [names[1]])
    follow_weights(network)
    for name, layer in weight_layers(network).items():
        if name == names[1]:
            assert len(torch.unique(layer.weight)) == 4
            # Fitted to the weights of now: a palette of those before would reach a third as far.
            assert float((layer.weight - latent).detach().square().mean()) < 0.2 * float(
                latent.detach().square().mean()
            )
        else:
            assert torch.equal(layer.weight, before[name])
    bits = {name: layer.node.bits for name, layer in _press(network).layers.items()}
    assert bits == {name: 2 if name == names[1] else 32 for name in names}


def test_a_layer_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match=r"layer layer9.conv1: expected one of conv1, .*found no such layer"):
        attach_palettes(_network(), {"layer9.conv1": 4})
