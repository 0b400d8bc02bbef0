"""A run that starts from a model folder instead of training."""

import json
from pathlib import Path

import pytest
import torch

from pipeline.artifact.store import read_artifact
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.models.spec import ModelSpec
from pipeline.models.store import HEAD_FILE, WEIGHTS_FILE, ModelHeader, read_pretrained, write_pretrained
from pipeline.progress import Progress
from pipeline.recipe import Recipe
from pipeline.stages.run import run_recipe
from tests.pipeline.models.random_weights import random_network

SPEC = ModelSpec(architecture="gemini-dfresnet60", base_channels=1, embedding_dim=4, embedding_layers=2)


def _recipe(**changes: object) -> Recipe:
    content = {
        "name": "taken",
        "corpus": {
            "heldout_share": 0.5,
            "synthetic": {"speakers": 6, "sessions": 1, "utterances_per_session": 2},
        },
        "model": SPEC.model_dump(),
        "pretrain": {"steps": 10**6},  # that no training happens shows in the test's coming to an end
        "uniform": {"bits": [2]},
    }
    return Recipe.model_validate(content | changes)


def _write_model(folder: Path, seed: int = 0, frontend: FrontEndSpec | None = None, head: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    header = ModelHeader(spec=SPEC, speakers=("ann", "bob") if head else (), created_by="tests")
    weights = torch.ones(2, 4) if head else None
    write_pretrained(folder, header, random_network(SPEC, seed), frontend or FrontEndSpec(), weights)
    return folder


class _Heard(Progress):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def _run(out: Path, model: Path, recipe: Recipe | None = None, until: str = "uniform") -> list[str]:
    progress = _Heard()
    run_recipe(recipe or _recipe(), corpus_folder=None, pretrained=model, out=out, until=until, progress=progress)
    return progress.lines


def test_the_model_is_taken_evaluated_and_pressed(tmp_path: Path) -> None:
    model, out = _write_model(tmp_path / "model"), tmp_path / "out"
    lines = _run(out, model)
    taken = read_pretrained(out / "pretrain")
    assert taken.sha256 == read_pretrained(model).sha256
    assert taken.head is None
    assert 0 <= json.loads((out / "pretrain" / "evaluation.json").read_text())["eer"] <= 1
    assert not (out / "pretrain" / "history.json").exists()
    assert any("fp32" in line for line in lines)
    assert read_artifact(out / "uniform" / "2bit").header.source_sha256 == taken.sha256

    assert [line for line in _run(out, model) if "unchanged" not in line] == []
    moved = model.rename(tmp_path / "elsewhere")
    assert [line for line in _run(out, moved) if "unchanged" not in line] == []
    (moved / WEIGHTS_FILE).write_bytes((_write_model(tmp_path / "other", seed=1) / WEIGHTS_FILE).read_bytes())
    lines = _run(out, moved)
    assert "[corpus] unchanged" in lines
    assert {"[pretrain]", "[uniform/2bit]"} <= set(lines)


def test_a_classifier_comes_along(tmp_path: Path) -> None:
    model = _write_model(tmp_path / "model", head=True)
    _run(tmp_path / "out", model, until="pretrain")
    assert read_pretrained(tmp_path / "out" / "pretrain").header.speakers == ("ann", "bob")
    assert (tmp_path / "out" / "pretrain" / HEAD_FILE).read_bytes() == (model / HEAD_FILE).read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model": SPEC.model_dump() | {"architecture": "resnet34"}},
            r"model\.json: expected architecture resnet34, as the recipe's \[model\] says, found gemini-dfresnet60",
        ),
        (
            {"model": SPEC.model_dump() | {"embedding_layers": 1}},
            r"model\.json: expected embedding_layers 1, .* found 2",
        ),
        (
            {"frontend": {"window": "povey"}},
            r"frontend\.json: expected window povey, as the recipe's \[frontend\] says, found hamming",
        ),
    ],
)
def test_a_model_that_is_not_the_recipes(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    model = _write_model(tmp_path / "model")
    with pytest.raises(InputError, match=message):
        _run(tmp_path / "out", model, _recipe(**changes))
    assert not (tmp_path / "out").exists()


def test_a_damaged_model_is_named_before_any_work(tmp_path: Path) -> None:
    model = _write_model(tmp_path / "model")
    (model / WEIGHTS_FILE).write_bytes((model / WEIGHTS_FILE).read_bytes()[:-8])
    with pytest.raises(InputError, match=r"model\.safetensors: expected a whole safetensors file"):
        _run(tmp_path / "out", model)
    with pytest.raises(InputError, match=r"model\.json: expected a VoxPress model's header, found no such file"):
        _run(tmp_path / "out", tmp_path / "nowhere")
    assert not (tmp_path / "out").exists()


def test_fine_tuning_asks_for_a_classifier(tmp_path: Path) -> None:
    model = _write_model(tmp_path / "model")
    recipe = _recipe(uniform={"bits": [2], "finetune": {"steps": 1}})
    with pytest.raises(InputError, match=r"expected a model with its classifier, .* found no head"):
        _run(tmp_path / "out", model, recipe)
