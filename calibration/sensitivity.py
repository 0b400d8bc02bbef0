"""How much each layer's rounding moves the embedding: mean Hessian traces by a Hutchinson estimator.

The loss is the distance of the quantized network's embedding to the fp32 network's own,

    L(W) = 1 - cos(f_W(x), f_W0(x)),   at W = W0:   H = J^T P J / |f|^2,   P = I - f f^T / |f|^2,   J = df / dW.

It needs no labels and no classifier, which imported models lack, and stays informative where a converged classifier's
own loss is flat. HAWQ-V2 probes weight space with a double backward, E_v[v^T H v]; since this H is a square, probing
embedding space with Rademacher u gives the same trace from single backward passes, E_u[|J^T P u|^2] / |f|^2, never
negative and without the noise that other layers' probes add.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from pipeline.quantize.apply import weight_layers


def mean_hessian_traces(
    network: nn.Module,
    crops: Sequence[Tensor],
    *,
    probes: int,
    seed: int,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Trace of every weight layer's block of H, divided by its number of weights and averaged over crops and probes.

    crops: features [frames, mel] each. `progress` is called after each of the len(crops) * probes backward passes.
    The network must be in evaluation mode and without palettes.
    """
    layers = weight_layers(network)
    weights = [layer.get_parameter("weight") for layer in layers.values()]
    generator = torch.Generator().manual_seed(seed)
    sums = torch.zeros(len(weights), dtype=torch.float64)
    for crop in crops:
        embedding = network(crop[None])[0]
        length = embedding.detach().norm()
        direction = embedding.detach() / length
        for probe in range(probes):
            u = torch.randint(0, 2, embedding.shape, generator=generator).to(embedding) * 2 - 1
            across = (u - direction * (direction @ u)) / length
            gradients = torch.autograd.grad(embedding, weights, across, retain_graph=probe + 1 < probes)
            sums += torch.tensor([float(g.double().square().sum()) / g.numel() for g in gradients], dtype=torch.float64)
            progress()
    return dict(zip(layers, (sums / (len(crops) * probes)).tolist(), strict=True))
