"""What a recipe asks for in vain is refused before anything is trained."""

import json
from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.models.size import layer_nodes, network_size
from pipeline.models.spec import ModelSpec
from pipeline.progress import Progress
from pipeline.recipe import Recipe
from pipeline.stages.run import run_recipe

SPEC = ModelSpec(architecture="resnet10", base_channels=2, embedding_dim=8)


def _run(out: Path, **sections: object) -> None:
    content = {"name": "r", "model": SPEC.model_dump(), "pretrain": {"steps": 10**6}, **sections}
    run_recipe(Recipe.model_validate(content), corpus_folder=None, out=out, until=None, progress=Progress())


def _plan(path: Path, **changes: int) -> str:
    path.write_text(json.dumps({"layers": {node.name: 3 for node in layer_nodes(SPEC)} | changes}))
    return str(path)


def test_a_budget_below_one_bit(tmp_path: Path) -> None:
    least = network_size(SPEC).palette_bytes[1]
    with pytest.raises(InputError, match=f"byte budget: expected at least {least} bytes, .* found {least - 1}"):
        _run(tmp_path / "out", mixed={"budget_bytes": [least, least - 1]})
    assert list(tmp_path.iterdir()) == []


def test_a_plan_with_an_unknown_layer_and_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"mine\.json: expected layers of the network .* found unknown layer nowhere"):
        _run(tmp_path / "out", mixed={"plans": [_plan(tmp_path / "mine.json", nowhere=2)]})
    with pytest.raises(InputError, match=r"other\.json: expected a plan, found no such file"):
        _run(tmp_path / "out", mixed={"plans": [str(tmp_path / "other.json")]})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("section", ["uniform", "binary"])
def test_an_unknown_layer_to_be_kept(tmp_path: Path, section: str) -> None:
    with pytest.raises(InputError, match=rf"{section}\.keep_fp32: expected layers among conv1, .* found nowhere"):
        _run(tmp_path / "out", **{section: {"keep_fp32": ["conv1", "nowhere"]}, "mixed": {"average_bits": [2]}})
    assert not (tmp_path / "out").exists()
