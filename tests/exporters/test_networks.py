"""Every kind of block and of embedding through both runtimes."""

from pathlib import Path
from typing import Literal

import pytest

from exporters.export import FORMATS, ExportRequest, export_artifact, prepare_fast
from pipeline.artifact.store import LoadedArtifact
from pipeline.features.spec import FrontEndSpec
from pipeline.models.spec import ModelSpec
from pipeline.progress import Progress
from pipeline.quantize.apply import attach_palettes, press, weight_layers
from tests.factories import noise_utterances
from tests.pipeline.models.random_weights import random_network

pytestmark = pytest.mark.slow


def pressed(name: str, layers: int) -> LoadedArtifact:
    network = random_network(ModelSpec(architecture=name, base_channels=4, embedding_dim=16, embedding_layers=layers))
    attach_palettes(network, dict.fromkeys(weight_layers(network), 4))
    return press(
        network,
        name=f"{name}-4bit",
        architecture=name,
        frontend=FrontEndSpec(),
        created_by="tests",
        source_sha256="0" * 64,
    )


@pytest.mark.parametrize("file_format", ["pte", "tflite"])
@pytest.mark.parametrize(("name", "layers"), [("resnet50", 2), ("dfresnet56", 1), ("gemini-dfresnet60", 2)])
def test_the_file_gives_the_references_embeddings(
    tmp_path: Path, name: str, layers: int, file_format: Literal["pte", "tflite"]
) -> None:
    artifact = pressed(name, layers)
    exported = export_artifact(ExportRequest(artifact, "4bit", file_format, "voxpress"), tmp_path, max_seconds=4.0)
    assert exported.agreement.max_relative_error <= 1e-4


@pytest.mark.parametrize(("name", "layers"), [("resnet50", 2), ("dfresnet56", 1), ("gemini-dfresnet60", 2)])
def test_fast_files_are_near_it_and_the_same_in_both_runtimes(tmp_path: Path, name: str, layers: int) -> None:
    """Depthwise layers, and downsampling layers without a ReLU, whose bytes have a zero point, among them."""
    artifact = pressed(name, layers)
    fast = prepare_fast(artifact, noise_utterances(), tmp_path, max_seconds=4.0, progress=Progress.silent())
    if "dfresnet" in name:
        assert any(0 < one.zero < 255 for one in fast.program.bytes_of.values())
    for file_format in FORMATS:
        request = ExportRequest(artifact, "4bit", file_format, "voxpress", fast)
        assert export_artifact(request, tmp_path, max_seconds=4.0).agreement.cosine_min >= 0.99
