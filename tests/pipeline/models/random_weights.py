"""Networks as training leaves them: batch-norms with statistics, not zeros and ones."""

import torch
from torch import nn

from pipeline.models.network import SpeakerNetwork
from pipeline.models.registry import build_model
from pipeline.models.spec import ModelSpec


def random_network(spec: ModelSpec, seed: int = 0) -> SpeakerNetwork:
    """A network in evaluation mode with random weights and batch-norm statistics."""
    torch.manual_seed(seed)
    network = build_model(spec)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2.0)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.1)
    return network.eval()
