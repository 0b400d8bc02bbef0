"""Batch-norm statistics measured anew after rounding: what post-training quantization has in place of training."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

BATCH = 16


def recalibrate_norms(network: nn.Module, crops: Sequence[Tensor]) -> None:
    """Replace every batch-norm's running mean and variance by those of `crops` through the network as it is now.

    Rounded weights shift and scale each layer's output; the stored statistics are those of the fp32 network. crops:
    features [frames, mel] of one length. Statistics are averaged over batches of 16 crops. Weights stay as they are.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    training = network.training
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches
    network.train()
    with torch.no_grad():
        for first in range(0, len(crops), BATCH):
            network(torch.stack(list(crops[first : first + BATCH])))
    network.train(training)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
