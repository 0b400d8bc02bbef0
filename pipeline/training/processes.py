"""The processes that train together, as torchrun starts them: how many, which one this is, and what they agree on."""

from __future__ import annotations

import os
from datetime import timedelta
from functools import cache
from typing import TypeVar

import torch
from lightning.fabric import Fabric
from lightning.fabric.strategies import DDPStrategy

# Processes wait for the first one while it evaluates and writes. torchrun ends them all when one dies, so that a long
# time limit hides nothing.
_WAIT = timedelta(days=7)

T = TypeVar("T")


def is_first_process() -> bool:
    """Whether this process is the one that writes and evaluates: torchrun's rank 0, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """How many processes torchrun started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def from_first_process(value: T) -> T:
    """The first process's `value`, in every process; all of them must call this, and wait for each other."""
    shared: T = make_fabric("32-true").broadcast(value)
    return shared


@cache
def make_fabric(precision: str) -> Fabric:
    """Fabric for this process, one for each precision: as many devices and nodes as torchrun says, else one."""
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    world = process_count()
    if precision == "auto":
        precision = "bf16-mixed" if _bfloat16_is_fast() else "32-true"
    strategy = DDPStrategy(timeout=_WAIT) if world > 1 else "auto"
    fabric = Fabric(accelerator="auto", strategy=strategy, devices=local, num_nodes=world // local, precision=precision)
    fabric.launch()
    return fabric


def _bfloat16_is_fast() -> bool:
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.cpu._is_avx512_bf16_supported()
