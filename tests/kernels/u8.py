"""The conv2d_u8 family through ctypes, as the tests of this folder call it."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.kernels import capi
from tests.kernels.capi import OK, Bytes, Floats, Layer, address, library

AUTO, DIRECT, WINOGRAD2, WINOGRAD4 = range(4)
F32, U8 = range(2)
BAD_QUANTIZATION, BAD_ALGORITHM, BAD_SHARE = 8, 9, 10


class _Quantization(ctypes.Structure):
    _fields_ = (("scale", ctypes.c_float), ("zero", ctypes.c_int32))


class _Shape(ctypes.Structure):
    _fields_ = (
        *[(name, ctypes.c_int64) for name in capi.SHAPE_FIELDS],
        ("bits", ctypes.c_int32),
        ("relu", ctypes.c_bool),
        *[(name, _Quantization) for name in ("in_q", "res_q", "out_q")],
        *[(name, ctypes.c_uint8) for name in ("input_element", "residual_element", "output_element", "algorithm")],
    )


class _Call(ctypes.Structure):
    _fields_ = (
        ("shape", _Shape),
        *[
            (name, kind)
            for tensor in ("codes", "palette", "scale", "bias")
            for name, kind in ((tensor, ctypes.c_void_p), (f"{tensor}_bytes", ctypes.c_size_t))
        ],
        *[(name, ctypes.c_void_p) for name in ("input", "residual", "output", "scratch")],
        ("scratch_bytes", ctypes.c_size_t),
        ("part", ctypes.c_int32),
        ("parts", ctypes.c_int32),
    )


def _declare() -> ctypes.CDLL:
    lib = library()
    call = ctypes.POINTER(_Call)
    for name in ("scratch_bytes", "packed_bytes", "packed_scratch_bytes"):
        getattr(lib, f"voxpress_conv2d_u8_{name}").argtypes = [call]
        getattr(lib, f"voxpress_conv2d_u8_{name}").restype = ctypes.c_size_t
    for name in ("check", "run"):
        getattr(lib, f"voxpress_conv2d_u8_{name}").argtypes = [call]
    for name in ("pack", "run_packed"):
        getattr(lib, f"voxpress_conv2d_u8_{name}").argtypes = [call, ctypes.c_void_p, ctypes.c_size_t]
    lib.voxpress_conv2d_u8_kernel_name.argtypes = [call]
    lib.voxpress_conv2d_u8_kernel_name.restype = ctypes.c_char_p
    return lib


@dataclass(frozen=True)
class Quantized:
    """A tensor as one call takes it: floats, or bytes with scale and zero point."""

    data: npt.NDArray[Any]
    scale: float = 1.0
    zero: int = 0

    @classmethod
    def of(cls, real: npt.NDArray[np.floating], zero: int) -> Quantized:
        ends = [(float(real.max()), 255 - zero), (-float(real.min()), zero)]
        scale = float(np.float32(max([end / steps for end, steps in ends if steps > 0 and end > 0], default=1.0)))
        return cls(np.clip(np.rint(real / scale) + zero, 0, 255).astype(np.uint8), scale, zero)

    @property
    def element(self) -> int:
        return U8 if self.data.dtype == np.uint8 else F32

    @property
    def real(self) -> npt.NDArray[np.float64]:
        if self.element == F32:
            return self.data.astype(np.float64)
        return self.scale * (self.data.astype(np.float64) - self.zero)

    def quantization(self) -> _Quantization:
        return _Quantization(self.scale, self.zero)


@dataclass(frozen=True)
class LayerU8:
    """One conv2d_u8 call with its buffers; geometry and weights are those of `layer`, whose x is not used."""

    layer: Layer
    x: Quantized
    out: Quantized  # its data is the output's buffer
    residual: Quantized | None = None
    algorithm: int = AUTO

    def but(self, **changes: Any) -> LayerU8:
        own = {key: changes.pop(key) for key in list(changes) if key in ("x", "out", "residual", "algorithm")}
        return replace(self, layer=self.layer.but(**changes), **own)

    def call(self, scratch: Bytes | None = None, /, **overrides: Any) -> _Call:
        call = _Call(parts=1)
        for name in capi.SHAPE_FIELDS:
            setattr(call.shape, name, self.layer.shape[name])
        call.shape.bits, call.shape.relu = self.layer.bits, self.layer.relu
        residual = self.residual or Quantized(np.zeros(0, np.uint8))
        call.shape.in_q, call.shape.res_q = self.x.quantization(), residual.quantization()
        call.shape.out_q, call.shape.algorithm = self.out.quantization(), self.algorithm
        call.shape.input_element, call.shape.residual_element = self.x.element, residual.element
        call.shape.output_element = self.out.element
        for name in ("codes", "palette", "scale", "bias"):
            array = getattr(self.layer, name)
            setattr(call, name, address(array))
            setattr(call, f"{name}_bytes", 0 if array is None else array.nbytes)
        call.input, call.output = address(self.x.data), address(self.out.data)
        call.residual = None if self.residual is None else address(self.residual.data)
        call.scratch, call.scratch_bytes = address(scratch), 0 if scratch is None else scratch.nbytes
        for name, value in overrides.items():
            setattr(call.shape if hasattr(call.shape, name) else call, name, value)
        return call

    def check(self, **overrides: Any) -> int:
        return int(_declare().voxpress_conv2d_u8_check(self.call(**overrides)))

    def scratch(self) -> Bytes:
        return capi.uninitialised(_declare().voxpress_conv2d_u8_scratch_bytes(self.call()))

    def packed_scratch(self) -> Bytes:
        return capi.uninitialised(_declare().voxpress_conv2d_u8_packed_scratch_bytes(self.call()))

    def pack(self, parts: int = 1) -> Bytes:
        packed = capi.uninitialised(_declare().voxpress_conv2d_u8_packed_bytes(self.call()))
        for part in reversed(range(parts)):
            assert self.pack_into(packed, part=part, parts=parts) == OK
        return packed

    def pack_into(self, packed: Bytes, **overrides: Any) -> int:
        return int(_declare().voxpress_conv2d_u8_pack(self.call(**overrides), packed.ctypes.data, packed.nbytes))

    def _fresh_output(self) -> None:
        self.out.data.reshape(-1).view(np.uint8)[...] = 0xA5

    def run(self) -> npt.NDArray[Any]:
        """From the codes."""
        self._fresh_output()
        scratch = self.scratch()
        status = _declare().voxpress_conv2d_u8_run(self.call(scratch))
        assert status == OK, library().voxpress_status_text(status)
        return self.out.data.copy()

    def run_packed(self, packed: Bytes | None = None, parts: int = 1) -> npt.NDArray[Any]:
        """From packed weights, without the weights of the file, its parts one after the other."""
        packed = self.pack() if packed is None else packed
        self._fresh_output()
        without, scratch = self.but(**capi.NO_WEIGHTS), self.packed_scratch()
        for part in reversed(range(parts)):
            status = without.run_packed_into(packed, scratch, part=part, parts=parts)
            assert status == OK, library().voxpress_status_text(status)
        return self.out.data.copy()

    def run_packed_into(self, packed: Bytes, scratch: Bytes | None, /, **overrides: Any) -> int:
        call = self.call(scratch, **overrides)
        return int(_declare().voxpress_conv2d_u8_run_packed(call, packed.ctypes.data, packed.nbytes))

    def kernel_name(self) -> str:
        return str(_declare().voxpress_conv2d_u8_kernel_name(self.call()).decode())

    def expected(self) -> npt.NDArray[np.float64]:
        """y of the formula of conv2d_u8.h in float64, with the weights rounded as it says."""
        residual = None if self.residual is None else self.residual.real
        layer = replace(self.layer, x=self.x.real, residual=residual, dense=self._rounded())  # type: ignore[arg-type]
        return layer.expected()

    def _rounded(self) -> npt.NDArray[np.float64]:
        dense = self.layer.dense.astype(np.float64)
        if self.layer.bits == 1:
            return dense
        size = np.abs(dense) if self.layer.palette is None else np.abs(self.layer.palette.view(np.float32))
        axes = (1, 2, 3) if self.layer.palette is None else None
        step = size.max(axis=axes, keepdims=self.layer.palette is None) / 127
        return np.rint(dense / step) * step


def random_layer_u8(
    rng: np.random.Generator,
    bits: int,
    *,
    algorithm: int = AUTO,
    zeros: tuple[int, int, int] = (0, 0, 0),
    elements: tuple[int, int, int] = (U8, U8, U8),
    **options: Any,
) -> LayerU8:
    """A random layer; zero points and elements are those of input, residual and output."""
    layer = capi.random_layer(rng, bits, **options)
    x = np.abs(layer.x) if zeros[0] == 0 else layer.x
    made = Quantized(x) if elements[0] == F32 else Quantized.of(x, zeros[0])
    residual = None
    if layer.residual is not None:
        real = np.abs(layer.residual) if zeros[1] == 0 else layer.residual
        residual = Quantized(real.astype(np.float32)) if elements[1] == F32 else Quantized.of(real, zeros[1])
    placed = LayerU8(layer, made, Quantized(np.zeros(0, np.float32)), residual, algorithm)
    if elements[2] == F32:
        return replace(placed, out=Quantized(np.zeros(layer.out_shape(), np.float32)))
    out = Quantized.of(placed.expected(), zeros[2])
    return replace(placed, out=replace(out, data=np.zeros(layer.out_shape(), np.uint8)))


__all__ = ["Floats", "LayerU8", "Quantized", "random_layer_u8"]
