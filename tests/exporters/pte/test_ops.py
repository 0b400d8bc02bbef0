from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from exporters.manifest import CONV2D_VERSION, STATS_POOL_VERSION
from exporters.pte.emit import PressedNetwork, StockNetwork
from exporters.pte.ops import unpack_codes
from pipeline.artifact.bitpack import pack_codes
from pipeline.artifact.decode import decode
from pipeline.errors import InputError
from tests.exporters.pte.models import relative_error, utterance
from tests.factories import tiny_artifact

TRACING = ("test_schema", "test_faketensor")


def conv_arguments(bits: int = 4, *, residual: bool = True, relu: bool = True) -> list[Any]:
    rng = torch.Generator().manual_seed(bits)
    codes = torch.randint(0, 256, ((7 * 3 * 3 * 5 * bits + 7) // 8,), generator=rng, dtype=torch.uint8)
    return [
        torch.randn(1, 12, 6, 5, generator=rng),
        codes,
        torch.randn(1 << bits, generator=rng),
        torch.rand(7, generator=rng),
        torch.randn(7, generator=rng),
        torch.randn(1, 6, 3, 7, generator=rng) if residual else None,
        [3, 3],
        [2, 2],
        [1, 1],
        1,
        bits,
        relu,
        CONV2D_VERSION,
    ]


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_come_out_as_they_were_packed(bits: int) -> None:
    codes = np.random.default_rng(bits).integers(0, 1 << bits, 1001).astype(np.uint8)
    unpacked = unpack_codes(torch.from_numpy(pack_codes(codes, bits)), bits, codes.size)
    np.testing.assert_array_equal(unpacked.numpy(), codes)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 5, 6, 7, 8, 32])
@pytest.mark.parametrize("depthwise", [False, True])
def test_both_networks_equal_the_reference(bits: int, depthwise: bool) -> None:
    artifact = tiny_artifact(bits, seed=bits, depthwise=depthwise)
    features = torch.from_numpy(utterance(61))[None]
    expected = decode(artifact)(features).numpy()
    with torch.no_grad():
        assert relative_error(PressedNetwork(artifact)(features).numpy(), expected) < 1e-5
        assert relative_error(StockNetwork(artifact)(features).numpy(), expected) < 1e-5


def test_a_version_that_is_not_known_is_refused() -> None:
    with pytest.raises(InputError, match="expected op version 1, found 2"):
        torch.ops.voxpress.conv2d(*conv_arguments()[:-1], CONV2D_VERSION + 1)
    with pytest.raises(InputError, match="expected op version 1, found 2"):
        torch.ops.voxpress.stats_pool(torch.zeros(1, 3, 2, 2), STATS_POOL_VERSION + 1)


@pytest.mark.parametrize(("index", "value"), [(1, torch.zeros(3, dtype=torch.uint8)), (2, torch.zeros(3)), (2, None)])
def test_codes_and_palettes_of_the_wrong_size_are_refused(index: int, value: torch.Tensor | None) -> None:
    arguments = conv_arguments()
    arguments[index] = value
    with pytest.raises(InputError, match=r"voxpress::conv2d (codes|palette)"):
        torch.ops.voxpress.conv2d(*arguments)


@pytest.mark.parametrize("residual", [False, True])
def test_out_variant_and_shapes_for_tracing_agree_with_the_op(residual: bool) -> None:
    arguments = conv_arguments(residual=residual)
    expected = torch.ops.voxpress.conv2d(*arguments)
    torch.testing.assert_close(torch.ops.voxpress.conv2d.out(*arguments, out=torch.empty(0)), expected, rtol=0, atol=0)
    torch.library.opcheck(torch.ops.voxpress.conv2d.default, tuple(arguments), test_utils=TRACING)
    pool = (expected, STATS_POOL_VERSION)
    pooled = torch.ops.voxpress.stats_pool(*pool)
    torch.testing.assert_close(torch.ops.voxpress.stats_pool.out(*pool, out=torch.empty(0)), pooled, rtol=0, atol=0)
    torch.library.opcheck(torch.ops.voxpress.stats_pool.default, pool, test_utils=TRACING)
