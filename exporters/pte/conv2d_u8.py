"""`voxpress::conv2d_u8`, the convolution of mode `fast`, as torch knows it.

Importing this module registers the op with its `.out` variant. x, residual and output are fp32 or u8 [N, frames, mel,
C] contiguous; real(q) = scale * (q - zero) of a u8 tensor, real(x) = x of an fp32 one:

    y[c] = scale[c] * conv(real(x), palette[codes]) + bias[c] + real(residual),  then ReLU
    out  = y (fp32), or clamp(round_half_even(y / out_scale) + out_zero, 0, 255) (u8)

The eager version computes that in fp32. The kernels round palettes and transformed activations to int8 as well, so that
they agree with it to the error of such a rounding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from exporters.manifest import CONV2D_U8_VERSION, CONV2D_VERSION
from exporters.pte.ops import LAYER_ARGUMENTS, check_version, layer_output_shape

_ARGUMENTS = (
    f"{LAYER_ARGUMENTS}, float in_scale, int in_zero, float residual_scale, int residual_zero, bool out_u8, "
    "float out_scale, int out_zero, int algorithm, int version"
)

# torch.library has no types; what it is given here is checked by the tests.
_library: Any = torch.library.Library("voxpress", "FRAGMENT")  # type: ignore[no-untyped-call]


def _real(x: Tensor, scale: float, zero: int) -> Tensor:
    return (x.float() - zero) * scale if x.dtype == torch.uint8 else x


def _conv2d_u8(
    x: Tensor, codes: Tensor, palette: Tensor | None, scale: Tensor, bias: Tensor, residual: Tensor | None, *rest: Any
) -> Tensor:
    *layer, in_scale, in_zero, residual_scale, residual_zero, out_u8, out_scale, out_zero, _, version = rest
    check_version("voxpress::conv2d_u8", version, CONV2D_U8_VERSION)
    added = None if residual is None else _real(residual, residual_scale, residual_zero)
    y: Tensor = torch.ops.voxpress.conv2d(
        _real(x, in_scale, in_zero), codes, palette, scale, bias, added, *layer, CONV2D_VERSION
    )
    return (y / out_scale).round().add(out_zero).clamp(0, 255).to(torch.uint8) if out_u8 else y


def _conv2d_u8_out(*arguments: Any, out: Tensor) -> Tensor:
    y = _conv2d_u8(*arguments)
    return out.resize_(y.shape).copy_(y)


def _conv2d_u8_fake(
    x: Tensor, codes: Tensor, palette: Tensor | None, scale: Tensor, bias: Tensor, residual: Tensor | None, *rest: Any
) -> Tensor:
    kernel, stride, padding, *_, out_u8, _out_scale, _out_zero, _algorithm, _version = rest
    dtype = torch.uint8 if out_u8 else torch.float32
    return x.new_empty(layer_output_shape(x, scale, kernel, stride, padding), dtype=dtype)


def _register() -> None:
    _library.define(f"conv2d_u8({_ARGUMENTS}) -> Tensor")
    _library.define(f"conv2d_u8.out({_ARGUMENTS}, *, Tensor(a!) out) -> Tensor(a!)")
    _library.impl("conv2d_u8", _conv2d_u8, "CPU")
    _library.impl("conv2d_u8.out", _conv2d_u8_out, "CPU")
    torch.library.register_fake("voxpress::conv2d_u8", _conv2d_u8_fake, lib=_library)


_register()
