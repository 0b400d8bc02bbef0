"""Contenders take turns: every round each of them runs a little, so that a drift of the machine meets all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from pipeline.errors import VoxPressError


class Runs(Protocol):
    """What can be timed."""

    def run(self, warmup: int, runs: int) -> tuple[int, ...]:
        """Nanoseconds of `runs` inferences, after `warmup` that are not kept."""


@dataclass
class Turns:
    """Samples of whole rounds, by contender, and why a contender has left."""

    samples: dict[str, list[tuple[int, ...]]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)


def turn_order(names: list[str], seed: int, round_index: int) -> list[str]:
    """The order of a round: a permutation that depends on the seed and the round alone."""
    order = np.random.default_rng([seed, round_index]).permutation(len(names))
    return [sorted(names)[index] for index in order]


def play_round(
    workers: Mapping[str, Runs],
    turns: Turns,
    *,
    round_index: int,
    seed: int,
    warmup: int,
    runs: int,
    on_turn: Callable[[str], None] = lambda name: None,
) -> None:
    """Give every contender that has not failed one turn and add its samples; one that fails now is noted.

    The samples of a round are added only once it is over, so that an interruption leaves no half round.
    """
    played: dict[str, tuple[int, ...]] = {}
    for name in turn_order(list(workers), seed, round_index):
        if name not in turns.failures:
            try:
                played[name] = workers[name].run(warmup, runs)
            except VoxPressError as error:
                turns.failures[name] = str(error)
        on_turn(name)
    for name, samples in played.items():
        turns.samples.setdefault(name, []).append(samples)
