"""One of two processes that compare a batch-norm over both halves of a batch with one over the whole. In float64.

Words: rank, file through which the processes meet. Prints the largest relative error of outputs, gradients, statistics.
"""

import sys

import torch
from torch import Tensor, distributed, nn

from pipeline.training.batch_norm import statistics_of_all_processes


def _network() -> nn.Module:
    torch.manual_seed(1)
    layers = [nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 4, 3, bias=False)]
    layers += [
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(80, 5, bias=False),
        nn.BatchNorm1d(5, affine=False),
    ]
    return nn.Sequential(*layers).double().train()


def _error(found: Tensor, wanted: Tensor) -> float:
    return float(((found - wanted).abs().max() / wanted.abs().max()).detach())


def main(rank: int, meeting: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    torch.manual_seed(0)
    x = (2 * torch.randn(6, 1, 8, 9, dtype=torch.float64) + 3).requires_grad_()
    up = torch.randn(6, 5, dtype=torch.float64)
    whole = _network()
    y = whole(x)
    (y * up).sum().backward()
    half = slice(3 * rank, 3 * rank + 3)
    own_x = x.detach()[half].clone().requires_grad_()
    network = _network()
    with statistics_of_all_processes(network, 2):
        z = network(own_x)
        (z * up[half]).sum().backward()
    errors = [_error(z, y[half]), _error(own_x.grad, x.grad[half])]
    for own, wanted in zip(network.parameters(), whole.parameters(), strict=True):
        distributed.all_reduce(own.grad)
        errors.append(_error(own.grad, wanted.grad))
    errors += [_error(own, wanted) for own, wanted in zip(network.buffers(), whole.buffers(), strict=True)]
    print(max(errors))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
