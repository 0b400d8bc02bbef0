"""What a network's artifact computes is what the network computes, whatever its blocks and embedding layers."""

import pytest
import torch

from pipeline.artifact.decode import decode
from pipeline.features.spec import FrontEndSpec
from pipeline.models.registry import architectures
from pipeline.models.spec import ModelSpec
from pipeline.quantize.apply import attach_palettes, press, weight_layers
from tests.pipeline.models.random_weights import random_network

# One network of every kind; the others differ in depth only.
KINDS = ["resnet10", "resnet50", "dfresnet56", "dfresnet179", "gemini-dfresnet60"]


def _check(spec: ModelSpec, bits: int | None = None, frames: int = 43) -> None:
    network = random_network(spec)
    if bits is not None:
        attach_palettes(network, dict.fromkeys(weight_layers(network), bits))
    features = torch.randn(2, frames, spec.num_mel_bins, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = network(features)
    artifact = press(
        network,
        name="net",
        architecture=spec.architecture,
        frontend=FrontEndSpec(num_mel_bins=spec.num_mel_bins),
        created_by="tests",
        source_sha256="0" * 64,
    )
    assert wanted.shape == (2, spec.embedding_dim)
    assert float((decode(artifact)(features) - wanted).abs().max()) <= 5e-5 * float(wanted.abs().max())


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("layers", [1, 2])
def test_the_artifact_is_the_network(name: str, layers: int) -> None:
    _check(ModelSpec(architecture=name, base_channels=2, embedding_dim=8, embedding_layers=layers))


@pytest.mark.parametrize("name", KINDS)
def test_the_artifact_is_the_quantized_network(name: str) -> None:
    _check(ModelSpec(architecture=name, base_channels=2, embedding_dim=8, embedding_layers=2), bits=3)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("mel", "frames"), [(40, 28), (77, 31)])
def test_sizes_that_do_not_divide(name: str, mel: int, frames: int) -> None:
    _check(ModelSpec(architecture=name, base_channels=2, embedding_dim=8, num_mel_bins=mel), frames=frames)


@pytest.mark.parametrize("name", [name for name in architectures() if name not in KINDS])
def test_the_artifact_of_a_deeper_network_is_the_network(name: str) -> None:
    _check(ModelSpec(architecture=name, base_channels=4, embedding_dim=16))
