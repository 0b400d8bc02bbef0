from __future__ import annotations

import ctypes
import functools

import numpy as np
import pytest

from exporters.native import native_path

BLOCK = 128  # bytes that are taken in at a time
LENGTHS = (0, 1, 7, 16, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 3 * BLOCK + 40)


@functools.cache
def library() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(native_path("kernels_capi").with_name("libvoxpress_prepared_capi.so")))
    lib.voxpress_hash.restype = ctypes.c_int32
    lib.voxpress_hash.argtypes = [ctypes.c_int32, ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_uint64)]
    return lib


@pytest.fixture(params=["portable", "aes"])
def way(request: pytest.FixtureRequest) -> int:
    aes = int(request.param == "aes")
    if not library().voxpress_hash(aes, None, 0, (ctypes.c_uint64 * 2)()):
        pytest.skip("the processor has no AES")
    return aes


def hash_of(way: int, data: bytes) -> tuple[int, int]:
    value = (ctypes.c_uint64 * 2)()
    buffer = ctypes.create_string_buffer(data, len(data))
    assert library().voxpress_hash(way, buffer, len(data), value)
    return value[0], value[1]


@pytest.mark.parametrize("length", LENGTHS)
def test_every_bit_counts(way: int, length: int) -> None:
    data = np.random.default_rng(length).bytes(length)
    whole = hash_of(way, data)
    assert hash_of(way, data) == whole
    others = set()
    for bit in range(8 * length):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        others.add(hash_of(way, bytes(changed)))
        # The same flip a block later, which must not undo the first.
        if bit // 8 + BLOCK < length:
            changed[bit // 8 + BLOCK] ^= 1 << bit % 8
            others.add(hash_of(way, bytes(changed)))
    assert len(others) == 8 * length + 8 * max(0, length - BLOCK)
    assert whole not in others
    assert len({low for low, _ in others}) == len({high for _, high in others}) == len(others)


def test_zeros_behind_count(way: int) -> None:
    assert len({hash_of(way, bytes(length)) for length in range(3 * BLOCK)}) == 3 * BLOCK


def test_words_that_change_places_make_another_hash(way: int) -> None:
    words = [np.random.default_rng(j).bytes(8) for j in range(BLOCK // 4)]
    hashes = {hash_of(way, b"".join(words))}
    for j in range(1, len(words)):
        swapped = [words[j], *words[1:j], words[0], *words[j + 1 :]]
        hashes.add(hash_of(way, b"".join(swapped)))
    assert len(hashes) == len(words)
