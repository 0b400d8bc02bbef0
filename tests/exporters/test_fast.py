from __future__ import annotations

import pytest

from exporters.fast import Algorithm, fast_program, u8_values
from pipeline.errors import InputError
from tests.factories import noise_ranges, tiny_artifact


def test_all_between_convolutions_is_u8_and_nothing_from_pooling_on() -> None:
    header = tiny_artifact(4).header
    assert u8_values(header) == {"conv1", "block.conv1", "block.conv2", "down.conv1", "down.shortcut"}


def test_layers_read_and_write_what_their_neighbours_do() -> None:
    artifact = tiny_artifact(4)
    program = fast_program(artifact.header, noise_ranges(artifact), {"block.conv1": Algorithm.DIRECT})
    layers = {node.name: program.layer(node) for node in artifact.header.layers}
    assert layers["conv1"].input is None
    assert layers["conv1"].output == layers["block.conv1"].input == layers["block.conv2"].residual
    assert layers["down.conv2"].output is None
    signed = layers["down.shortcut"].output
    assert signed is not None
    assert signed.zero > 0
    assert (layers["embedding"].input, layers["embedding"].output) == (None, None)
    assert layers["block.conv1"].algorithm == Algorithm.DIRECT
    assert layers["block.conv2"].algorithm == Algorithm.AUTO


def test_winograd_is_for_3x3_of_stride_1_on_bytes() -> None:
    artifact = tiny_artifact(4)
    program = fast_program(artifact.header, noise_ranges(artifact))
    may = {node.name for node in artifact.header.layers if program.may_use_winograd(node)}
    assert may == {"block.conv1", "block.conv2", "down.conv2"}


def test_a_tensor_without_a_range_is_refused() -> None:
    artifact = tiny_artifact(4)
    ranges = noise_ranges(artifact)
    tensors = {name: found for name, found in ranges.tensors.items() if name != "conv1"}
    with pytest.raises(InputError, match="expected a range of conv1, found none"):
        fast_program(artifact.header, ranges.model_copy(update={"tensors": tensors}))
