import json
import time

import pytest

from pipeline.features.spec import FrontEndSpec
from pipeline.models.registry import architectures
from pipeline.models.size import WIDTHS, network_size, network_sizes, sizes_json
from pipeline.models.spec import ModelSpec
from pipeline.quantize.apply import attach_palettes, press, weight_layers
from tests.pipeline.models.random_weights import random_network


@pytest.mark.parametrize("bits", [1, 3, 8])
@pytest.mark.parametrize(("name", "layers"), [("resnet50", 1), ("gemini-dfresnet60", 2)])
def test_bytes_are_those_of_the_pressed_network(name: str, layers: int, bits: int) -> None:
    spec = ModelSpec(architecture=name, base_channels=3, embedding_dim=5, embedding_layers=layers)
    network = random_network(spec)
    words = {"name": "net", "architecture": name, "created_by": "tests", "source_sha256": "0" * 64}
    size = network_size(spec)
    assert press(network, frontend=FrontEndSpec(), **words).weights_bytes == size.fp32_bytes
    attach_palettes(network, dict.fromkeys(weight_layers(network), bits))
    assert press(network, frontend=FrontEndSpec(), **words).weights_bytes == size.palette_bytes[bits]


def test_macs_of_resnet34_are_the_published_ones() -> None:
    assert network_size(ModelSpec(architecture="resnet34")).macs / 1e9 == pytest.approx(4.53, abs=0.005)


def test_four_bits_make_resnet34_seven_and_a_half_times_smaller() -> None:
    size = network_size(ModelSpec(architecture="resnet34"))
    assert size.fp32_bytes / size.palette_bytes[4] >= 7.5  # the bytes of a pressed network: see above


def test_every_network_is_sized_in_seconds() -> None:
    started = time.process_time()  # whatever else the machine does
    sizes = json.loads(sizes_json(network_sizes()))
    assert time.process_time() - started < 30
    assert [size["spec"]["architecture"] for size in sizes] == architectures()
    for size in sizes:
        widths = [size["palette_bytes"][str(bits)] for bits in WIDTHS]
        assert widths == sorted(widths, reverse=True)
        assert 3.7 < size["fp32_bytes"] / size["palette_bytes"]["8"] < 4
        assert size["frames"] == 200
