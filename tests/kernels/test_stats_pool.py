from __future__ import annotations

import numpy as np
import pytest

from tests.kernels.capi import (
    BAD_SHAPE,
    NULL_POINTER,
    OK,
    Floats,
    StatsPoolShape,
    address,
    guarded,
    library,
)


def _run(x: Floats) -> Floats:
    batch, _, mel, channels = x.shape
    with guarded(x) as source, guarded(np.full((batch, 2 * mel * channels), np.nan, np.float32)) as out:
        assert library().voxpress_stats_pool_run(StatsPoolShape(*x.shape), address(source), address(out)) == OK
        return out.copy()


def _expected(x: Floats) -> np.ndarray:
    flat = x.astype(np.float64).reshape(*x.shape[:2], -1)
    squares = ((flat - flat.mean(1, keepdims=True)) ** 2).sum(1) / max(1, x.shape[1] - 1)
    return np.concatenate([flat.mean(1), np.sqrt(squares + 1e-7)], axis=1)


@pytest.mark.parametrize("shape", [(1, 2, 1, 1), (2, 17, 3, 5), (1, 301, 10, 7), (3, 25, 1, 64), (1, 4, 5, 13)])
def test_agrees_with_the_formula(shape: tuple[int, int, int, int]) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_allclose(_run(x), _expected(x), rtol=1e-6, atol=1e-6)


def test_a_large_mean_does_not_cancel_the_deviation() -> None:
    x = (1e4 + np.random.default_rng(0).normal(0, 0.1, (1, 200, 2, 3))).astype(np.float32)
    np.testing.assert_allclose(_run(x), _expected(x), rtol=1e-6)


def test_one_frame_gives_the_floor_of_the_deviation() -> None:
    x = np.ones((1, 1, 2, 3), np.float32)
    np.testing.assert_allclose(_run(x), [[1.0] * 6 + [np.sqrt(1e-7)] * 6], rtol=1e-6)


@pytest.mark.parametrize("value", [0, -1, (1 << 63) - 1, -(1 << 63), 1 << 41])
@pytest.mark.parametrize("name", ["batch", "frames", "mel", "channels"])
def test_hostile_sizes_are_refused(name: str, value: int) -> None:
    shape = StatsPoolShape(**{"batch": 1, "frames": 2, "mel": 3, "channels": 4, name: value})
    data = np.zeros(24, np.float32)
    assert library().voxpress_stats_pool_run(shape, address(data), address(data)) == BAD_SHAPE


def test_sizes_whose_product_overflows_are_refused() -> None:
    data = np.zeros(24, np.float32)
    shape = StatsPoolShape(1 << 32, 1 << 32, 1, 1)
    assert library().voxpress_stats_pool_run(shape, address(data), address(data)) == BAD_SHAPE


def test_missing_buffers_are_refused() -> None:
    data = np.zeros(24, np.float32)
    shape = StatsPoolShape(1, 2, 3, 4)
    assert library().voxpress_stats_pool_run(shape, None, address(data)) == NULL_POINTER
    assert library().voxpress_stats_pool_run(shape, address(data), None) == NULL_POINTER


def test_every_status_has_a_text() -> None:
    texts = [library().voxpress_status_text(status) for status in range(6)]
    assert len(set(texts)) == 6
    assert library().voxpress_status_text(99) == b"unknown status"
