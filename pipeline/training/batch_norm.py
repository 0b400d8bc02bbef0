"""Batch-norm over the global batch of all processes, on any device.

torch's own SyncBatchNorm refuses tensors on the CPU, where the tests compare two processes with one; this is the same
mathematics on whatever device and backend the processes use.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pipeline.errors import VoxPressError


@contextmanager
def statistics_of_all_processes(network: nn.Module, world_size: int) -> Iterator[None]:
    """Inside the block every BatchNorm2d of the network in training mode normalises over all processes' batches.

    Nothing changes with one process. The processes' batches must have equal shapes. Raises VoxPressError for a
    batch-norm of another kind, whose statistics would silently be those of each process.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)] if world_size > 1 else []
    for norm in norms:
        if type(norm) is not nn.BatchNorm2d:
            raise VoxPressError(f"{type(norm).__name__} cannot be trained by several processes; only BatchNorm2d can")
    # Changing the class keeps the module itself, so that parameters, buffers and whoever refers to it stay as they are.
    for norm in norms:
        norm.__class__ = _GlobalBatchNorm2d
    try:
        yield
    finally:
        for norm in norms:
            norm.__class__ = nn.BatchNorm2d


class _GlobalBatchNorm2d(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        y, mean, variance = _Normalise.apply(x, self.weight, self.bias, self.eps)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            count = x.numel() // x.shape[1] * distributed.get_world_size()
            if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
                momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
                self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var.dtype), momentum)
        out: Tensor = y
        return out


class _Normalise(torch.autograd.Function):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, with the mean and biased variance [C] of all x [N, C, H, W].

    Gives y, mean and var. The gradient to x is that of the sum of all processes' losses; those to weight and bias are
    of this process's share alone, as the data-parallel engine expects them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        variance, mean = torch.var_mean(_wide(x), dim=(0, 2, 3), unbiased=False)
        own = torch.stack([mean, variance])
        shares = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        distributed.all_gather(shares, own)
        means, variances = torch.stack(shares).unbind(dim=1)
        mean = means.mean(dim=0)
        variance = (variances + (means - mean).square()).mean(dim=0)
        inverse = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.mark_non_differentiable(mean, variance)
        y = (_wide(x) - _column(mean)) * _column(weight * inverse) + _column(bias)
        return y.to(x.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse = ctx.saved_tensors
        dy = _wide(gradients[0])
        normalised = (_wide(x) - _column(mean)) * _column(inverse)
        sums = torch.stack([dy.sum(dim=(0, 2, 3)), (dy * normalised).sum(dim=(0, 2, 3))])
        d_bias, d_weight = sums.clone().unbind()
        distributed.all_reduce(sums)
        count = x.numel() // x.shape[1] * distributed.get_world_size()
        mean_dy, mean_dy_normalised = (sums / count).unbind()
        dx = (dy - _column(mean_dy) - normalised * _column(mean_dy_normalised)) * _column(weight * inverse)
        return dx.to(x.dtype), d_weight.to(weight.dtype), d_bias.to(weight.dtype), None


def _wide(values: Tensor) -> Tensor:
    """The values in float32 or wider, for sums over thousands of them."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _column(values: Tensor) -> Tensor:
    """[C] -> [1, C, 1, 1]."""
    return values[None, :, None, None]
