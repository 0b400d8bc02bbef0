import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.quantize.kmeans import decode, encode, fit_palette


def _error(weights: np.ndarray, palette: np.ndarray) -> float:
    return float(np.square(weights.astype(np.float64) - decode(encode(weights, palette), palette)).sum())


def _best_error(weights: np.ndarray, clusters: int) -> float:
    """The true minimum by dynamic programming over the sorted weights."""
    ordered = np.sort(weights.astype(np.float64))
    count = len(ordered)

    def cost(first: int, last: int) -> float:
        part = ordered[first:last]
        return float(np.square(part - part.mean()).sum())

    best = [cost(0, end) if end else 0.0 for end in range(count + 1)]
    for _ in range(clusters - 1):
        best = [0.0] + [
            min(best[start] + (cost(start, end) if end > start else 0.0) for start in range(end + 1))
            for end in range(1, count + 1)
        ]
    return best[count]


@settings(max_examples=60, deadline=None)
@given(
    weights=st.lists(st.floats(-10, 10, width=32, allow_subnormal=False), min_size=1, max_size=40),
    bits=st.integers(1, 8),
)
def test_codes_point_to_the_nearest_palette_entry(weights: list[float], bits: int) -> None:
    values = np.array(weights, np.float32)
    palette = fit_palette(values, bits)
    assert palette.shape == (1 << bits,)
    assert palette.dtype == np.float32
    assert (np.diff(palette) >= 0).all()
    codes = encode(values, palette)
    distance = np.abs(values.astype(np.float64)[:, None] - palette.astype(np.float64))
    np.testing.assert_allclose(distance[np.arange(len(values)), codes], distance.min(axis=1), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", range(6))
def test_the_fit_is_close_to_the_optimum(bits: int, seed: int) -> None:
    weights = np.random.default_rng(seed).normal(size=60).astype(np.float32)
    assert _error(weights, fit_palette(weights, bits)) <= 1.02 * _best_error(weights, 1 << bits) + 1e-9


@pytest.mark.parametrize("bits", range(1, 8))
def test_one_bit_more_is_better(bits: int) -> None:
    weights = np.random.default_rng(0).normal(size=5000).astype(np.float32)
    assert _error(weights, fit_palette(weights, bits + 1)) < 0.5 * _error(weights, fit_palette(weights, bits))


def test_few_distinct_weights_are_kept_exactly() -> None:
    weights = np.array([3.0, -1.0, 3.0, 0.5], np.float32)
    palette = fit_palette(weights, 4)
    assert palette[:3].tolist() == [-1.0, 0.5, 3.0]
    np.testing.assert_array_equal(decode(encode(weights, palette), palette), weights)


def test_an_emptied_cluster_is_seeded_again() -> None:
    weights = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    start = np.array([-100.0, -99.0, 0.0, 0.1], np.float32)  # two of the four catch nothing
    palette = fit_palette(weights, 2, start=start)
    assert np.isfinite(palette).all()
    assert (np.bincount(encode(weights, palette), minlength=4) > 0).all()


def test_a_warm_start_follows_moved_weights() -> None:
    weights = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    palette = fit_palette(weights, 3)
    moved = weights + np.float32(0.1)
    followed = fit_palette(moved, 3, start=palette, iterations=1)
    assert _error(moved, followed) < _error(moved, palette)


def test_the_same_weights_give_the_same_palette() -> None:
    weights = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    np.testing.assert_array_equal(fit_palette(weights, 4), fit_palette(weights[::-1].copy(), 4))


@pytest.mark.parametrize(
    "weights", [np.zeros(0, np.float32), np.array([1, np.nan], np.float32), np.array([np.inf], np.float32)]
)
def test_weights_that_are_no_numbers_are_refused(weights: np.ndarray) -> None:
    with pytest.raises(InputError, match="finite values"):
        fit_palette(weights, 2)


@pytest.mark.parametrize("bits", [0, 9])
def test_other_widths_are_refused(bits: int) -> None:
    with pytest.raises(InputError, match="a width from 1 to 8"):
        fit_palette(np.ones(3, np.float32), bits)
