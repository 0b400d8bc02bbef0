from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from calibration.int8 import ChannelMoments, channel_moments, int8_palette, with_int8_palettes
from pipeline.artifact.schema import Conv2dNode
from pipeline.artifact.store import StoredLayer
from tests.factories import noise_utterances, random_layer, tiny_artifact


def as_kernels_round(palette: np.ndarray) -> np.ndarray:
    """The rule of the integer kernels: the nearest multiple of the largest / 127."""
    step = np.float32(np.abs(palette).max() / np.float32(127))
    return (np.rint(palette / step) * step).astype(np.float32)


def output_error(layer: StoredLayer, palette: np.ndarray, x: np.ndarray) -> float:
    """Mean squared error of a 1x1 layer's outputs with another palette. x: [positions, channels]."""
    change = dataclasses.replace(layer, palette=palette).dense_weight() - layer.dense_weight()
    return float(np.mean((x @ change.reshape(layer.node.out_channels, -1).T) ** 2))


def one_by_one(bits: int, channels: int = 64, seed: int = 0) -> StoredLayer:
    node = Conv2dNode(name="x", input="y", in_channels=channels, out_channels=48, kernel=(1, 1), bits=bits)  # type: ignore[arg-type]
    return random_layer(node, np.random.default_rng(seed))


def moments_of(x: np.ndarray) -> ChannelMoments:
    return ChannelMoments(x.mean(axis=0), x.var(axis=0))


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_kernels_take_it_as_it_is(bits: int) -> None:
    layer = one_by_one(bits)
    x = np.maximum(np.random.default_rng(1).normal(0.3, 1, (500, 64)), 0)
    found = int8_palette(layer, moments_of(x))
    assert found.dtype == np.float32
    np.testing.assert_allclose(as_kernels_round(found), found, rtol=2e-6)
    assert layer.palette is not None
    step = np.abs(layer.palette).max() / 127
    assert np.abs(found - layer.palette).max() < 4 * step  # multiples move by a few steps, not anywhere


@pytest.mark.parametrize("seed", range(4))
def test_positive_inputs_do_not_add_its_roundings_up(seed: int) -> None:
    layer = one_by_one(4, channels=256, seed=seed)
    x = np.abs(np.random.default_rng(seed).normal(2, 0.3, (500, 256)))
    assert layer.palette is not None
    nearest = output_error(layer, as_kernels_round(layer.palette), x)
    assert output_error(layer, int8_palette(layer, moments_of(x)), x) < 0.6 * nearest


def test_its_error_form_is_the_error_for_inputs_that_are_constant() -> None:
    """Of a depthwise layer too, where each output reads one channel."""
    node = Conv2dNode(name="x", input="y", in_channels=6, out_channels=6, groups=6, kernel=(3, 3), bits=4)
    layer = random_layer(node, np.random.default_rng(0))
    mean = np.arange(1.0, 7.0)
    found = int8_palette(layer, ChannelMoments(mean, np.zeros(6)))
    assert layer.palette is not None

    def error(palette: np.ndarray) -> float:
        change = dataclasses.replace(layer, palette=palette).dense_weight() - layer.dense_weight()
        return float(np.sum((mean * change.reshape(6, 9).sum(axis=1)) ** 2))

    assert error(found) < 0.1 * error(as_kernels_round(layer.palette))


def test_only_palettes_of_2_to_8_bits_change() -> None:
    for bits in (1, 32):
        artifact = tiny_artifact(bits)
        assert with_int8_palettes(artifact, noise_utterances().values()).sha256 == artifact.sha256
    artifact = tiny_artifact(4)
    rounded = with_int8_palettes(artifact, noise_utterances().values())
    assert rounded.header == artifact.header
    for name, layer in rounded.layers.items():
        old = artifact.layers[name]
        assert layer.palette is not None
        assert old.palette is not None
        assert not np.array_equal(layer.palette, old.palette)
        for key in ("codes", "scale", "bias"):
            np.testing.assert_array_equal(getattr(layer, key), getattr(old, key))


def test_a_palette_of_zeros_stays() -> None:
    layer = dataclasses.replace(one_by_one(3), palette=np.zeros(8, np.float32))
    found = int8_palette(layer, ChannelMoments(np.ones(64), np.ones(64)))
    np.testing.assert_array_equal(found, np.zeros(8))


def test_moments_are_those_of_the_values() -> None:
    found = channel_moments(tiny_artifact(4), noise_utterances().values())["features"]
    both = list(noise_utterances().values())
    assert found.mean[0] == pytest.approx(np.mean([features.mean() for features in both]))
    square = np.mean([np.mean(features.astype(np.float64) ** 2) for features in both])
    assert found.variance[0] == pytest.approx(square - found.mean[0] ** 2)
