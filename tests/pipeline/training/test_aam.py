import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from pipeline.training.aam import AamSoftmax


def test_without_margin_it_is_a_scaled_softmax_over_cosines() -> None:
    torch.manual_seed(0)
    head = AamSoftmax(4, 3, scale=16.0)
    x, labels = torch.randn(5, 4), torch.tensor([0, 1, 2, 0, 1])
    cosine = functional.normalize(x) @ functional.normalize(head.weight).T
    loss, accuracy = head(x, labels, margin=0.0)
    torch.testing.assert_close(loss, functional.cross_entropy(16.0 * cosine, labels))
    assert float(accuracy) == pytest.approx(float((cosine.argmax(1) == labels).float().mean()))


def test_the_margin_is_an_angle() -> None:
    head = AamSoftmax(2, 2, scale=1.0)
    head.weight.data = torch.eye(2)
    theta, margin = 0.3, 0.2
    loss, _ = head(torch.tensor([[math.cos(theta), math.sin(theta)]]), torch.tensor([0]), margin)
    expected = -math.log(
        math.exp(math.cos(theta + margin)) / (math.exp(math.cos(theta + margin)) + math.exp(math.sin(theta)))
    )
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_the_loss_falls_all_the_way_from_the_opposite_direction() -> None:
    head = AamSoftmax(2, 2, scale=4.0)
    head.weight.data = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    angles = torch.linspace(math.pi, 0, 50)
    losses = [float(head(torch.tensor([[math.cos(a), math.sin(a)]]), torch.tensor([0]), 0.5)[0]) for a in angles]
    assert all(later <= earlier + 1e-6 for earlier, later in pairwise(losses))
