import pydantic
import pytest

from pipeline.errors import InputError
from pipeline.recipe import MixedSettings, MsftSettings, Recipe
from pipeline.stages.mixed import Sensitivity
from pipeline.stages.msft import artifacts, compared_artifacts, jobs, layer_order, split_groups
from pipeline.training.settings import TrainingSettings

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


def _recipe(**msft: object) -> Recipe:
    steps = TrainingSettings(steps=3)
    return Recipe(
        name="r",
        pretrain=steps,
        mixed=MixedSettings(average_bits=(3, 2)),
        msft=MsftSettings.model_validate({"finetune": steps, **msft}),
    )


def test_orders_are_compared_on_one_plan() -> None:
    plain = _recipe()
    assert compared_artifacts(plain) == {}
    recipe = _recipe(compare_orders=("back-to-front",))
    assert artifacts(recipe) == {
        "msft-3bit": "msft/3bit",
        "msft-2bit": "msft/2bit",
        "msft-2bit-back-to-front": "msft/2bit-back-to-front",
    }
    assert compared_artifacts(recipe) == {"front-to-back": "msft-2bit", "back-to-front": "msft-2bit-back-to-front"}
    *one_plan, other = jobs(recipe)
    # What is compared beside them does not make the others anew.
    assert [job.settings for job in one_plan] == [job.settings for job in jobs(plain)]
    assert other.needs == one_plan[-1].needs
    assert other.settings.model_dump()["msft"]["order"] == "back-to-front"


def test_orders_that_cannot_be_compared() -> None:
    with pytest.raises(InputError, match=r"msft.compare_plan: expected a plan of \[mixed\]: 3bit, 2bit, found 4bit"):
        jobs(_recipe(compare_orders=("back-to-front",), compare_plan="4bit"))
    with pytest.raises(pydantic.ValidationError, match=r"names front-to-back, which is msft\.order"):
        _recipe(compare_orders=("front-to-back",))
