"""Why no kernel computes in half precision: what it would cost mode `exact`, whose bound is 1e-5."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

EXACT_BOUND = 1e-5
CHANNELS, FILTERS, TILES = 64, 16, 100

# F(4x4, 3x3) of exporters/kernels/winograd/transforms.h: points 0, +-a, +-b with a = sqrt(1/2), b = sqrt(2).
A, B = np.sqrt(0.5), np.sqrt(2.0)
INPUT = np.array(
    [
        [1, 0, -2.5, 0, 1, 0],
        [0, -2 * A, -2, A, 1, 0],
        [0, 2 * A, -2, -A, 1, 0],
        [0, -0.5 * B, -0.5, B, 1, 0],
        [0, 0.5 * B, -0.5, -B, 1, 0],
        [0, 1, 0, -2.5, 0, 1],
    ]
)
WEIGHTS = np.array(
    [[1, 0, 0]]
    + [[-2 / 3, sign * -2 / 3 * A, -1 / 3] for sign in (1, -1)]
    + [[1 / 6, sign * 1 / 6 * B, 1 / 3] for sign in (1, -1)]
    + [[0, 0, 1]]
)
OUTPUT = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, A, -A, B, -B, 0],
        [0, 0.5, 0.5, 2, 2, 0],
        [0, 0.5 * A, -0.5 * A, 2 * B, -2 * B, 1],
    ]
)
Values = npt.NDArray[np.floating]


def _layer() -> tuple[Values, Values]:
    """Input tiles [tile, 6, 6, channel] as after a ReLU, weights [3, 3, channel, filter]."""
    rng = np.random.default_rng(0)
    tiles = np.maximum(rng.normal(size=(TILES, 6, 6, CHANNELS)), 0)
    return tiles, rng.normal(size=(3, 3, CHANNELS, FILTERS)) / np.sqrt(9 * CHANNELS)


def _direct(tiles: Values, weights: Values) -> Values:
    windows = np.lib.stride_tricks.sliding_window_view(tiles, (3, 3), axis=(1, 2))
    return np.einsum("tyxcij,ijcf->tyxf", windows, weights)


def _transformed(values: Values, matrix: npt.NDArray[np.float64], number: type[np.floating]) -> Values:
    """Matrix applied to both of the leading pair of axes, each step rounded to `number`."""
    once = np.zeros((len(matrix), *values.shape[1:]), number)
    for row, column in zip(*np.nonzero(matrix), strict=True):
        once[row] += number(matrix[row, column]) * values[column]
    twice = np.zeros((len(matrix), len(matrix), *values.shape[2:]), number)
    for row, column in zip(*np.nonzero(matrix), strict=True):
        twice[:, row] += number(matrix[row, column]) * once[:, column]
    return twice


def _winograd(tiles: Values, weights: Values, number: type[np.floating]) -> Values:
    """F(4x4, 3x3) with inputs, weights and all that is summed in `number`; weights are transformed beforehand."""
    v = _transformed(np.moveaxis(tiles, 0, 2).astype(number), INPUT, number)
    u = _transformed(weights, WEIGHTS, np.float64).astype(number)
    products = np.zeros((6, 6, TILES, FILTERS), number)
    for channel in range(CHANNELS):
        products += v[:, :, :, channel, None] * u[:, :, channel, None, :]
    return np.moveaxis(_transformed(products, OUTPUT, number), 2, 0)


def _error(found: Values, expected: Values) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def test_winograd_here_is_a_convolution_and_keeps_the_bound_in_single_precision() -> None:
    tiles, weights = _layer()
    expected = _direct(tiles, weights)
    assert _error(_winograd(tiles, weights, np.float64), expected) < 1e-12
    assert _error(_winograd(tiles, weights, np.float32), expected) < EXACT_BOUND


@pytest.mark.parametrize("computed", [False, True])
def test_half_precision_breaks_the_bound_even_where_it_only_stores(computed: bool) -> None:
    tiles, weights = _layer()
    expected = _direct(tiles, weights)
    half_tiles, half_weights = tiles.astype(np.float16), weights.astype(np.float16)
    if computed:
        found = _winograd(tiles, weights, np.float16)
    else:
        found = _direct(half_tiles.astype(np.float64), half_weights.astype(np.float64))
    error = _error(found, expected)
    print(f"half precision, {'F(4x4) computed' if computed else 'direct, stored'}: {error:.1e} relative")
    assert error > (100 if computed else 5) * EXACT_BOUND
