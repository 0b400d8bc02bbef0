import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.artifact.bitpack import pack_codes, packed_bytes, unpack_codes
from pipeline.errors import InputError


@given(bits=st.integers(1, 8), count=st.integers(0, 200), seed=st.integers(0, 2**32 - 1))
def test_unpacking_gives_back_what_was_packed(bits: int, count: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, 1 << bits, count).astype(np.uint8)
    packed = pack_codes(codes, bits)
    assert packed.nbytes == packed_bytes(count, bits) == -(-count * bits // 8)
    np.testing.assert_array_equal(unpack_codes(packed, bits, count), codes)


def test_the_stream_is_little_endian() -> None:
    # 3-bit codes 1, 2, 3: bits 001 010 011 from the lowest up -> 0b011_010_001
    packed = pack_codes(np.array([1, 2, 3], np.uint8), 3)
    assert packed.tolist() == [0b11010001, 0b0]
    assert pack_codes(np.array([0xA, 0x5], np.uint8), 4).tolist() == [0x5A]


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_other_widths_are_refused(bits: int) -> None:
    with pytest.raises(InputError, match="a width from 1 to 8"):
        pack_codes(np.zeros(3, np.uint8), bits)
    with pytest.raises(InputError, match="a width from 1 to 8"):
        unpack_codes(np.zeros(3, np.uint8), bits, 3)


def test_a_code_that_does_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="values below 4 for 2 bits, found 4"):
        pack_codes(np.array([0, 4], np.uint8), 2)


def test_a_stream_of_another_length_is_refused() -> None:
    with pytest.raises(InputError, match=r"uint8 \[2\] for 3 codes of 4 bits"):
        unpack_codes(np.zeros(3, np.uint8), 4, 3)
