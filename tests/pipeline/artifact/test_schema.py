from typing import Any

import pydantic
import pytest

from pipeline.artifact.schema import Artifact, conv_out_size
from tests.factories import tiny_artifact


def _changed(change: Any) -> dict[str, Any]:
    content = tiny_artifact().header.model_dump(mode="json")
    change(content)
    return content


def test_a_good_header_survives_json() -> None:
    header = tiny_artifact(depthwise=True).header
    assert Artifact.model_validate_json(header.model_dump_json()) == header


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["program"][1].update(name="conv1"), "used twice"),
        (lambda c: c["program"][1].update(input="nowhere"), "no earlier node makes"),
        (lambda c: c["program"][0].update(input="block.conv1"), "no earlier node makes"),
        (lambda c: c["program"][2].update(residual="down.conv2"), "no earlier node makes"),
        (lambda c: c["program"][5].update(residual="conv1"), "shape differs"),
        (lambda c: c["program"][1].update(in_channels=6), "takes 6 channels"),
        (lambda c: c["program"][1].update(groups=2), "do not divide"),
        (lambda c: c["program"][1].update(bits=9), "Input should be"),
        (lambda c: c["program"][1].update(bits=0), "Input should be"),
        (lambda c: c["program"][1].update(stride=[0, 1]), "greater than or equal to 1"),
        (lambda c: c["program"][1].update(kernel=[3, 1 << 20]), "less than or equal to"),
        (lambda c: c["program"][1].update(kernel=[3, 999]), "leaves no mel bins"),
        (lambda c: c["program"][1].update(dilation=[2, 2]), "Extra inputs"),
        (lambda c: c["program"][1].update(op="conv3d"), "does not match any of the expected tags"),
        (lambda c: c.update(embedding_dim=17), "does not give 17 values"),
        (lambda c: c.update(program=[]), "does not give 16 values"),
        (lambda c: c.update(format_version=2), "Input should be 1"),
        (lambda c: c.update(name="../x"), "String should match"),
    ],
)
def test_a_header_that_makes_no_network_is_refused(change: Any, message: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=message):
        Artifact.model_validate(_changed(change))


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "padding", "out"), [(80, 3, 1, 1, 80), (80, 3, 2, 1, 40), (5, 1, 2, 0, 3)]
)
def test_output_size(size: int, kernel: int, stride: int, padding: int, out: int) -> None:
    assert conv_out_size(size, kernel, stride, padding) == out
