"""The kernel core through ctypes, as the tests of this folder call it."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from exporters.native import native_path
from pipeline.artifact.bitpack import pack_codes

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

OK, BAD_BITS, BAD_SHAPE, BAD_BUFFER_SIZE, NULL_POINTER, BAD_VERSION, BAD_PACKED, BAD_ISA = range(8)

SHAPE_FIELDS = [
    "batch",
    "in_frames",
    "in_mel",
    "in_channels",
    "out_channels",
    "kernel_frames",
    "kernel_mel",
    "stride_frames",
    "stride_mel",
    "pad_frames",
    "pad_mel",
    "groups",
]


class _Conv2d(ctypes.Structure):
    _fields_ = (
        *[(name, ctypes.c_int64) for name in SHAPE_FIELDS],
        ("bits", ctypes.c_int32),
        ("relu", ctypes.c_bool),
        *[
            (name, kind)
            for tensor in ("codes", "palette", "scale", "bias")
            for name, kind in ((tensor, ctypes.c_void_p), (f"{tensor}_bytes", ctypes.c_size_t))
        ],
        ("input", ctypes.c_void_p),
        ("residual", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p),
        ("scratch_bytes", ctypes.c_size_t),
        ("part", ctypes.c_int32),
        ("parts", ctypes.c_int32),
    )


class StatsPoolShape(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in ("batch", "frames", "mel", "channels")]


@cache
def library() -> ctypes.CDLL:
    lib = ctypes.CDLL(str(native_path("kernels_capi")))
    call = ctypes.POINTER(_Conv2d)
    lib.voxpress_unpack.argtypes = [
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int32,
        ctypes.c_int64,
        ctypes.c_int64,
        ctypes.c_void_p,
    ]
    lib.voxpress_conv2d_check.argtypes = [call]
    lib.voxpress_conv2d_scratch_bytes.argtypes = [call]
    lib.voxpress_conv2d_scratch_bytes.restype = ctypes.c_size_t
    lib.voxpress_conv2d_run.argtypes = [call]
    for name in ("voxpress_conv2d_packed_bytes", "voxpress_conv2d_packed_scratch_bytes"):
        getattr(lib, name).argtypes = [call]
        getattr(lib, name).restype = ctypes.c_size_t
    for name in ("voxpress_conv2d_pack", "voxpress_conv2d_run_packed"):
        getattr(lib, name).argtypes = [call, ctypes.c_void_p, ctypes.c_size_t]
    lib.voxpress_stats_pool_run.argtypes = [ctypes.POINTER(StatsPoolShape), ctypes.c_void_p, ctypes.c_void_p]
    for name in ("voxpress_conv2d_kernel_name", "voxpress_conv2d_packed_kernel_name"):
        getattr(lib, name).argtypes = [call]
        getattr(lib, name).restype = ctypes.c_char_p
    for name in ("voxpress_selected_isa", "voxpress_stats_pool_kernel_name", "voxpress_status_text"):
        getattr(lib, name).restype = ctypes.c_char_p
    lib.voxpress_select_isa.argtypes = [ctypes.c_char_p]
    lib.voxpress_status_text.argtypes = [ctypes.c_int32]
    lib.voxpress_kernels_used.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
    lib.voxpress_kernels_used.restype = ctypes.c_size_t
    return lib


def address(array: npt.NDArray[np.generic] | None) -> int | None:
    return None if array is None else array.ctypes.data


@contextmanager
def guarded(data: npt.NDArray[np.generic], *, offset: int = 0) -> Iterator[npt.NDArray[np.generic]]:
    """A copy of `data` that ends `offset` bytes before a page that must not be touched: one byte further is a crash."""
    libc = ctypes.CDLL(None, use_errno=True)
    page = mmap.PAGESIZE
    length = -(-(data.nbytes + offset) // page) * page
    mapping = mmap.mmap(-1, length + page)
    start = np.frombuffer(mapping, np.uint8)
    base = start.ctypes.data
    if libc.mprotect(ctypes.c_void_p(base + length), ctypes.c_size_t(page), 0) != 0:
        raise OSError(ctypes.get_errno(), "mprotect")
    begin = length - data.nbytes - offset
    copy = start[begin : begin + data.nbytes].view(data.dtype).reshape(data.shape)
    copy[...] = data
    try:
        yield copy
    finally:
        libc.mprotect(ctypes.c_void_p(base + length), ctypes.c_size_t(page), 3)


def misaligned(data: npt.NDArray[np.generic], by: int) -> npt.NDArray[np.uint8]:
    """The bytes of `data` at an address that is `by` bytes past a 64-byte boundary."""
    room = np.zeros(data.nbytes + 128, np.uint8)
    start = -room.ctypes.data % 64 + by
    room[start : start + data.nbytes] = np.ascontiguousarray(data).view(np.uint8).reshape(-1)
    return room[start : start + data.nbytes]


def uninitialised(size: int) -> Bytes:
    """64-byte aligned bytes of NaN patterns: a kernel must not rely on what memory held before."""
    room = np.full(size + 64, 0xFF, np.uint8)
    start = -room.ctypes.data % 64
    return room[start : start + size]


@contextmanager
def isa(name: str) -> Iterator[None]:
    """The kernels of one instruction set, then again those before."""
    before = library().voxpress_selected_isa()
    status = library().voxpress_select_isa(name.encode())
    assert status == OK, library().voxpress_status_text(status)
    try:
        yield
    finally:
        library().voxpress_select_isa(before)


ALL_ISAS = ("portable", "neon", "neondot", "avx2", "avx512", "avx512vnni")


@cache
def isas() -> tuple[str, ...]:
    """The instruction sets that this machine has, portable first."""
    before = library().voxpress_selected_isa()
    found = [name for name in ALL_ISAS if library().voxpress_select_isa(name.encode()) == OK]
    library().voxpress_select_isa(before)
    return tuple(found)


def float_isa(name: str) -> str:
    """The instruction set of the kernels of mode exact where `name` is selected: some have integer ones only."""
    return {"avx512vnni": "avx512", "neondot": "neon"}.get(name, name)


NO_WEIGHTS: dict[str, Any] = {"codes": None, "palette": None, "scale": None, "bias": None}


@dataclass(frozen=True)
class Layer:
    """One conv2d call with its buffers, everything replaceable, so that a test can break one thing at a time."""

    shape: dict[str, int]
    bits: int
    relu: bool
    codes: npt.NDArray[np.generic]
    palette: npt.NDArray[np.generic] | None
    scale: npt.NDArray[np.generic]
    bias: npt.NDArray[np.generic]
    x: Floats
    residual: Floats | None = None
    dense: Floats = field(default_factory=lambda: np.zeros(0, np.float32))  # [O, kt, kf, I / groups]

    def but(self, **changes: object) -> Layer:
        shape = {**self.shape, **{key: changes.pop(key) for key in list(changes) if key in SHAPE_FIELDS}}
        return replace(self, shape=shape, **changes)  # type: ignore[arg-type]

    def out_shape(self) -> tuple[int, int, int, int]:
        s = self.shape
        return (
            s["batch"],
            (s["in_frames"] + 2 * s["pad_frames"] - s["kernel_frames"]) // s["stride_frames"] + 1,
            (s["in_mel"] + 2 * s["pad_mel"] - s["kernel_mel"]) // s["stride_mel"] + 1,
            s["out_channels"],
        )

    def call(self, output: Floats | None = None, scratch: Bytes | None = None, /, **overrides: int | None) -> _Conv2d:
        values: dict[str, object] = {**self.shape, "bits": self.bits, "relu": self.relu}
        for name in ("codes", "palette", "scale", "bias"):
            array = getattr(self, name)
            values[name], values[f"{name}_bytes"] = address(array), 0 if array is None else array.nbytes
        values |= {"input": address(self.x), "residual": address(self.residual), "output": address(output)}
        values |= {"scratch": address(scratch), "scratch_bytes": 0 if scratch is None else scratch.nbytes}
        return _Conv2d(**{**values, "parts": 1, **overrides})

    def check(self, **overrides: int | None) -> int:
        return int(library().voxpress_conv2d_check(self.call(**overrides)))

    def scratch(self) -> Bytes:
        return uninitialised(library().voxpress_conv2d_scratch_bytes(self.call()))

    def packed_scratch(self) -> Bytes:
        return uninitialised(library().voxpress_conv2d_packed_scratch_bytes(self.call()))

    def pack(self) -> Bytes:
        packed = uninitialised(library().voxpress_conv2d_packed_bytes(self.call()))
        status = library().voxpress_conv2d_pack(self.call(), packed.ctypes.data, packed.nbytes)
        assert status == OK, library().voxpress_status_text(status)
        return packed

    def run(self) -> Floats:
        """From the codes."""
        output = np.full(self.out_shape(), np.nan, np.float32)
        scratch = self.scratch()
        status = library().voxpress_conv2d_run(self.call(output, scratch))
        assert status == OK, library().voxpress_status_text(status)
        return output

    def run_packed(self, packed: Bytes | None = None) -> Floats:
        """From packed weights, without the weights of the file."""
        packed = self.pack() if packed is None else packed
        output = np.full(self.out_shape(), np.nan, np.float32)
        scratch = self.packed_scratch()
        status = self.but(**NO_WEIGHTS).run_packed_into(output, packed, scratch)
        assert status == OK, library().voxpress_status_text(status)
        return output

    def run_packed_into(self, output: Floats | None, packed: Bytes, scratch: Bytes | None, /, **overrides: Any) -> int:
        call = self.call(output, scratch, **overrides)
        return int(library().voxpress_conv2d_run_packed(call, packed.ctypes.data, packed.nbytes))

    def kernel_name(self, *, packed: bool) -> str:
        name = library().voxpress_conv2d_packed_kernel_name if packed else library().voxpress_conv2d_kernel_name
        return str(name(self.call()).decode())

    def expected(self) -> npt.NDArray[np.float64]:
        """The formula of conv2d.h in float64, tap by tap."""
        s = self.shape
        _, frames, mel, _ = out = self.out_shape()
        groups, per_group = s["groups"], s["in_channels"] // s["groups"]
        pads = ((0, 0), (s["pad_frames"],) * 2, (s["pad_mel"],) * 2, (0, 0))
        x = np.pad(self.x.astype(np.float64), pads)
        weight = self.dense.astype(np.float64).reshape(groups, -1, *self.dense.shape[1:])
        y = np.zeros((*out[:3], groups, s["out_channels"] // groups))
        for dt in range(s["kernel_frames"]):
            for df in range(s["kernel_mel"]):
                st, sf = s["stride_frames"], s["stride_mel"]
                part = x[:, dt : dt + (frames - 1) * st + 1 : st, df : df + (mel - 1) * sf + 1 : sf]
                part = part.reshape(*out[:3], groups, per_group)
                y += np.einsum("ntfgi,goi->ntfgo", part, weight[:, :, dt, df])
        y = y.reshape(out) * self.scale.view(np.float32) + self.bias.view(np.float32)
        if self.residual is not None:
            y = y + self.residual
        return np.maximum(y, 0) if self.relu else y


def random_layer(
    rng: np.random.Generator,
    bits: int,
    *,
    x: tuple[int, int, int, int] = (1, 7, 6, 5),
    out_channels: int = 9,
    kernel: tuple[int, int] = (3, 3),
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (1, 1),
    groups: int = 1,
    relu: bool = False,
    residual: bool = False,
) -> Layer:
    """A layer with random weights; x is [batch, frames, mel, channels]."""
    shape = dict(
        zip(SHAPE_FIELDS, (*x, out_channels, *kernel, *stride, *padding, groups), strict=True),
    )
    weight_shape = (out_channels, *kernel, x[3] // groups)
    count = int(np.prod(weight_shape))
    if bits == 32:
        codes, palette = rng.normal(size=count).astype(np.float32), None
        dense = codes
    else:
        indices = rng.integers(0, 1 << bits, count).astype(np.uint8)
        codes, palette = pack_codes(indices, bits), rng.normal(size=1 << bits).astype(np.float32)
        dense = palette[indices]
    layer = Layer(
        shape,
        bits,
        relu,
        codes,
        palette,
        scale=rng.uniform(0.5, 1.5, out_channels).astype(np.float32),
        bias=rng.normal(size=out_channels).astype(np.float32),
        x=rng.normal(size=x).astype(np.float32),
        dense=dense.reshape(weight_shape),
    )
    if not residual:
        return layer
    return replace(layer, residual=rng.normal(size=layer.out_shape()).astype(np.float32))


def assert_close(layer: Layer, got: Floats) -> None:
    """Tolerance: float epsilon times the length of the sum times its terms' size."""
    terms = layer.dense[0].size
    tolerance = np.finfo(np.float32).eps * (terms + 4) * float(np.abs(layer.dense).max() * np.abs(layer.x).max() + 4)
    np.testing.assert_allclose(got, layer.expected(), rtol=0, atol=tolerance)
