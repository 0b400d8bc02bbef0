from __future__ import annotations

from device_tests.bench.process import WorkerError
from device_tests.bench.turns import Turns, play_round, turn_order


class _Contender:
    def __init__(self, name: str, log: list[str], *, fails_at: int | None = None) -> None:
        self.name, self.log, self.fails_at, self.turns = name, log, fails_at, 0

    def run(self, warmup: int, runs: int) -> tuple[int, ...]:
        self.turns += 1
        self.log.append(self.name)
        if self.turns == self.fails_at:
            raise WorkerError(f"{self.name} fell over")
        return (self.turns,) * runs


def test_order_is_a_permutation_of_seed_and_round() -> None:
    names = [f"c{index}" for index in range(8)]
    orders = [turn_order(names, 0, index) for index in range(20)]
    assert all(sorted(order) == names for order in orders)
    assert len({tuple(order) for order in orders}) > 15
    assert orders[3] == turn_order(list(reversed(names)), 0, 3)
    assert orders[3] != turn_order(names, 1, 3)


def test_everyone_has_one_turn_a_round() -> None:
    log: list[str] = []
    workers = {name: _Contender(name, log) for name in "abcd"}
    turns = Turns()
    for index in range(5):
        play_round(workers, turns, round_index=index, seed=2, warmup=1, runs=2)
    for index in range(5):
        assert log[4 * index : 4 * index + 4] == turn_order(list("abcd"), 2, index)
    assert turns.samples == {name: [(turn, turn) for turn in range(1, 6)] for name in "abcd"}
    assert not turns.failures


def test_one_that_fails_leaves_and_the_others_go_on() -> None:
    log: list[str] = []
    told: list[str] = []
    workers = {name: _Contender(name, log, fails_at=2 if name == "b" else None) for name in "abc"}
    turns = Turns()
    for index in range(4):
        play_round(workers, turns, round_index=index, seed=0, warmup=0, runs=1, on_turn=told.append)
    assert turns.failures == {"b": "b fell over"}
    assert {name: len(rounds) for name, rounds in turns.samples.items()} == {"a": 4, "b": 1, "c": 4}
    assert log.count("b") == 2
    assert len(told) == 12


def test_an_interrupted_round_leaves_nothing() -> None:
    class _Interrupts(_Contender):
        def run(self, warmup: int, runs: int) -> tuple[int, ...]:
            raise KeyboardInterrupt

    turns = Turns()
    workers: dict[str, _Contender] = {name: _Contender(name, []) for name in "abcdefg"}
    workers["h"] = _Interrupts("h", [])
    try:
        play_round(workers, turns, round_index=0, seed=0, warmup=0, runs=1)
    except KeyboardInterrupt:
        assert not turns.samples
    else:
        raise AssertionError("the interruption was swallowed")
