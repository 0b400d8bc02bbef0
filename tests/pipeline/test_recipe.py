from pathlib import Path

import pytest

from pipeline.errors import InputError
from pipeline.recipe import builtin_recipes, load_recipe

GOOD = 'name = "x"\n[pretrain]\nsteps = 5\n'


def test_builtin_recipes_are_recipes() -> None:
    assert {"demo", "librispeech-mini", "resnet34", "voxceleb"} <= set(builtin_recipes())
    for name in builtin_recipes():
        assert load_recipe(name).name == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "[unifrom]\nbits = [4]\n", r"expected known keys \(uniform\?\), found unknown key unifrom"),
        (GOOD + "[uniform]\nbit = [4]\n", r"expected known keys \(uniform.bits\?\), found unknown key uniform.bit"),
        (GOOD + "[uniform.finetune]\nsteps = 1\nlearning = 4\n", "unknown key uniform.finetune.learning"),
        (GOOD + "[uniform]\nbits = [9]\n", "uniform.bits.0: Input should be less than or equal to 8"),
        (GOOD + "[uniform]\nbits = []\n", "no artifact is asked for"),
        (GOOD + "[msft.finetune]\nsteps = 3\n", r"\[msft\] needs a plan"),
        (GOOD + "[msft.finetune]\nsteps = 0\n", r"finetune\.steps is 0"),
        (GOOD + "[mixed]\naverage_bits = [0.5]\n", "mixed.average_bits.0: Input should be greater than or equal to 1"),
        (GOOD + "[msft]\ngruops = 3\n", r"\(msft.groups\?\), found unknown key msft.gruops"),
        (GOOD + "[model]\nbase_channels = 'many'\n", "model.base_channels"),
        (GOOD + "[augmentation]\nspeeds = [0.9]\n", r'it needs corpus.cache = "none"'),
        (GOOD + "[augmentation]\nmusan = 'm'\nsnr = 3\n", "unknown key augmentation.snr"),
        (GOOD + "[export]\nchunk_seconds = 20\n", r"export: Value error, chunk_seconds is 20, not 0\.3 to 10 \(max_s"),
        (GOOD + "[export]\nchunk_seconds = nan\n", "export.chunk_seconds"),
        (GOOD + "frozen_statistics = true\n", "pretrain.frozen_statistics: a network that is not trained yet"),
        ('name = "x"\n', "pretrain: Field required"),
        ("name = ", "expected TOML"),
        ("", "name: Field required"),
    ],
)
def test_a_bad_recipe_is_named_with_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_recipe(str(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_neither_a_file_nor_a_name() -> None:
    with pytest.raises(InputError, match=r"demmo: expected a .toml file or one of .*demo"):
        load_recipe("demmo")
    with pytest.raises(InputError, match=r"nowhere\.toml: expected a recipe, found no such file"):
        load_recipe("nowhere.toml")
