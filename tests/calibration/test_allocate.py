import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calibration.allocate import LayerChoices, allocate_bits
from pipeline.errors import InputError


def _layers(draws: list[tuple[int, float]], widths: tuple[int, ...] = (1, 2, 4)) -> list[LayerChoices]:
    """Layers of `count` weights whose penalty falls by four with every bit, from `weight`."""
    return [
        LayerChoices(
            name=f"layer{index}",
            penalty={bits: weight * 4.0**-bits for bits in widths},
            bytes={bits: -(-count * bits // 8) + 4 * 2**bits for bits in widths},
        )
        for index, (count, weight) in enumerate(draws)
    ]


def _cost(layers: list[LayerChoices], plan: dict[str, int]) -> tuple[float, int]:
    chosen = [(layer, plan[layer.name]) for layer in layers]
    return sum(layer.penalty[bits] for layer, bits in chosen), sum(layer.bytes[bits] for layer, bits in chosen)


@settings(max_examples=60, deadline=None)
@given(
    draws=st.lists(st.tuples(st.integers(8, 5000), st.floats(1e-6, 1e3)), min_size=1, max_size=5),
    share=st.floats(0, 1),
)
def test_the_plan_is_the_best_of_all(draws: list[tuple[int, float]], share: float) -> None:
    layers = _layers(draws)
    least, most = (sum(pick(layer.bytes.values()) for layer in layers) for pick in (min, max))
    budget = least + round(share * (most - least))
    plan = allocate_bits(layers, budget)
    penalty, size = _cost(layers, plan)
    assert size <= budget
    names = [layer.name for layer in layers]
    every = (dict(zip(names, widths, strict=True)) for widths in itertools.product((1, 2, 4), repeat=len(layers)))
    best = min(cost for cost, size in (_cost(layers, one) for one in every) if size <= budget)
    assert penalty <= best * (1 + 1e-6) + 1e-6 * max(max(layer.penalty.values()) for layer in layers)


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1), seed=st.integers(0, 100))
def test_any_budget_is_met_to_within_one_layers_step(share: float, seed: int) -> None:
    widths = tuple(range(1, 9))
    layers = _layers([(100 + 37 * (seed + k) % 900, 1.0 + k) for k in range(12)], widths)
    least, most = (sum(pick(layer.bytes.values()) for layer in layers) for pick in (min, max))
    budget = least + round(share * (most - least))
    plan = allocate_bits(layers, budget)
    _, size = _cost(layers, plan)
    steps = [
        layer.bytes[plan[layer.name] + 1] - layer.bytes[plan[layer.name]] for layer in layers if plan[layer.name] < 8
    ]
    assert size <= budget
    assert not steps or budget - size < max(steps)


def test_a_budget_below_the_narrowest_is_refused() -> None:
    layers = _layers([(800, 1.0), (80, 1.0)])
    least = 100 + 8 + 10 + 8
    assert set(allocate_bits(layers, least).values()) == {1}
    with pytest.raises(InputError, match=f"byte budget: expected at least {least} bytes.*found {least - 1}"):
        allocate_bits(layers, least - 1)
