from __future__ import annotations

import ctypes
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.kernels.capi import (
    BAD_BITS,
    BAD_BUFFER_SIZE,
    BAD_SHAPE,
    NULL_POINTER,
    OK,
    SHAPE_FIELDS,
    assert_close,
    guarded,
    library,
    misaligned,
    random_layer,
)

WIDTHS = [1, 2, 3, 4, 5, 6, 7, 8, 32]

GEOMETRIES: dict[str, dict[str, Any]] = {
    "stem": {"x": (1, 11, 8, 1), "out_channels": 32},
    "batch of three": {"x": (3, 5, 4, 6), "out_channels": 7},
    "stride 2": {"x": (1, 9, 8, 5), "out_channels": 13, "stride": (2, 2)},
    "uneven": {"x": (1, 9, 8, 3), "kernel": (5, 2), "stride": (3, 1), "padding": (0, 2)},
    "padding wider than the kernel": {"x": (1, 2, 2, 3), "padding": (5, 4)},
    "stride wider than the input": {"x": (1, 7, 6, 4), "stride": (64, 64)},
    "1x1": {"x": (1, 6, 5, 19), "out_channels": 33, "kernel": (1, 1), "padding": (0, 0)},
    "1x1 stride 2": {"x": (1, 7, 5, 19), "kernel": (1, 1), "padding": (0, 0), "stride": (2, 2)},
    "linear": {"x": (2, 1, 1, 130), "out_channels": 17, "kernel": (1, 1), "padding": (0, 0)},
    "one of everything": {"x": (1, 1, 1, 1), "out_channels": 1, "kernel": (1, 1), "padding": (0, 0)},
    "more panels than fit the budget": {"x": (1, 2, 3, 1024), "out_channels": 65},
    "grouped": {"x": (1, 6, 5, 12), "out_channels": 30, "groups": 3},
    "groups of one output": {"x": (1, 6, 5, 12), "out_channels": 6, "groups": 6},
    "depthwise": {"x": (2, 6, 5, 23), "out_channels": 23, "groups": 23},
    "depthwise over two blocks": {"x": (1, 5, 4, 85), "out_channels": 85, "groups": 85, "stride": (2, 2)},
    "depthwise with multiplier": {"x": (1, 5, 4, 6), "out_channels": 18, "groups": 6},
    "depthwise, padding wider": {"x": (1, 2, 2, 5), "out_channels": 5, "groups": 5, "padding": (4, 4)},
}


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("bits", [3, 32])
def test_geometries_agree_with_the_formula(geometry: str, bits: int) -> None:
    rng = np.random.default_rng(sorted(GEOMETRIES).index(geometry))
    for relu, residual in ((False, False), (True, True)):
        layer = random_layer(rng, bits, relu=relu, residual=residual, **GEOMETRIES[geometry])
        assert_close(layer, layer.run())


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("groups", [1, 2, 10])
def test_every_width_agrees_with_the_formula(bits: int, groups: int) -> None:
    layer = random_layer(np.random.default_rng(bits), bits, x=(1, 7, 6, 10), out_channels=10, groups=groups)
    assert_close(layer, layer.run())


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_ragged_shapes_agree_with_the_formula(data: st.DataObject) -> None:
    size = st.integers(1, 9)
    groups, per_group = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 5))
    kernel, padding = (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))), (data.draw(st.integers(0, 3)), 1)
    x = (data.draw(st.integers(1, 2)), data.draw(size) + kernel[0], data.draw(size) + kernel[1], groups * per_group)
    layer = random_layer(
        np.random.default_rng(data.draw(st.integers(0, 1000))),
        data.draw(st.sampled_from(WIDTHS)),
        x=x,
        out_channels=groups * data.draw(st.integers(1, 20)),
        kernel=kernel,
        stride=(data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))),
        padding=padding,
        groups=groups,
        relu=data.draw(st.booleans()),
        residual=data.draw(st.booleans()),
    )
    assert_close(layer, layer.run())


@pytest.mark.parametrize("bits", [1, 3, 7, 8, 32])
@pytest.mark.parametrize("groups", [1, 11])
def test_nothing_outside_the_buffers_is_touched(bits: int, groups: int) -> None:
    layer = random_layer(
        np.random.default_rng(bits), bits, x=(1, 5, 3, 11), out_channels=11, groups=groups, residual=True
    )
    with ExitStack() as stack:
        hold = stack.enter_context
        buffers = {name: hold(guarded(getattr(layer, name))) for name in ("codes", "scale", "bias", "x", "residual")}
        if layer.palette is not None:
            buffers["palette"] = hold(guarded(layer.palette))
        held = layer.but(**buffers)
        output = hold(guarded(np.zeros(layer.out_shape(), np.float32)))
        # Scratch sizes are multiples of 64, so that scratch that ends at the guard is aligned too.
        scratch = hold(guarded(layer.scratch()))
        assert library().voxpress_conv2d_run(held.call(output, scratch)) == OK
        assert_close(layer, output)


@pytest.mark.parametrize("by", [1, 2, 3, 5])
@pytest.mark.parametrize("bits", [4, 32])
def test_constants_need_no_alignment(by: int, bits: int) -> None:
    layer = random_layer(np.random.default_rng(by), bits)
    names = ["codes", "scale", "bias"] + (["palette"] if bits < 32 else [])
    assert_close(layer, layer.but(**{name: misaligned(getattr(layer, name), by) for name in names}).run())


def test_the_output_may_be_the_residual_itself() -> None:
    layer = random_layer(np.random.default_rng(0), 4, residual=True, relu=True)
    expected = layer.expected()
    assert layer.residual is not None
    scratch = layer.scratch()
    assert library().voxpress_conv2d_run(layer.call(layer.residual, scratch)) == OK
    np.testing.assert_allclose(layer.residual, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 5])
def test_relu_keeps_nan(groups: int) -> None:
    layer = random_layer(np.random.default_rng(0), 4, x=(1, 7, 6, 5), out_channels=5, groups=groups, relu=True)
    layer.x[0, 3, 3, :] = np.nan
    assert np.isnan(layer.run()[0, 3, 3]).all()


@pytest.mark.parametrize("value", [0, -1, -(1 << 63), (1 << 63) - 1, 1 << 62, 1 << 32])
@pytest.mark.parametrize("name", [name for name in SHAPE_FIELDS if not name.startswith("pad")])
def test_hostile_sizes_are_refused(name: str, value: int) -> None:
    layer = random_layer(np.random.default_rng(0), 4).but(**{name: value})
    assert layer.check() == BAD_SHAPE
    assert library().voxpress_conv2d_scratch_bytes(layer.call()) == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"pad_frames": -1},
        {"pad_mel": (1 << 63) - 1},
        {"pad_mel": 1 << 31, "pad_frames": 1 << 31},
        {"groups": 2},
        {"groups": 10},
        {"kernel_frames": 10},
        {"kernel_mel": 9},
        {"batch": 1 << 30, "in_frames": 1 << 30},
        {"in_channels": 1 << 30, "out_channels": 1 << 30, "in_frames": 1 << 30, "in_mel": 1 << 30},
        {"out_channels": 1 << 31, "kernel_frames": 1 << 31, "pad_frames": 1 << 31},
    ],
)
def test_sizes_that_do_not_fit_together_are_refused(changes: dict[str, int]) -> None:
    assert random_layer(np.random.default_rng(0), 4).but(**changes).check() == BAD_SHAPE


@pytest.mark.parametrize("bits", [0, -1, 9, 16, 31, 33, 1 << 30, -(1 << 31)])
def test_unknown_widths_are_refused(bits: int) -> None:
    assert random_layer(np.random.default_rng(0), 4).but(bits=bits).check() == BAD_BITS


@pytest.mark.parametrize("name", ["codes", "palette", "scale", "bias"])
@pytest.mark.parametrize("bits", [4, 32])
def test_buffers_of_the_wrong_size_are_refused(name: str, bits: int) -> None:
    layer = random_layer(np.random.default_rng(0), bits)
    assert layer.check() == OK
    right = 0 if getattr(layer, name) is None else getattr(layer, name).nbytes
    for wrong in {right - 1, right + 1, right * 2 + 4, (1 << 64) - 1} - {-1}:
        assert layer.check(**{f"{name}_bytes": wrong}) == BAD_BUFFER_SIZE


@pytest.mark.parametrize("name", ["codes", "palette", "scale", "bias", "input", "output", "scratch"])
def test_missing_buffers_are_refused(name: str) -> None:
    layer = random_layer(np.random.default_rng(0), 4)
    output, scratch = np.zeros(layer.out_shape(), np.float32), layer.scratch()
    assert library().voxpress_conv2d_run(layer.call(output, scratch, **{name: None})) == NULL_POINTER


def test_scratch_too_small_or_unaligned_is_refused() -> None:
    layer = random_layer(np.random.default_rng(0), 4)
    output, scratch = np.zeros(layer.out_shape(), np.float32), layer.scratch()
    run = library().voxpress_conv2d_run
    assert run(layer.call(output, scratch, scratch_bytes=scratch.nbytes - 1)) == BAD_BUFFER_SIZE
    assert run(layer.call(output, scratch, scratch=scratch.ctypes.data + 4)) == BAD_BUFFER_SIZE


@pytest.mark.parametrize("channels", [256, 4096])
def test_scratch_is_bounded_as_documented(channels: int) -> None:
    layer = random_layer(np.random.default_rng(0), 1, x=(1, 3, 3, 1), out_channels=1).but(
        in_channels=channels, out_channels=8192
    )
    depth = 9 * channels
    bound = max(256 << 10, 32 * depth) + 4 * depth + 32 * 9 + 192
    assert 0 < library().voxpress_conv2d_scratch_bytes(layer.call()) <= bound


def test_kernels_that_ran_are_named() -> None:
    random_layer(np.random.default_rng(0), 4).run()
    random_layer(np.random.default_rng(0), 4, x=(1, 4, 4, 5), out_channels=5, groups=5).run()
    length = library().voxpress_kernels_used(None, 0)
    text = ctypes.create_string_buffer(length + 1)
    assert library().voxpress_kernels_used(text, length + 1) == length == len(text.value)
    names = text.value.decode().split(",")
    assert library().voxpress_conv2d_kernel_name().decode() in names
    assert any(name.startswith("dwconv2d_") for name in names)
    short = ctypes.create_string_buffer(b"#" * 8, 8)
    assert library().voxpress_kernels_used(short, 6) == length
    assert short.raw == text.value[:5] + b"\0##"
