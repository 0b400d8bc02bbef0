"""Every network, narrow but as deep as it is, through both runtimes."""

from pathlib import Path
from typing import Literal

import pytest

from exporters.export import ExportRequest, export_artifact
from pipeline.features.spec import FrontEndSpec
from pipeline.models.registry import architectures
from pipeline.models.spec import ModelSpec
from pipeline.quantize.apply import attach_palettes, press, weight_layers
from tests.pipeline.models.random_weights import random_network

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("file_format", ["pte", "tflite"])
@pytest.mark.parametrize("name", architectures())
def test_the_file_gives_the_references_embeddings(
    tmp_path: Path, name: str, file_format: Literal["pte", "tflite"]
) -> None:
    # Embedding layers by turns, so that every family has networks with one and with two.
    layers: Literal[1, 2] = 1 if architectures().index(name) % 2 else 2
    network = random_network(ModelSpec(architecture=name, base_channels=4, embedding_dim=16, embedding_layers=layers))
    attach_palettes(network, dict.fromkeys(weight_layers(network), 4))
    artifact = press(
        network,
        name=f"{name}-4bit",
        architecture=name,
        frontend=FrontEndSpec(),
        created_by="tests",
        source_sha256="0" * 64,
    )
    exported = export_artifact(ExportRequest(artifact, "4bit", file_format, "voxpress"), tmp_path, max_seconds=4.0)
    assert exported.max_relative_error <= 1e-4
