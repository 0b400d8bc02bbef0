"""AAM-softmax (ArcFace): the classifier that pre-training and fine-tuning put behind the embedding."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional


class AamSoftmax(nn.Module):
    """Cross entropy over s * cos(theta_j), with cos(theta_y + m) for the true speaker y.

    Past theta = pi - m, where cos(theta + m) would rise again, it goes on as cos(theta) - m sin(m).
    """

    def __init__(self, embedding_dim: int, speakers: int, scale: float) -> None:
        super().__init__()
        self.scale = scale
        self.weight = nn.Parameter(torch.empty(speakers, embedding_dim))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, embeddings: Tensor, labels: Tensor, margin: float) -> tuple[Tensor, Tensor]:
        """Loss and accuracy (without margin) of embeddings [N, E] with labels int64 [N]."""
        cosine = functional.linear(functional.normalize(embeddings.float()), functional.normalize(self.weight.float()))
        target = cosine.gather(1, labels[:, None])
        sine = (1.0 - target.square()).clamp_min(1e-12).sqrt()
        shifted = torch.where(
            target > math.cos(math.pi - margin),
            target * math.cos(margin) - sine * math.sin(margin),
            target - margin * math.sin(margin),
        )
        logits = self.scale * cosine.scatter(1, labels[:, None], shifted)
        accuracy = (cosine.argmax(dim=1) == labels).float().mean()
        return functional.cross_entropy(logits, labels), accuracy
