from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.capi import (
    BAD_BITS,
    BAD_BUFFER_SIZE,
    BAD_ISA,
    BAD_PACKED,
    BAD_SHAPE,
    NO_WEIGHTS,
    NULL_POINTER,
    OK,
    SHAPE_FIELDS,
    Layer,
    assert_close,
    float_isa,
    guarded,
    isa,
    isas,
    library,
    misaligned,
    random_layer,
)

WIDTHS = [1, 2, 3, 4, 5, 6, 7, 8, 32]


@pytest.fixture(params=isas(), autouse=True)
def each_isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test of this file runs for every instruction set that the machine has."""
    with isa(request.param):
        yield request.param


def assert_runs(layer: Layer) -> None:
    """From codes and from packed weights alike, the layer is what the formula says."""
    assert_close(layer, layer.run())
    assert_close(layer, layer.run_packed())


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
    "winograd, one tile": {"x": (1, 4, 4, 8), "out_channels": 8},
    "winograd, ragged tiles": {"x": (2, 9, 11, 19), "out_channels": 37},
    "winograd, no padding": {"x": (1, 9, 7, 16), "out_channels": 33, "padding": (0, 0)},
    "winograd, padding wider": {"x": (1, 3, 2, 9), "out_channels": 8, "padding": (4, 5)},
    "winograd, more tiles than a block": {"x": (1, 40, 30, 33), "out_channels": 70},
    "winograd, many channels": {"x": (1, 7, 5, 200), "out_channels": 256},
    "stem of a long utterance": {"x": (1, 60, 40, 1), "out_channels": 32},
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
        assert_runs(layer)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("groups", [1, 2, 10])
def test_every_width_agrees_with_the_formula(bits: int, groups: int) -> None:
    layer = random_layer(np.random.default_rng(bits), bits, x=(1, 7, 6, 10), out_channels=10, groups=groups)
    assert_runs(layer)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    assert_runs(layer)


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_winograd_of_ragged_maps_agrees_with_the_formula(data: st.DataObject) -> None:
    size = st.integers(1, 9)
    layer = random_layer(
        np.random.default_rng(data.draw(st.integers(0, 1000))),
        data.draw(st.sampled_from(WIDTHS)),
        x=(data.draw(st.integers(1, 2)), data.draw(size), data.draw(size), data.draw(st.integers(8, 40))),
        out_channels=data.draw(st.integers(8, 70)),
        padding=(data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))),
        relu=data.draw(st.booleans()),
        residual=data.draw(st.booleans()),
    )
    assert layer.kernel_name(packed=True).startswith("winograd4_")
    assert_runs(layer)


@pytest.mark.parametrize("bits", [1, 3, 7, 8, 32])
@pytest.mark.parametrize(("groups", "channels"), [(1, 11), (11, 11), (1, 4), (70, 70), (1, 200)])
def test_nothing_outside_the_buffers_is_touched(bits: int, groups: int, channels: int) -> None:
    layer = random_layer(
        np.random.default_rng(bits), bits, x=(1, 5, 3, channels), out_channels=channels, groups=groups, residual=True
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
        packed = hold(guarded(np.zeros_like(layer.pack())))
        assert library().voxpress_conv2d_pack(held.call(), packed.ctypes.data, packed.nbytes) == OK
        output[...] = np.nan
        assert held.run_packed_into(output, packed, hold(guarded(layer.packed_scratch()))) == OK
        assert_close(layer, output)


@pytest.mark.parametrize("channels", [4, 16, 200])
def test_runs_repeat_bit_by_bit_and_do_not_depend_on_what_else_is_in_the_map(channels: int) -> None:
    layer = random_layer(np.random.default_rng(0), 4, x=(1, 41, 12, channels), out_channels=channels, padding=(0, 0))
    whole = layer.run_packed()
    np.testing.assert_array_equal(layer.run_packed(), whole)
    start = layer.but(in_frames=18, x=np.ascontiguousarray(layer.x[:, :18]))  # other groups, the same tiles
    np.testing.assert_array_equal(start.run_packed(), whole[:, :16])


@pytest.mark.parametrize("groups", [1, 12])
def test_all_instruction_sets_agree(groups: int) -> None:
    layer = random_layer(np.random.default_rng(0), 4, x=(1, 9, 10, 12), out_channels=12, groups=groups)
    packed, from_codes = layer.run_packed(), layer.run()
    with isa("portable"):
        terms = layer.dense[0].size
        atol = np.finfo(np.float32).eps * terms * float(np.abs(layer.dense).max() * np.abs(layer.x).max())
        np.testing.assert_allclose(packed, layer.run_packed(), rtol=0, atol=atol)
        np.testing.assert_allclose(from_codes, layer.run(), rtol=0, atol=atol)


def test_packed_weights_are_only_taken_for_their_layer() -> None:
    layer = random_layer(np.random.default_rng(0), 4, x=(1, 6, 6, 12), out_channels=12)
    packed, output, scratch = layer.pack(), np.zeros(layer.out_shape(), np.float32), layer.packed_scratch()
    assert layer.run_packed_into(output, packed, scratch) == OK
    for changes in ({"bits": 3}, {"groups": 2}, {"kernel_frames": 2}, {"stride_mel": 2}, {"out_channels": 11}):
        assert layer.run_packed_into(output, packed, scratch, **changes) == BAD_PACKED, changes
    for byte in range(64):
        broken = misaligned(packed, 0)
        broken[byte] ^= 1
        assert layer.run_packed_into(output, broken, scratch) == BAD_PACKED, byte
    for wrong in (packed[:-4], packed[:64], packed[:0]):
        assert layer.run_packed_into(output, wrong, scratch) == BAD_PACKED
    assert layer.run_packed_into(output, misaligned(packed, 4), scratch) == BAD_PACKED
    assert layer.run_packed_into(output, np.zeros_like(packed), scratch) == BAD_PACKED


def test_packed_weights_of_another_instruction_set_are_refused(each_isa: str) -> None:
    layer = random_layer(np.random.default_rng(0), 4, x=(1, 6, 6, 12), out_channels=12)
    packed, output = layer.pack(), np.zeros(layer.out_shape(), np.float32)
    for other in isas():
        with isa(other):
            expected = OK if float_isa(other) == float_isa(each_isa) else BAD_PACKED
            assert layer.run_packed_into(output, packed, layer.packed_scratch()) == expected
    assert layer.run_packed_into(output, packed, layer.packed_scratch()) == OK


def test_packing_checks_its_buffer() -> None:
    layer = random_layer(np.random.default_rng(0), 4)
    packed, pack = layer.pack(), library().voxpress_conv2d_pack
    assert pack(layer.call(), packed.ctypes.data, packed.nbytes - 4) == BAD_BUFFER_SIZE
    assert pack(layer.call(), packed.ctypes.data, packed.nbytes + 64) == BAD_BUFFER_SIZE
    assert pack(layer.call(), packed.ctypes.data + 4, packed.nbytes) == BAD_BUFFER_SIZE
    assert pack(layer.call(), None, packed.nbytes) == NULL_POINTER
    assert pack(layer.call(codes=None), packed.ctypes.data, packed.nbytes) == NULL_POINTER
    assert pack(layer.call(bits=9), packed.ctypes.data, packed.nbytes) == BAD_BITS


def test_packed_sizes_do_not_depend_on_batch_frames_and_mel() -> None:
    layer = random_layer(np.random.default_rng(0), 4, x=(1, 6, 6, 12), out_channels=12)
    longer = layer.but(batch=3, in_frames=600, in_mel=80)
    size = library().voxpress_conv2d_packed_bytes
    assert size(longer.call()) == size(layer.call())


def test_an_instruction_set_that_is_not_there_is_refused(each_isa: str) -> None:
    for name in (b"sse9", b"AVX2", *({b"neon", b"avx2", b"avx512"} - {name.encode() for name in isas()})):
        assert library().voxpress_select_isa(name) == BAD_ISA
        assert library().voxpress_selected_isa().decode() == each_isa
    assert b"instruction set" in library().voxpress_status_text(BAD_ISA)


def test_kernels_are_those_of_the_selected_instruction_set(each_isa: str) -> None:
    for op, changes in {
        "winograd4": {"x": (1, 6, 6, 128), "out_channels": 128},
        "winograd2": {"x": (1, 6, 6, 256), "out_channels": 256},
        "conv2d": {"x": (1, 6, 6, 256), "stride": (2, 1)},
        "dwconv2d": {"x": (1, 6, 6, 9), "out_channels": 9, "groups": 9},
    }.items():
        layer = random_layer(np.random.default_rng(0), 1, **changes)  # type: ignore[arg-type]
        name = layer.kernel_name(packed=True)
        assert name.startswith(f"{op}_f32_panel_")
        assert name.endswith(float_isa(each_isa))
        assert layer.kernel_name(packed=False).startswith(f"{op}_f32_pal_")
        assert layer.kernel_name(packed=False).endswith(float_isa(each_isa))


@pytest.mark.parametrize("by", [1, 2, 3, 5])
@pytest.mark.parametrize("bits", [4, 32])
def test_constants_need_no_alignment(by: int, bits: int) -> None:
    layer = random_layer(np.random.default_rng(by), bits)
    names = ["codes", "scale", "bias"] + (["palette"] if bits < 32 else [])
    assert_runs(layer.but(**{name: misaligned(getattr(layer, name), by) for name in names}))


def test_the_output_may_be_the_residual_itself() -> None:
    layer = random_layer(np.random.default_rng(0), 4, residual=True, relu=True)
    expected = layer.expected()
    assert layer.residual is not None
    scratch = layer.scratch()
    assert library().voxpress_conv2d_run(layer.call(layer.residual, scratch)) == OK
    np.testing.assert_allclose(layer.residual, expected, rtol=0, atol=1e-4)


def test_the_output_of_winograd_may_be_the_residual_itself() -> None:
    layer = random_layer(np.random.default_rng(0), 4, x=(1, 7, 6, 9), residual=True, relu=True)
    expected = layer.expected()
    assert layer.run_packed_into(layer.residual, layer.pack(), layer.packed_scratch()) == OK
    np.testing.assert_allclose(layer.residual, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("groups", [1, 5])
def test_relu_keeps_nan(groups: int) -> None:
    layer = random_layer(np.random.default_rng(0), 4, x=(1, 7, 6, 5), out_channels=5, groups=groups, relu=True)
    layer.x[0, 3, 3, :] = np.nan
    assert np.isnan(layer.run()[0, 3, 3]).all()
    assert np.isnan(layer.run_packed()[0, 3, 3]).all()


def test_winograd_keeps_nan() -> None:
    layer = random_layer(np.random.default_rng(0), 4, x=(1, 7, 6, 16), out_channels=16, relu=True)
    layer.x[0, 3, 3, 5] = np.nan
    assert np.isnan(layer.run_packed()[0, 2:5, 2:5]).all()


@pytest.mark.parametrize("value", [0, -1, -(1 << 63), (1 << 63) - 1, 1 << 62, 1 << 32])
@pytest.mark.parametrize("name", [name for name in SHAPE_FIELDS if not name.startswith("pad")])
def test_hostile_sizes_are_refused(name: str, value: int) -> None:
    layer = random_layer(np.random.default_rng(0), 4).but(**{name: value})
    assert layer.check() == BAD_SHAPE
    for size in ("scratch", "packed", "packed_scratch"):
        assert getattr(library(), f"voxpress_conv2d_{size}_bytes")(layer.call()) == 0
    assert layer.run_packed_into(None, np.zeros(64, np.uint8), None) == BAD_SHAPE
    assert layer.kernel_name(packed=True) == layer.kernel_name(packed=False) == ""


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
    if name not in NO_WEIGHTS:
        packed = layer.pack()
        assert layer.run_packed_into(output, packed, layer.packed_scratch(), **{name: None}) == NULL_POINTER


def test_scratch_too_small_or_unaligned_is_refused() -> None:
    layer = random_layer(np.random.default_rng(0), 4)
    output, scratch = np.zeros(layer.out_shape(), np.float32), layer.scratch()
    run = library().voxpress_conv2d_run
    assert run(layer.call(output, scratch, scratch_bytes=scratch.nbytes - 1)) == BAD_BUFFER_SIZE
    assert run(layer.call(output, scratch, scratch=scratch.ctypes.data + 4)) == BAD_BUFFER_SIZE
    packed, scratch = layer.pack(), layer.packed_scratch()
    assert layer.run_packed_into(output, packed, scratch[:-1]) == BAD_BUFFER_SIZE
    assert layer.run_packed_into(output, packed, scratch, scratch=scratch.ctypes.data + 4) == BAD_BUFFER_SIZE


@pytest.mark.parametrize("channels", [1, 256, 4096])
@pytest.mark.parametrize("stride", [1, 2])
def test_scratch_is_bounded_as_documented(channels: int, stride: int) -> None:
    layer = random_layer(np.random.default_rng(0), 1, x=(1, 3, 3, 1), out_channels=1).but(
        in_channels=channels, out_channels=8192, in_frames=10000, stride_mel=stride
    )
    depth = 9 * channels
    is_winograd = layer.kernel_name(packed=True).startswith("winograd")
    assert is_winograd == (stride == 1 and channels > 1)
    bound = 320 * depth + 8 * 8192 + (193 << 10)
    if layer.kernel_name(packed=False).startswith("winograd"):
        bound = max(1280 << 10, 2151 * channels) + max(640 << 10, 4711 * channels) + 8 * 8192 + (72 << 10)
    assert 0 < library().voxpress_conv2d_scratch_bytes(layer.call()) <= bound
    bound = (513 << 10) + 2151 * channels + (64 << 10) if is_winograd else 56 * depth + (193 << 10)
    assert 0 < library().voxpress_conv2d_packed_scratch_bytes(layer.call()) <= bound


def test_kernels_that_ran_are_named() -> None:
    layer = random_layer(np.random.default_rng(0), 4)
    layer.run()
    layer.run_packed()
    random_layer(np.random.default_rng(0), 4, x=(1, 4, 4, 5), out_channels=5, groups=5).run()
    length = library().voxpress_kernels_used(None, 0)
    text = ctypes.create_string_buffer(length + 1)
    assert library().voxpress_kernels_used(text, length + 1) == length == len(text.value)
    names = text.value.decode().split(",")
    assert {layer.kernel_name(packed=False), layer.kernel_name(packed=True)} <= set(names)
    assert any(name.startswith("dwconv2d_") for name in names)
    short = ctypes.create_string_buffer(b"#" * 8, 8)
    assert library().voxpress_kernels_used(short, 6) == length
    assert short.raw == text.value[:5] + b"\0##"
