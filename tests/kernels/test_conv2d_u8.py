from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.capi import (
    BAD_BITS,
    BAD_BUFFER_SIZE,
    BAD_PACKED,
    BAD_SHAPE,
    NULL_POINTER,
    OK,
    guarded,
    isa,
    isas,
    misaligned,
)
from tests.kernels.u8 import (
    AUTO,
    BAD_ALGORITHM,
    BAD_QUANTIZATION,
    BAD_SHARE,
    DIRECT,
    F32,
    U8,
    WINOGRAD2,
    WINOGRAD4,
    LayerU8,
    Quantized,
    random_layer_u8,
)

WIDTHS = [1, 2, 3, 4, 5, 6, 7, 8, 32]
ALGORITHMS = [DIRECT, WINOGRAD2, WINOGRAD4]
# Relative error of a layer that rounding in Winograd's transformed domain may make, as measured, with room.
ERROR = {DIRECT: 1e-5, WINOGRAD2: 0.03, WINOGRAD4: 0.11}
Every = settings(
    max_examples=50, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(params=isas(), autouse=True)
def each_isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Every test of this file runs for every instruction set that the machine has."""
    with isa(request.param):
        yield request.param


def assert_same(got: npt.NDArray[Any], wanted: npt.NDArray[Any]) -> None:
    np.testing.assert_array_equal(got.view(np.uint8), wanted.view(np.uint8))


def assert_portable(layer: LayerU8) -> None:
    """Bit by bit what the portable kernel gives, from codes and packed, as a whole and in parts."""
    with isa("portable"):
        wanted = layer.run_packed()
    assert_same(layer.run_packed(), wanted)
    assert_same(layer.run(), wanted)
    assert_same(layer.run_packed(layer.pack(parts=2), parts=3), wanted)


def relative_error(layer: LayerU8) -> float:
    wanted = layer.expected()
    got = replace(layer.out, data=layer.run_packed()).real
    return float(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


GEOMETRIES: dict[str, dict[str, Any]] = {
    "stem": {"x": (1, 11, 8, 1), "out_channels": 32, "elements": (F32, U8, U8)},
    "linear": {
        "x": (3, 1, 1, 130),
        "out_channels": 70,
        "kernel": (1, 1),
        "padding": (0, 0),
        "elements": (F32, U8, F32),
    },
    "grouped floats": {"x": (1, 5, 4, 12), "out_channels": 6, "groups": 3, "elements": (F32, F32, F32)},
    "stride 2": {"x": (1, 9, 8, 32), "out_channels": 64, "stride": (2, 2)},
    "1x1 stride 2": {"x": (1, 7, 5, 19), "out_channels": 40, "kernel": (1, 1), "padding": (0, 0), "stride": (2, 2)},
    "uneven": {"x": (2, 9, 8, 3), "kernel": (5, 2), "stride": (3, 1), "padding": (0, 2)},
    "padding wider than the kernel": {"x": (1, 2, 2, 3), "padding": (5, 4)},
    "one of everything": {"x": (1, 1, 1, 1), "out_channels": 1, "kernel": (1, 1), "padding": (0, 0)},
    "more than a block": {"x": (1, 40, 30, 65), "out_channels": 33, "stride": (1, 2)},
    "grouped": {"x": (1, 6, 5, 12), "out_channels": 75, "groups": 3},
    "depthwise": {"x": (2, 6, 5, 23), "out_channels": 23, "groups": 23},
    "depthwise, whole vectors": {"x": (1, 9, 7, 128), "out_channels": 128, "groups": 128},
    "depthwise, stride 2": {"x": (1, 9, 7, 85), "out_channels": 85, "groups": 85, "stride": (2, 2)},
    "depthwise, tall": {"x": (1, 9, 7, 64), "out_channels": 64, "groups": 64, "kernel": (6, 2)},
    "depthwise, wide padding": {"x": (1, 2, 2, 70), "out_channels": 70, "groups": 70, "padding": (4, 4)},
    "depthwise with multiplier": {"x": (1, 5, 4, 6), "out_channels": 18, "groups": 6},
}
TILES: dict[str, dict[str, Any]] = {
    "one tile": {"x": (1, 4, 4, 32), "out_channels": 32},
    "ragged tiles": {"x": (2, 9, 11, 19), "out_channels": 37},
    "no padding": {"x": (1, 9, 7, 64), "out_channels": 33, "padding": (0, 0)},
    "wide padding": {"x": (1, 3, 2, 70), "out_channels": 16, "padding": (4, 5)},
    "more tiles than a block": {"x": (1, 60, 50, 32), "out_channels": 64},
    "many channels": {"x": (1, 7, 5, 260), "out_channels": 96},
    "few channels": {"x": (1, 7, 5, 3), "out_channels": 5},
}


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("zeros", [(0, 0, 0), (131, 17, 255)])
def test_any_geometry_is_the_portable_kernels(geometry: str, zeros: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(sorted(GEOMETRIES).index(geometry))
    for relu, residual in ((False, False), (True, True)):
        for bits in (1, 4):
            layer = random_layer_u8(rng, bits, relu=relu, residual=residual, zeros=zeros, **GEOMETRIES[geometry])
            assert_portable(layer)


@pytest.mark.parametrize("algorithm", [WINOGRAD2, WINOGRAD4])
@pytest.mark.parametrize("geometry", TILES)
@pytest.mark.parametrize("zeros", [(0, 0, 0), (131, 17, 255)])
def test_any_map_of_tiles_is_the_portable_kernels(algorithm: int, geometry: str, zeros: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(sorted(TILES).index(geometry))
    for relu, residual in ((False, False), (True, True)):
        layer = random_layer_u8(
            rng, 1 if residual else 3, algorithm=algorithm, relu=relu, residual=residual, zeros=zeros, **TILES[geometry]
        )
        assert layer.kernel_name().startswith(f"winograd{4 if algorithm == WINOGRAD4 else 2}_u8_panel8_")
        assert_portable(layer)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_width_is_the_portable_kernels(bits: int, algorithm: int) -> None:
    layer = random_layer_u8(np.random.default_rng(bits), bits, x=(1, 9, 8, 72), out_channels=40, algorithm=algorithm)
    assert_portable(layer)


@Every
@given(st.data())
def test_ragged_shapes_are_the_portable_kernels(data: st.DataObject) -> None:
    algorithm = data.draw(st.sampled_from(ALGORITHMS))
    size, byte, element = st.integers(1, 9), st.integers(0, 255), st.sampled_from([F32, U8])
    options: dict[str, Any] = {}
    groups = 1
    if algorithm == DIRECT:
        groups = data.draw(st.integers(1, 4))
        options |= {
            "kernel": (data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))),
            "stride": (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 3))),
            "groups": groups,
        }
    kernel = options.get("kernel", (3, 3))
    layer = random_layer_u8(
        np.random.default_rng(data.draw(st.integers(0, 1000))),
        data.draw(st.sampled_from(WIDTHS)),
        x=(
            data.draw(st.integers(1, 2)),
            data.draw(size) + kernel[0],
            data.draw(size) + kernel[1],
            groups * data.draw(st.integers(1, 70)),
        ),
        out_channels=groups * data.draw(st.integers(1, 40)),
        padding=(data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))),
        algorithm=algorithm,
        zeros=(data.draw(byte), data.draw(byte), data.draw(byte)),
        elements=(data.draw(element) if algorithm == DIRECT else U8, data.draw(element), data.draw(element)),
        relu=data.draw(st.booleans()),
        residual=data.draw(st.booleans()),
        **options,
    )
    assert_portable(layer)


@pytest.mark.parametrize("bits", WIDTHS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("zeros", [(0, 0, 0), (120, 90, 0)])
def test_error_to_the_formula_is_that_of_rounding(bits: int, algorithm: int, zeros: tuple[int, int, int]) -> None:
    layer = random_layer_u8(
        np.random.default_rng(bits), bits, x=(1, 16, 12, 64), out_channels=32, algorithm=algorithm, zeros=zeros,
        elements=(U8, U8, F32), residual=True,
    )  # fmt: skip
    assert relative_error(layer) < ERROR[algorithm]


@pytest.mark.parametrize("zeros", [(0, 0, 0), (120, 90, 0)])
@pytest.mark.parametrize("groups", [1, 40])
def test_two_valued_weights_are_not_rounded(zeros: tuple[int, int, int], groups: int) -> None:
    layer = random_layer_u8(
        np.random.default_rng(3), 1, x=(1, 9, 8, 40), out_channels=40, groups=groups, algorithm=DIRECT, zeros=zeros,
        elements=(U8, U8, F32),
    )  # fmt: skip
    assert relative_error(layer) < 1e-6


TWO_VALUES = {
    "opposite": (-0.5, 0.5),
    "the other way round": (0.5, -0.5),
    "uneven": (-0.25, 0.75),
    "of one sign": (0.5, 0.75),
    "the same": (0.5, 0.5),
    "neighbours": (0.5, float(np.nextafter(np.float32(0.5), np.float32(1)))),
    "smallest numbers": (1e-45, 3e-45),
    "nothing": (0.0, 0.0),
}


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("values", TWO_VALUES)
@pytest.mark.parametrize("elements", [(U8, U8, U8), (U8, F32, F32)])
def test_any_two_values_are_the_portable_kernels(algorithm: int, values: str, elements: tuple[int, int, int]) -> None:
    made = random_layer_u8(
        np.random.default_rng(4), 1, x=(2, 9, 11, 40), out_channels=40, algorithm=algorithm, zeros=(7, 90, 120),
        elements=elements, residual=True,
    )  # fmt: skip
    was = made.layer.palette
    assert was is not None
    palette = np.array(TWO_VALUES[values], np.float32)
    dense = np.where(made.layer.dense == was.view(np.float32)[0], palette[0], palette[1])
    layer = made.but(palette=palette, dense=dense)
    assert_portable(layer)
    if elements[2] == F32:
        assert relative_error(layer) < ERROR[algorithm]


@pytest.mark.parametrize("algorithm", [WINOGRAD2, WINOGRAD4])
def test_two_valued_weights_are_whole_numbers_in_the_transformed_domain(algorithm: int) -> None:
    """Inputs so small that none of their transformed values exceeds 127 are not rounded either."""
    layer = random_layer_u8(
        np.random.default_rng(3), 1, x=(1, 12, 12, 40), out_channels=40, padding=(0, 0), algorithm=algorithm,
        elements=(U8, U8, F32),
    )  # fmt: skip
    constant = replace(layer, x=replace(layer.x, data=np.full_like(layer.x.data, 3)))
    assert relative_error(constant) < 1e-5


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("channels", [11, 64, 70])
@pytest.mark.parametrize("bits", [1, 3, 4, 7, 8, 32])
def test_nothing_outside_the_buffers_is_touched(algorithm: int, channels: int, bits: int) -> None:
    layer = random_layer_u8(
        np.random.default_rng(channels), bits, x=(1, 7, 6, channels), out_channels=channels, algorithm=algorithm,
        residual=True,
    )  # fmt: skip
    assert_inside_guards(layer)


@pytest.mark.parametrize("elements", [(F32, F32, F32), (U8, U8, U8), (U8, F32, F32)])
@pytest.mark.parametrize("groups", [1, 3, 69])
def test_nothing_outside_the_buffers_is_touched_by_groups(elements: tuple[int, int, int], groups: int) -> None:
    layer = random_layer_u8(
        np.random.default_rng(groups), 1, x=(1, 5, 3, 69), out_channels=69, groups=groups, elements=elements,
        residual=True,
    )  # fmt: skip
    assert_inside_guards(layer)


def assert_inside_guards(layer: LayerU8) -> None:
    wanted = layer.run_packed()
    with ExitStack() as stack:
        hold = stack.enter_context
        buffers = {name: hold(guarded(getattr(layer.layer, name))) for name in ("codes", "scale", "bias")}
        if layer.layer.palette is not None:
            buffers["palette"] = hold(guarded(layer.layer.palette))
        assert layer.residual is not None
        held = layer.but(
            x=replace(layer.x, data=hold(guarded(layer.x.data))),
            residual=replace(layer.residual, data=hold(guarded(layer.residual.data))),
            out=replace(layer.out, data=hold(guarded(layer.out.data))),
            **buffers,
        )
        packed = hold(guarded(np.zeros_like(layer.pack())))
        assert held.pack_into(packed) == OK
        held.out.data[...] = 0
        assert held.run_packed_into(packed, hold(guarded(layer.packed_scratch()))) == OK
        assert_same(held.out.data, wanted)


def test_auto_takes_the_larger_tiles_unless_channels_are_many() -> None:
    def name(channels: int, **options: Any) -> str:
        layer = random_layer_u8(np.random.default_rng(0), 4, x=(1, 5, 5, channels), out_channels=channels, **options)
        return layer.kernel_name().split("_")[0]

    assert [name(channels) for channels in (8, 32, 128, 256)] == ["conv2d", "winograd4", "winograd4", "winograd2"]
    assert name(32, stride=(2, 2)) == name(32, kernel=(1, 1)) == name(32, groups=2) == "conv2d"
    assert name(32, algorithm=DIRECT) == "conv2d"
    assert name(8, algorithm=WINOGRAD2) == "winograd2"


def test_shapes_and_quantizations_that_cannot_be_are_refused() -> None:
    layer = random_layer_u8(np.random.default_rng(0), 4, x=(1, 6, 6, 12), out_channels=12, residual=True)
    assert layer.check() == OK
    assert layer.check(bits=9) == BAD_BITS
    assert layer.check(in_frames=0) == BAD_SHAPE
    assert layer.check(codes_bytes=3) == BAD_BUFFER_SIZE
    assert layer.check(codes=None) == NULL_POINTER
    for name in ("x", "residual", "out"):
        tensor = getattr(layer, name)
        for bad in ({"zero": -1}, {"zero": 256}, {"scale": 0.0}, {"scale": -1.0}, {"scale": np.inf}, {"scale": np.nan}):
            assert layer.but(**{name: replace(tensor, **bad)}).check() == BAD_QUANTIZATION, (name, bad)
    for name in ("input_element", "residual_element", "output_element"):
        assert layer.check(**{name: 2}) == BAD_QUANTIZATION
    assert layer.check(algorithm=4) == BAD_ALGORITHM
    for algorithm in (WINOGRAD2, WINOGRAD4):
        assert layer.check(algorithm=algorithm, stride_mel=2) == BAD_ALGORITHM
        assert layer.check(algorithm=algorithm, input_element=F32) == BAD_ALGORITHM
    too_long = random_layer_u8(np.random.default_rng(0), 4, x=(1, 1, 1, 65537), out_channels=1, kernel=(1, 1),
                               padding=(0, 0))  # fmt: skip
    assert too_long.check() == BAD_SHAPE


def test_shares_that_cannot_be_are_refused() -> None:
    layer = random_layer_u8(np.random.default_rng(0), 4, x=(1, 6, 6, 12), out_channels=12)
    packed, scratch = layer.pack(), layer.packed_scratch()
    for share in ({"parts": 0}, {"part": 1}, {"part": -1}, {"part": 0, "parts": 1025}):
        assert layer.run_packed_into(packed, scratch, **share) == BAD_SHARE
        assert layer.pack_into(packed, **share) == BAD_SHARE


def test_packed_weights_are_only_taken_for_their_layer() -> None:
    layer = random_layer_u8(np.random.default_rng(0), 4, x=(1, 6, 6, 16), out_channels=16, algorithm=AUTO)
    packed, scratch = layer.pack(), layer.packed_scratch()
    assert layer.run_packed_into(packed, scratch) == OK
    for changes in ({"bits": 3}, {"groups": 2}, {"stride_mel": 2}, {"out_channels": 11}, {"relu": True},
                    {"algorithm": WINOGRAD2}, {"output_element": F32}):  # fmt: skip
        assert layer.run_packed_into(packed, scratch, **changes) == BAD_PACKED, changes
    for name in ("x", "out"):
        other = layer.but(**{name: replace(getattr(layer, name), zero=1)})
        assert other.run_packed_into(packed, scratch) == BAD_PACKED
    for byte in range(128):
        broken = misaligned(packed, 0)
        broken[byte] ^= 2
        assert layer.run_packed_into(broken, scratch) == BAD_PACKED, byte
    for wrong in (packed[:-4], packed[:64], misaligned(packed, 4)):
        assert layer.run_packed_into(wrong, scratch) == BAD_PACKED
    assert layer.run_packed_into(packed, None) == NULL_POINTER
    assert layer.run_packed_into(packed, misaligned(scratch, 4)) == BAD_BUFFER_SIZE
    assert layer.run_packed_into(packed, scratch[:-64]) == BAD_BUFFER_SIZE


def test_values_beyond_the_range_are_cut_off_and_what_is_no_number_is_the_least() -> None:
    layer = random_layer_u8(np.random.default_rng(0), 4, x=(1, 4, 4, 8), out_channels=16, zeros=(0, 0, 7),
                            elements=(U8, F32, U8), residual=True, relu=True)  # fmt: skip
    assert layer.residual is not None
    cuts = {1e30: 255, -1e30: 7, np.inf: 255, -np.inf: 7, np.nan: 7}
    for value, wanted in cuts.items():
        filled = replace(layer, residual=Quantized(np.full_like(layer.residual.data, value)))
        assert (filled.run_packed() == wanted).all(), value
