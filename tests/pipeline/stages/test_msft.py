from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydantic
import pytest
from torch import nn

from pipeline.errors import InputError
from pipeline.models.spec import ModelSpec
from pipeline.progress import Progress
from pipeline.quantize.apply import weight_layers
from pipeline.recipe import (
    CorpusSettings,
    MixedSettings,
    MsftSettings,
    Recipe,
    SensitivitySettings,
    SyntheticSettings,
    UniformSettings,
)
from pipeline.stages import pressing
from pipeline.stages.mixed import Sensitivity
from pipeline.stages.msft import artifacts, compared_artifacts, jobs, layer_order, split_groups
from pipeline.stages.run import run_recipe
from pipeline.training.loop import History
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
    recipe = _recipe(compare_orders=("front-to-back",))
    assert artifacts(recipe) == {
        "msft-3bit": "msft/3bit",
        "msft-2bit": "msft/2bit",
        "msft-2bit-front-to-back": "msft/2bit-front-to-back",
    }
    assert compared_artifacts(recipe) == {"back-to-front": "msft-2bit", "front-to-back": "msft-2bit-front-to-back"}
    *one_plan, other = jobs(recipe)
    # What is compared beside them does not make the others anew.
    assert [job.settings for job in one_plan] == [job.settings for job in jobs(plain)]
    assert other.needs == one_plan[-1].needs
    assert other.settings.model_dump()["msft"]["order"] == "front-to-back"


def test_orders_that_cannot_be_compared() -> None:
    with pytest.raises(InputError, match=r"msft.compare_plan: expected a plan of \[mixed\]: 3bit, 2bit, found 4bit"):
        jobs(_recipe(compare_orders=("front-to-back",), compare_plan="4bit"))
    with pytest.raises(pydantic.ValidationError, match=r"names back-to-front, which is msft\.order"):
        _recipe(compare_orders=("back-to-front",))


def test_each_group_gets_its_turn_and_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four steps to a group: layers of a group are rounded from its first step on, also in a run killed in between."""
    seen: list[int] = []
    real = pressing.train

    def watched(network: nn.Module, *args: Any, every_step: Callable[[int], None], **kwargs: Any) -> History:
        def look(step: int) -> None:
            seen.append(sum(layer.weight.unique().numel() <= 4 for layer in weight_layers(network).values()))
            every_step(step)
            if len(seen) == 6:
                raise KeyboardInterrupt

        return real(network, *args, every_step=look, **kwargs)

    monkeypatch.setattr(pressing, "train", watched)
    steps = TrainingSettings(steps=4, batch=4, crop_frames=64, lr=1e-3, checkpoint_seconds=1e-6)
    recipe = Recipe(
        name="tiny",
        model=ModelSpec(architecture="resnet10", base_channels=2, embedding_dim=8),
        corpus=CorpusSettings(
            synthetic=SyntheticSettings(speakers=8, sessions=1, utterances_per_session=2), heldout_share=0.25
        ),
        pretrain=steps,
        uniform=UniformSettings(bits=()),
        mixed=MixedSettings(average_bits=(2,), sensitivity=SensitivitySettings(crops=1, crop_frames=40, probes=1)),
        msft=MsftSettings(groups=3, finetune=steps),
    )

    def run() -> None:
        run_recipe(recipe, corpus_folder=None, out=tmp_path, until="msft", progress=Progress.silent())

    with pytest.raises(KeyboardInterrupt):
        run()
    run()
    assert len(seen) == 12 + 1  # one step is done again: it was not saved
    assert seen[:5] == seen[:1] * 4 + [seen[4]]
    assert 0 < seen[0] < seen[4] == seen[5] == seen[6] < seen[9] == seen[-1]
