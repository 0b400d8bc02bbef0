import pytest
import torch
from torch import nn

from pipeline.artifact.decode import stats_pool
from pipeline.errors import InputError
from pipeline.models.network import folded_norm, lower
from pipeline.models.registry import architectures, build_model
from pipeline.models.spec import ModelSpec

# Parameters of the published speaker ResNets (32 base channels, 80 mel bins, TSTP, 256-dim embedding) in millions.
PUBLISHED = {
    "resnet18": 4.11,
    "resnet34": 6.63,
    "resnet50": 11.13,
    "resnet101": 15.89,
    "resnet152": 19.81,
    "resnet221": 23.79,
    "resnet293": 28.62,
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameter_counts_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        network = build_model(ModelSpec(architecture=name))
    count = sum(parameter.numel() for parameter in network.parameters())
    assert count / 1e6 == pytest.approx(PUBLISHED[name], abs=0.01)


def test_keys_are_those_of_public_checkpoints() -> None:
    with torch.device("meta"):
        keys = set(build_model(ModelSpec(architecture="resnet34")).state_dict())
    expected = {"conv1.weight", "bn1.running_var", "layer1.0.conv1.weight", "layer2.0.shortcut.0.weight",
                "layer2.0.shortcut.1.running_mean", "layer4.2.bn2.bias", "seg_1.weight", "seg_1.bias"}  # fmt: skip
    assert expected <= keys
    assert "layer1.0.shortcut.0.weight" not in keys


@pytest.mark.parametrize("name", ["resnet10", "resnet50"])
@pytest.mark.parametrize("frames", [28, 57])
def test_any_length_gives_one_embedding(name: str, frames: int) -> None:
    network = build_model(ModelSpec(architecture=name, base_channels=2, embedding_dim=8)).eval()
    with torch.no_grad():
        assert network(torch.randn(3, frames, 80)).shape == (3, 8)


def test_the_shortcut_of_a_bottleneck_is_lowered_before_its_last_convolution() -> None:
    lowering = lower(build_model(ModelSpec(architecture="resnet50", base_channels=2, embedding_dim=8)).eval())
    names = [node.name for node in lowering.nodes]
    assert names.index("layer2.0.shortcut.0") < names.index("layer2.0.conv3")
    assert len(lowering.layers) == 1 + 3 * 16 + 4 + 1


def test_a_folded_norm_is_the_norm() -> None:
    norm = nn.BatchNorm2d(3).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.1, 3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    x = torch.randn(2, 3, 4, 5)
    scale, bias = (torch.from_numpy(value).reshape(1, 3, 1, 1) for value in folded_norm(norm))
    torch.testing.assert_close(x * scale + bias, norm(x), rtol=1e-5, atol=1e-5)


def test_pooling_matches_the_definition() -> None:
    x = torch.randn(1, 7, 2, 3, dtype=torch.float64)
    pooled = stats_pool(x)[0, 0, 0]
    torch.testing.assert_close(pooled[:6], x[0].mean(0).flatten())
    torch.testing.assert_close(pooled[6:], (x[0].var(0) + 1e-7).sqrt().flatten())


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(InputError, match=r"model.architecture: expected one of resnet10, .*found resnet35"):
        build_model(ModelSpec(architecture="resnet35"))
    assert architectures()[:3] == ["resnet10", "resnet18", "resnet34"]
