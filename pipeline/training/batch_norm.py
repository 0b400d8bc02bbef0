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
    """Inside the block every batch-norm of the network in training mode normalises over all processes' batches.

    Nothing changes with one process. The processes' batches must have equal shapes. Raises VoxPressError for a
    batch-norm of a kind not known here, whose statistics would silently be those of each process.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)] if world_size > 1 else []
    for norm in norms:
        if type(norm) not in _GLOBAL:
            known = ", ".join(kind.__name__ for kind in _GLOBAL)
            raise VoxPressError(f"{type(norm).__name__} cannot be trained by several processes; known are {known}")
    # Changing the class keeps the module itself, so that parameters, buffers and whoever refers to it stay as they are.
    plain = [type(norm) for norm in norms]
    for norm in norms:
        norm.__class__ = _GLOBAL[type(norm)]
    try:
        yield
    finally:
        for norm, kind in zip(norms, plain, strict=True):
            norm.__class__ = kind


def freeze_statistics(network: nn.Module) -> None:
    """Have every batch-norm of a network in training mode normalise by its running statistics, and keep them."""
    for module in network.modules():
        if isinstance(module, _BatchNorm):
            module.eval()


class _GlobalBatchNorm(_BatchNorm):
    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        weight = _wide(x).new_ones(x.shape[1]) if self.weight is None else self.weight
        bias = torch.zeros_like(weight) if self.bias is None else self.bias
        y, mean, variance = _Normalise.apply(x, weight, bias, self.eps)  # type: ignore[no-untyped-call]
        with torch.no_grad():
            count = x.numel() // x.shape[1] * distributed.get_world_size()
            if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
                momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
                self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var.dtype), momentum)
        out: Tensor = y
        return out


class _GlobalBatchNorm1d(_GlobalBatchNorm, nn.BatchNorm1d):
    pass


class _GlobalBatchNorm2d(_GlobalBatchNorm, nn.BatchNorm2d):
    pass


_GLOBAL: dict[type[_BatchNorm], type[_GlobalBatchNorm]] = {
    nn.BatchNorm1d: _GlobalBatchNorm1d,
    nn.BatchNorm2d: _GlobalBatchNorm2d,
}


class _Normalise(torch.autograd.Function):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, with the mean and biased variance [C] of all x [N, C, ...].

    Gives y, mean and var. The gradient to x is that of the sum of all processes' losses; those to weight and bias are
    of this process's share alone, as the data-parallel engine expects them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
        variance, mean = torch.var_mean(_wide(x), dim=_all_but_channels(x), unbiased=False)
        own = torch.stack([mean, variance])
        shares = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
        distributed.all_gather(shares, own)
        means, variances = torch.stack(shares).unbind(dim=1)
        mean = means.mean(dim=0)
        variance = (variances + (means - mean).square()).mean(dim=0)
        inverse = (variance + eps).rsqrt()
        ctx.save_for_backward(x, weight, mean, inverse)
        ctx.mark_non_differentiable(mean, variance)
        y = (_wide(x) - _beside(mean, x)) * _beside(weight * inverse, x) + _beside(bias, x)
        return y.to(x.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse = ctx.saved_tensors
        dy = _wide(gradients[0])
        normalised = (_wide(x) - _beside(mean, x)) * _beside(inverse, x)
        sums = torch.stack([dy.sum(dim=_all_but_channels(x)), (dy * normalised).sum(dim=_all_but_channels(x))])
        d_bias, d_weight = sums.clone().unbind()
        distributed.all_reduce(sums)
        count = x.numel() // x.shape[1] * distributed.get_world_size()
        mean_dy, mean_dy_normalised = (sums / count).unbind()
        dx = (dy - _beside(mean_dy, x) - normalised * _beside(mean_dy_normalised, x)) * _beside(weight * inverse, x)
        return dx.to(x.dtype), d_weight.to(weight.dtype), d_bias.to(weight.dtype), None


def _all_but_channels(x: Tensor) -> tuple[int, ...]:
    return (0, *range(2, x.dim()))


def _beside(values: Tensor, x: Tensor) -> Tensor:
    """[C] -> [1, C, 1, ...], with as many dimensions as x."""
    return values.view(1, -1, *[1] * (x.dim() - 2))


def _wide(values: Tensor) -> Tensor:
    """The values in float32 or wider, for sums over thousands of them."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values
