from __future__ import annotations

import numpy as np
import pytest

from pipeline.artifact.bitpack import pack_codes
from tests.kernels.capi import (
    BAD_BITS,
    BAD_BUFFER_SIZE,
    BAD_SHAPE,
    NULL_POINTER,
    OK,
    Bytes,
    address,
    guarded,
    library,
    misaligned,
)


def _unpack(packed: Bytes, bits: int, first: int, count: int) -> tuple[int, Bytes]:
    with guarded(np.full(count, 0xEE, np.uint8)) as out:
        status = library().voxpress_unpack(address(packed), packed.nbytes, bits, first, count, address(out))
        return status, out.copy()


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("total", [1, 7, 8, 9, 63, 64, 65, 203])
def test_any_range_of_codes_comes_back_and_nothing_behind_the_buffer_is_read(bits: int, total: int) -> None:
    rng = np.random.default_rng(bits * 1000 + total)
    codes = rng.integers(0, 1 << bits, total).astype(np.uint8)
    with guarded(pack_codes(codes, bits)) as packed:
        for first in {0, 1, 3, total // 2, total - 1}:
            for count in {1, 8, 17, total - first}:
                if not 0 <= first <= first + count <= total:
                    continue
                status, got = _unpack(packed, bits, first, count)
                assert status == OK
                np.testing.assert_array_equal(got, codes[first : first + count])


@pytest.mark.parametrize("by", range(1, 8))
def test_packed_codes_need_no_alignment(by: int) -> None:
    codes = np.random.default_rng(by).integers(0, 8, 500).astype(np.uint8)
    status, got = _unpack(misaligned(pack_codes(codes, 3), by), 3, 2, 498)
    assert status == OK
    np.testing.assert_array_equal(got, codes[2:])


@pytest.mark.parametrize(
    ("bits", "first", "count", "expected"),
    [
        (0, 0, 1, BAD_BITS),
        (9, 0, 1, BAD_BITS),
        (-1, 0, 1, BAD_BITS),
        (32, 0, 1, BAD_BITS),
        (4, -1, 1, BAD_SHAPE),
        (4, 0, -1, BAD_SHAPE),
        (4, (1 << 63) - 1, 1, BAD_SHAPE),
        (4, 0, (1 << 63) - 1, BAD_SHAPE),
        (4, 20, 1, BAD_BUFFER_SIZE),
        (4, 0, 21, BAD_BUFFER_SIZE),
        (4, 1 << 39, 1 << 39, BAD_BUFFER_SIZE),
        (4, 0, 0, OK),
    ],
)
def test_hostile_arguments_are_refused(bits: int, first: int, count: int, expected: int) -> None:
    packed, out = np.zeros(10, np.uint8), np.zeros(64, np.uint8)
    assert library().voxpress_unpack(address(packed), 10, bits, first, count, address(out)) == expected


def test_missing_buffers_are_refused() -> None:
    data = np.zeros(10, np.uint8)
    assert library().voxpress_unpack(None, 10, 4, 0, 1, address(data)) == NULL_POINTER
    assert library().voxpress_unpack(address(data), 10, 4, 0, 1, None) == NULL_POINTER
