import pytest

from pipeline.artifact.schema import Conv2dNode, StatsPoolNode
from pipeline.artifact.size import layer_bytes, program_macs
from tests.factories import tiny_artifact


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 8, 32])
@pytest.mark.parametrize("depthwise", [False, True])
def test_layer_bytes_are_what_the_artifact_counts(bits: int, depthwise: bool) -> None:
    artifact = tiny_artifact(bits, depthwise=depthwise)
    assert sum(layer_bytes(node, bits) for node in artifact.header.layers) == artifact.weights_bytes


def test_macs_by_hand() -> None:
    program = (
        Conv2dNode(
            name="a",
            input="features",
            in_channels=1,
            out_channels=4,
            kernel=(3, 3),
            padding=(1, 1),
            stride=(2, 1),
            bits=32,
        ),
        Conv2dNode(
            name="b", input="a", in_channels=4, out_channels=4, kernel=(3, 3), padding=(1, 1), groups=4, bits=32
        ),
        Conv2dNode(name="c", input="b", residual="a", in_channels=4, out_channels=4, kernel=(1, 1), bits=32),
        StatsPoolNode(name="pool", input="c"),
        Conv2dNode(name="e", input="pool", in_channels=2 * 8 * 4, out_channels=5, kernel=(1, 1), bits=32),
    )
    positions = 4 * 8  # frames 7 -> 4 at stride 2, mel 8 stays
    expected = positions * (4 * 9 * 1) + positions * (4 * 9) + positions * (4 * 4) + 64 * 5
    assert program_macs(program, frames=7, num_mel_bins=8) == expected
