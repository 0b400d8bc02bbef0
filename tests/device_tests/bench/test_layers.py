from __future__ import annotations

import pytest

from device_tests.bench.layers import layer_lines, time_layers
from device_tests.records import Mode
from device_tests.report.bench_figures import roof_fraction
from pipeline.artifact.size import program_macs
from pipeline.errors import VoxPressError
from tests.factories import tiny_artifact


def test_lines_follow_the_sizes_through_the_program() -> None:
    lines = layer_lines(tiny_artifact(4, depthwise=True).header, 61)
    assert lines == [
        "conv1 61 80 1 5 3 3 1 1 1 1 1 1 0",
        "block.conv1 61 80 5 5 3 3 1 1 1 1 5 1 0",
        "block.conv2 61 80 5 5 3 3 1 1 1 1 1 1 1",
        "down.conv1 61 80 5 9 3 3 2 2 1 1 1 1 0",
        "down.shortcut 61 80 5 9 1 1 2 2 0 0 1 0 0",
        "down.conv2 31 40 9 9 3 3 1 1 1 1 1 1 1",
        "embedding 1 1 720 16 1 1 1 1 0 0 1 0 0",
    ]


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_every_layer_is_timed_beside_the_roof(mode: Mode) -> None:
    artifact = tiny_artifact(2, depthwise=True)
    layers = time_layers(artifact.header, mode=mode, bits=2, frames=50, repeats=3)
    assert [layer.name for layer in layers.layers] == [node.name for node in artifact.header.layers]
    macs = program_macs(artifact.header.program, frames=50, num_mel_bins=80)
    assert sum(layer.macs for layer in layers.layers) == macs
    assert len(layers.roof_samples_ns) == 3
    # In mode fast layers of fp32 inputs have kernels of their own.
    kernels = {"u8" if "_u8_" in layer.kernel else "f32" for layer in layers.layers}
    assert kernels == ({"f32"} if mode == "exact" else {"f32", "u8"})
    for layer in layers.layers:
        assert len(layer.samples_ns) == 3
        # Winograd needs up to 4 times fewer multiplications; more would be no measurement.
        assert 0 < roof_fraction(layers, layer) < 4


def test_a_program_that_the_kernels_refuse_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("device_tests.bench.layers.layer_lines", lambda header, frames: ["conv1 1 2 3"])
    with pytest.raises(VoxPressError, match='expected a layer, found "conv1 1 2 3"'):
        time_layers(tiny_artifact(2).header, mode="exact", bits=2, frames=50, repeats=1)
