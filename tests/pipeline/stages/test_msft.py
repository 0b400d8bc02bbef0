import pytest

from pipeline.stages.mixed import Sensitivity
from pipeline.stages.msft import layer_order, split_groups

WIDTHS = {"a": 2, "b": 4, "c": 2}
SENSITIVITY = Sensitivity(
    trace={"a": 1.0, "b": 10.0, "c": 3.0},
    squared_error={"a": {2: 1.0, 4: 0.1}, "b": {2: 9.0, 4: 0.2}, "c": {2: 1.0, 4: 0.1}},
)


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("front-to-back", ["a", "b", "c"]),
        ("back-to-front", ["c", "b", "a"]),
        ("sensitivity-descending", ["c", "b", "a"]),  # 3.0, 2.0, 1.0 at the planned widths
        ("sensitivity-ascending", ["a", "b", "c"]),
    ],
)
def test_orders(order, expected: list[str]) -> None:  # type: ignore[no-untyped-def]
    assert layer_order(WIDTHS, order, SENSITIVITY) == expected


@pytest.mark.parametrize(("count", "sizes"), [(1, [5]), (2, [2, 3]), (3, [2, 1, 2]), (5, [1] * 5), (9, [1] * 5)])
def test_groups_hold_every_layer_once(count: int, sizes: list[int]) -> None:
    groups = split_groups("abcde", count)
    assert [len(group) for group in groups] == sizes
    assert "".join(name for group in groups for name in group) == "abcde"
