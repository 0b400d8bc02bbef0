from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from exporters.native import native_path
from tests.kernels.capi import BAD_BITS, BAD_BUFFER_SIZE, BAD_PACKED, NULL_POINTER, OK, Layer, random_layer
from tests.kernels.capi import uninitialised as aligned
from tests.kernels.u8 import DIRECT, WINOGRAD2, WINOGRAD4, LayerU8, random_layer_u8

AnyLayer = Layer | LayerU8
THREADS = (1, 2, 3, 5)


@functools.cache
def library() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(native_path("kernels_capi").with_name("libvoxpress_prepared_capi.so")))
    pointer, size, integer = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32
    for name, result, arguments in (
        ("store_create", pointer, [size]),
        ("store_destroy", None, [pointer]),
        ("store_get", pointer, [pointer, pointer, ctypes.POINTER(integer)]),
        ("store_get_u8", pointer, [pointer, pointer, ctypes.POINTER(integer)]),
        ("packed_release", None, [pointer]),
        ("layer_scratch_bytes", size, [pointer, ctypes.c_bool, integer]),
        ("layer_scratch_bytes_u8", size, [pointer, ctypes.c_bool, integer]),
        ("run_layer", integer, [pointer, pointer, integer]),
        ("run_layer_u8", integer, [pointer, pointer, integer]),
        ("stop_threads", None, []),
    ):
        function = getattr(lib, f"voxpress_{name}")
        function.restype, function.argtypes = result, arguments
    return lib


def of_mode(name: str, layer: AnyLayer) -> Callable[..., int]:
    return getattr(library(), f"voxpress_{name}{'_u8' if isinstance(layer, LayerU8) else ''}")  # type: ignore[no-any-return]


class Runner:
    """A layer and its packed weights in a store of their own."""

    def __init__(self, layer: AnyLayer) -> None:
        self.layer = layer
        self.store = library().voxpress_store_create(1 << 30)
        status = ctypes.c_int32(-1)
        call = self._call(None, None)
        self.packed = of_mode("store_get", layer)(self.store, ctypes.addressof(call), ctypes.byref(status))
        assert status.value == OK

    def close(self) -> None:
        library().voxpress_packed_release(self.packed)
        library().voxpress_store_destroy(self.store)

    def _call(self, output: npt.NDArray[Any] | None, scratch: npt.NDArray[np.uint8] | None, /, **overrides: Any) -> Any:
        if isinstance(self.layer, LayerU8):
            layer = self.layer if output is None else replace(self.layer, out=replace(self.layer.out, data=output))
            return layer.call(scratch, **overrides)
        return self.layer.call(output, scratch, **overrides)

    def scratch_bytes(self, *, packed: bool, threads: int) -> int:
        call = self._call(None, None)
        return int(of_mode("layer_scratch_bytes", self.layer)(ctypes.addressof(call), packed, threads))

    def status(
        self, output: npt.NDArray[Any], threads: int, *, packed: bool = True, short: int = 0, **overrides: Any
    ) -> int:
        scratch = aligned(self.scratch_bytes(packed=packed, threads=threads) - short)
        call = self._call(output, scratch, **overrides)
        return of_mode("run_layer", self.layer)(ctypes.addressof(call), self.packed if packed else None, threads)

    def run(self, threads: int, *, packed: bool = True) -> npt.NDArray[Any]:
        output = np.zeros_like(self.output())
        assert self.status(output, threads, packed=packed) == OK
        return output

    def output(self) -> npt.NDArray[Any]:
        return self.layer.out.data if isinstance(self.layer, LayerU8) else np.zeros(self.layer.out_shape(), np.float32)


# Large enough to be worth several threads.
LAYERS: dict[str, Callable[[np.random.Generator], AnyLayer]] = {
    "exact, winograd": lambda rng: random_layer(rng, 4, x=(1, 40, 30, 32), out_channels=32, residual=True),
    "exact, winograd, many channels": lambda rng: random_layer(rng, 4, x=(1, 14, 13, 32), out_channels=200),
    "exact, F(2x2), many channels": lambda rng: random_layer(rng, 4, x=(1, 13, 10, 200), out_channels=200),
    "exact, stride 2": lambda rng: random_layer(rng, 4, x=(1, 61, 40, 20), out_channels=40, stride=(2, 2)),
    "exact, depthwise": lambda rng: random_layer(rng, 4, x=(1, 60, 40, 64), out_channels=64, groups=64),
    "exact, grouped": lambda rng: random_layer(rng, 4, x=(1, 60, 20, 24), out_channels=60, groups=3),
    "fast, F(4x4)": lambda rng: random_layer_u8(rng, 4, x=(1, 41, 30, 32), out_channels=64, algorithm=WINOGRAD4),
    "fast, F(2x2)": lambda rng: random_layer_u8(rng, 1, x=(1, 41, 30, 64), out_channels=64, algorithm=WINOGRAD2),
    "fast, direct": lambda rng: random_layer_u8(rng, 4, x=(1, 41, 30, 32), out_channels=64, algorithm=DIRECT),
    "fast, depthwise": lambda rng: random_layer_u8(rng, 1, x=(1, 60, 40, 64), out_channels=64, groups=64),
}


@pytest.fixture(params=LAYERS)
def runner(request: pytest.FixtureRequest) -> Iterator[Runner]:
    made = Runner(LAYERS[request.param](np.random.default_rng(0)))
    yield made
    made.close()


def test_any_number_of_threads_gives_the_same_bytes(runner: Runner) -> None:
    wanted = runner.layer.run_packed()
    for threads in THREADS:
        for _ in range(3):
            np.testing.assert_array_equal(runner.run(threads), wanted)
    assert runner.scratch_bytes(packed=True, threads=2) > runner.scratch_bytes(packed=True, threads=1)


def test_low_memory_with_any_number_of_threads_gives_the_same_bytes(runner: Runner) -> None:
    wanted = runner.layer.run()
    for threads in THREADS:
        np.testing.assert_array_equal(runner.run(threads, packed=False), wanted)


def test_callers_at_the_same_time_do_not_disturb_each_other() -> None:
    runners = [Runner(make(np.random.default_rng(1))) for make in LAYERS.values()]
    wanted = [runner.run(1) for runner in runners]
    with ThreadPoolExecutor(len(runners)) as pool:
        for _ in range(10):
            for got, one in zip(pool.map(lambda runner: runner.run(3), runners), wanted, strict=True):
                np.testing.assert_array_equal(got, one)
    for runner in runners:
        runner.close()


def test_threads_start_again_after_they_were_stopped(runner: Runner) -> None:
    wanted = runner.run(2)
    for _ in range(3):
        library().voxpress_stop_threads()
        np.testing.assert_array_equal(runner.run(2), wanted)


def test_a_layer_too_small_to_share_runs_on_one_thread() -> None:
    runner = Runner(random_layer(np.random.default_rng(0), 4, x=(1, 4, 4, 8), out_channels=8))
    assert runner.scratch_bytes(packed=True, threads=8) == runner.scratch_bytes(packed=True, threads=1)
    runner.close()


def test_what_goes_wrong_in_a_part_is_said(runner: Runner) -> None:
    output = runner.output()
    for threads in (1, 2):
        assert runner.status(output, threads) == OK
        assert runner.status(output, threads, short=64) == BAD_BUFFER_SIZE
        assert runner.status(output, threads, packed=False, short=64) == BAD_BUFFER_SIZE
        assert runner.status(output, threads, bits=9) == BAD_BITS
        assert runner.status(output, threads, bits=3) == BAD_PACKED
        assert runner.status(output, threads, input=None) == NULL_POINTER
        assert runner.status(output, threads, packed=False, codes=None) == NULL_POINTER
        assert runner.status(output, threads, scratch=None) == NULL_POINTER
