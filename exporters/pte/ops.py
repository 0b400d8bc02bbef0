"""The two VoxPress ops as torch knows them: schemas, shapes for tracing, and an eager version made of torch's own ops.

Importing this module registers `voxpress::conv2d` and `voxpress::stats_pool` with their `.out` variants. Pairs are
(frames, mel); x is [N, frames, mel, C] contiguous; the formulas are those of `pipeline.artifact.schema`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from exporters.manifest import CONV2D_VERSION, STATS_POOL_VERSION
from pipeline.artifact.decode import stats_pool as reference_stats_pool
from pipeline.artifact.schema import conv_out_size
from pipeline.errors import InputError

# What conv2d and conv2d_u8 begin with.
LAYER_ARGUMENTS = (
    "Tensor x, Tensor codes, Tensor? palette, Tensor scale, Tensor bias, Tensor? residual, int[] kernel, "
    "int[] stride, int[] padding, int groups, int bits, bool relu"
)
_CONV2D_ARGUMENTS = f"{LAYER_ARGUMENTS}, int version"
_POOL_ARGUMENTS = "Tensor x, int version"

# torch.library has no types; what it is given here is checked by the tests.
_library: Any = torch.library.Library("voxpress", "DEF")  # type: ignore[no-untyped-call]


def unpack_codes(codes: Tensor, bits: int, count: int) -> Tensor:
    """The `count` codes in a little-endian bit stream: uint8 [ceil(count * bits / 8)] -> int64 [count]."""
    planes = (codes[:, None] >> torch.arange(8, dtype=torch.uint8)) & 1
    planes = planes.reshape(-1)[: count * bits].reshape(count, bits)
    return (planes << torch.arange(bits, dtype=torch.uint8)).sum(dim=1, dtype=torch.int64)


def _weight(codes: Tensor, palette: Tensor | None, bits: int, shape: tuple[int, int, int, int]) -> Tensor:
    count = shape[0] * shape[1] * shape[2] * shape[3]
    expected = (count * bits + 7) // 8
    if codes.dtype != torch.uint8 or codes.shape != (expected,):
        found = f"{codes.dtype} {list(codes.shape)}"
        raise InputError("voxpress::conv2d codes", expected=f"torch.uint8 [{expected}]", found=found)
    if bits == 32 and palette is None:
        return codes.view(torch.float32).reshape(shape)
    if not 1 <= bits <= 8 or palette is None or palette.shape != (1 << bits,):
        found = "none" if palette is None else str(list(palette.shape))
        raise InputError(f"voxpress::conv2d palette of {bits} bits", expected="2^bits values", found=found)
    return palette[unpack_codes(codes, bits, count)].reshape(shape)


def _conv2d(
    x: Tensor,
    codes: Tensor,
    palette: Tensor | None,
    scale: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    groups: int,
    bits: int,
    relu: bool,
    version: int,
) -> Tensor:
    check_version("voxpress::conv2d", version, CONV2D_VERSION)
    weight = _weight(codes, palette, bits, (scale.numel(), kernel[0], kernel[1], x.shape[3] // groups))
    y = functional.conv2d(
        x.permute(0, 3, 1, 2), weight.permute(0, 3, 1, 2), None, tuple(stride), tuple(padding), 1, groups
    )
    y = y.permute(0, 2, 3, 1) * scale + bias
    if residual is not None:
        y = y + residual
    return (y.relu() if relu else y).contiguous()


def _conv2d_out(*arguments: Any, out: Tensor) -> Tensor:
    y = _conv2d(*arguments)
    return out.resize_(y.shape).copy_(y)


def _conv2d_fake(
    x: Tensor, codes: Tensor, palette: Tensor | None, scale: Tensor, bias: Tensor, residual: Tensor | None, *rest: Any
) -> Tensor:
    kernel, stride, padding, *_ = rest
    return x.new_empty(layer_output_shape(x, scale, kernel, stride, padding))


def layer_output_shape(
    x: Tensor, scale: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> tuple[Any, ...]:
    """[N, frames, mel, C] of a layer's output.

    The sizes stay symbolic: plain arithmetic on them, no int() and no comparison that would fix the time axis.
    """
    frames, mel = (conv_out_size(x.shape[1 + i], kernel[i], stride[i], padding[i]) for i in range(2))
    return x.shape[0], frames, mel, scale.shape[0]


def _stats_pool(x: Tensor, version: int) -> Tensor:
    check_version("voxpress::stats_pool", version, STATS_POOL_VERSION)
    return reference_stats_pool(x)


def _stats_pool_out(x: Tensor, version: int, *, out: Tensor) -> Tensor:
    y = _stats_pool(x, version)
    return out.resize_(y.shape).copy_(y)


def _stats_pool_fake(x: Tensor, version: int) -> Tensor:
    return x.new_empty((x.shape[0], 1, 1, 2 * x.shape[2] * x.shape[3]))


def check_version(op: str, version: int, known: int) -> None:
    """Raise InputError unless an op's version is the known one."""
    if version != known:
        raise InputError(op, expected=f"op version {known}", found=str(version))


def _register() -> None:
    _library.define(f"conv2d({_CONV2D_ARGUMENTS}) -> Tensor")
    _library.define(f"conv2d.out({_CONV2D_ARGUMENTS}, *, Tensor(a!) out) -> Tensor(a!)")
    _library.define(f"stats_pool({_POOL_ARGUMENTS}) -> Tensor")
    _library.define(f"stats_pool.out({_POOL_ARGUMENTS}, *, Tensor(a!) out) -> Tensor(a!)")
    _library.impl("conv2d", _conv2d, "CPU")
    _library.impl("conv2d.out", _conv2d_out, "CPU")
    _library.impl("stats_pool", _stats_pool, "CPU")
    _library.impl("stats_pool.out", _stats_pool_out, "CPU")
    torch.library.register_fake("voxpress::conv2d", _conv2d_fake, lib=_library)
    torch.library.register_fake("voxpress::stats_pool", _stats_pool_fake, lib=_library)


_register()
