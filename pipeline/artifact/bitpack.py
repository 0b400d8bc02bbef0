"""Packed codes: weight k sits in bits [k * bits, (k + 1) * bits) of a little-endian bit stream."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError

Codes = npt.NDArray[np.uint8]


def packed_bytes(count: int, bits: int) -> int:
    """Bytes that `count` codes of `bits` bits take: ceil(count * bits / 8)."""
    return (count * bits + 7) // 8


def pack_codes(codes: Codes, bits: int) -> Codes:
    """Packed bit stream of `codes` (any shape, values in [0, 2^bits)); unused high bits of the last byte are zero.

    Raises InputError for a width outside 1..8 or a code that does not fit.
    """
    _check_bits(bits)
    flat = np.ascontiguousarray(codes, dtype=np.uint8).reshape(-1)
    if flat.size and int(flat.max()) >= 1 << bits:
        raise InputError("codes", expected=f"values below {1 << bits} for {bits} bits", found=str(int(flat.max())))
    # unpackbits gives the 8 bits of every code, lowest first; the first `bits` of them are the code.
    planes = np.unpackbits(flat[:, None], axis=1, count=bits, bitorder="little")
    return np.packbits(planes.reshape(-1), bitorder="little")


def unpack_codes(packed: Codes, bits: int, count: int) -> Codes:
    """The `count` codes in `packed`, uint8 [count]. Inverse of `pack_codes`.

    Raises InputError if `packed` has not exactly the bytes that `count` codes take.
    """
    _check_bits(bits)
    if packed.dtype != np.uint8 or packed.shape != (packed_bytes(count, bits),):
        raise InputError(
            "packed codes",
            expected=f"uint8 [{packed_bytes(count, bits)}] for {count} codes of {bits} bits",
            found=f"{packed.dtype} {list(packed.shape)}",
        )
    planes = np.unpackbits(packed, count=count * bits, bitorder="little").reshape(count, bits)
    return np.packbits(planes, axis=1, bitorder="little")[:, 0] if count else np.zeros(0, np.uint8)


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise InputError("bits", expected="a width from 1 to 8", found=str(bits))
