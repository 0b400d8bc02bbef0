from __future__ import annotations

import ctypes
import functools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

from exporters.native import native_path
from tests.kernels.capi import BAD_BITS, NULL_POINTER, OK, Layer, random_layer


@functools.cache
def library() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(native_path("kernels_capi").with_name("libvoxpress_prepared_capi.so")))
    pointer, size = ctypes.c_void_p, ctypes.c_size_t
    for name, result, arguments in (
        ("store_create", pointer, [size]),
        ("store_destroy", None, [pointer]),
        ("store_clear", size, [pointer]),
        ("store_get", pointer, [pointer, pointer, ctypes.POINTER(ctypes.c_int32)]),
        ("packed_release", None, [pointer]),
        ("packed_data", pointer, [pointer]),
        ("packed_bytes", size, [pointer]),
    ):
        function = getattr(lib, f"voxpress_{name}")
        function.restype, function.argtypes = result, arguments
    return lib


class Store:
    """A PackedStore that is emptied of what the test took from it, too."""

    def __init__(self, limit_bytes: int = 1 << 30) -> None:
        self.handle = library().voxpress_store_create(limit_bytes)
        self.taken: list[int] = []

    def get(self, layer: Layer, **overrides: int | None) -> tuple[int | None, int]:
        status = ctypes.c_int32(-1)
        call = layer.call(**overrides)
        packed = library().voxpress_store_get(self.handle, ctypes.addressof(call), ctypes.byref(status))
        if packed is not None:
            self.taken.append(packed)
        return packed, status.value

    def release(self) -> None:
        for packed in self.taken:
            library().voxpress_packed_release(packed)
        self.taken.clear()

    def clear(self) -> int:
        return int(library().voxpress_store_clear(self.handle))


@contextmanager
def opened(**settings: int) -> Iterator[Store]:
    store = Store(**settings)
    try:
        yield store
    finally:
        store.release()
        library().voxpress_store_destroy(store.handle)


def content(packed: int) -> bytes:
    return ctypes.string_at(library().voxpress_packed_data(packed), library().voxpress_packed_bytes(packed))


def layer_of(seed: int, **options: Any) -> Layer:
    return random_layer(np.random.default_rng(seed), 4, **{"x": (1, 6, 6, 9), "out_channels": 9, **options})


def test_holds_what_conv2d_pack_makes_and_finds_it_again() -> None:
    layer = layer_of(0)
    with opened() as store:
        packed, status = store.get(layer)
        assert status == OK
        assert packed is not None
        assert content(packed) == layer.pack().tobytes()
        assert store.get(layer.but(in_frames=50, batch=2))[0] == packed
        elsewhere = layer.but(codes=layer.codes.copy(), scale=layer.scale.copy())
        assert store.get(elsewhere)[0] == packed


def test_other_weights_at_the_same_address_are_other_weights() -> None:
    layer, other = layer_of(0), layer_of(1)
    with opened() as store:
        first, _ = store.get(layer)
        for name in ("codes", "palette", "scale", "bias"):
            before = content(store.get(layer)[0] or 0)
            getattr(layer, name)[...] = getattr(other, name)
            packed, status = store.get(layer)
            assert status == OK
            assert packed is not None
            assert content(packed) == layer.pack().tobytes() != before, name
        assert first is not None
        assert content(first) != layer.pack().tobytes()


@pytest.mark.parametrize("word", [0, 1, 8, 9, 19])
def test_any_bit_makes_another_layer(word: int) -> None:
    layer = layer_of(0, x=(1, 6, 6, 36))  # 162 bytes of codes: two rounds of the hash and a rest
    with opened() as store:
        first, _ = store.get(layer)
        for bit in range(64):
            codes = layer.codes.copy().view(np.uint8)
            codes[word * 8 + bit // 8] ^= 1 << bit % 8
            assert store.get(layer.but(codes=codes))[0] != first
            # A hash whose high bits cannot act on low ones would forget the same flip in the next round.
            if word * 8 + 64 + 8 <= codes.nbytes:
                codes[word * 8 + 64 + bit // 8] ^= 1 << bit % 8
                assert store.get(layer.but(codes=codes))[0] != first


def test_the_same_bytes_in_another_shape_are_another_layer() -> None:
    layer = layer_of(0, kernel=(1, 2), padding=(0, 0))
    with opened() as store:
        turned = layer.but(kernel_frames=2, kernel_mel=1)
        assert store.get(layer)[0] != store.get(turned)[0]
        assert store.get(layer_of(0))[0] != store.get(layer_of(0).but(stride_mel=2))[0]


def test_what_is_refused_says_why() -> None:
    with opened() as store:
        assert store.get(layer_of(0), bits=9) == (None, BAD_BITS)
        assert store.get(layer_of(0), codes=None) == (None, NULL_POINTER)
        assert store.clear() == 0


def test_what_does_not_fit_is_not_packed_and_throws_nothing_out() -> None:
    layers = [layer_of(seed) for seed in range(4)]
    size = layers[0].pack().nbytes
    with opened(limit_bytes=3 * size) as store:
        for _ in range(20):
            assert [store.get(layer)[0] is not None for layer in layers] == [True, True, True, False]
            store.release()
        assert store.get(layers[3]) == (None, OK)
        assert store.clear() == 3 * size


def test_layers_of_a_model_that_is_gone_give_way() -> None:
    old, new = [layer_of(seed) for seed in range(3)], [layer_of(seed) for seed in range(10, 13)]
    size = old[0].pack().nbytes
    with opened(limit_bytes=3 * size) as store:
        for layer in old * 2:
            store.get(layer)
        rounds = [[store.get(layer)[0] is not None for layer in new] for _ in range(6)]
        assert rounds[0] == [False] * 3
        assert rounds[-1] == [True] * 3
        assert store.clear() == 3 * size


def test_forgotten_weights_live_as_long_as_somebody_holds_them() -> None:
    layer = layer_of(0)
    with opened() as store:
        packed, _ = store.get(layer)
        assert packed is not None
        assert store.clear() == layer.pack().nbytes
        assert content(packed) == layer.pack().tobytes()
        again, _ = store.get(layer)
        assert again is not None
        assert content(again) == content(packed)


def test_threads_share_one_copy() -> None:
    layers = [layer_of(seed, x=(1, 6, 6, 32), out_channels=64) for seed in range(8)]
    with opened() as store, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda turn: [store.get(layer)[0] for layer in layers], range(16)))
        assert all(handles == found[0] for handles in found)
        assert len(set(found[0])) == len(layers)
        assert store.clear() == sum(layer.pack().nbytes for layer in layers)
