"""The moving average of a network over the steps of its training."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class MovingAverage:
    """Exponential moving average of a module's parameters and floating-point buffers.

    v_0 = x_0 and v_t = d_t v_(t-1) + (1 - d_t) x_t with d_t = min(decay, (1 + t) / (10 + t)), so that the first steps,
    from which training moves away fast, do not weigh on a short run. Batch-norm statistics and palettes are averaged
    like the weights that they belong to: of a palettized layer its latent weights and the values of its palette, whose
    order an average keeps. Whole numbers (batch counts) are the last ones.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values: dict[str, Tensor] = {}  # by name in the module's state
        self._module = module

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the module as it is after `step` (0, 1, ...) into the average."""
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, value in self._module.state_dict().items():
            if name not in self.values or not value.is_floating_point():
                self.values[name] = value.detach().clone()
            else:
                self.values[name].lerp_(value.detach(), 1 - decay)

    def replace(self) -> None:
        """Give the module the averages in place of its own values. Nothing changes before the first update."""
        if self.values:
            self._module.load_state_dict(self.values)
