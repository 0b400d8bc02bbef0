from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from device_tests.records import read_embeddings
from device_tests.report.sweep import read_sweep
from device_tests.report.sweep_figures import Sweep
from pipeline.cli import app
from pipeline.corpus.trials import Trial, read_trials, write_trials
from pipeline.errors import InputError
from pipeline.models.spec import ModelSpec
from pipeline.progress import Progress
from pipeline.recipe import (
    BinarySettings,
    CorpusSettings,
    ExportSettings,
    MixedSettings,
    MsftSettings,
    Order,
    Recipe,
    SensitivitySettings,
    SyntheticSettings,
    UniformSettings,
    load_recipe,
)
from pipeline.scoring.metrics import bootstrap_values, eer
from pipeline.scoring.score import cosine_scores, trial_labels, trial_speakers
from pipeline.stages.heldout import heldout_speakers
from pipeline.stages.sweep import GivenTrials, SweptSettings, comparisons, sweep, swept_recipe
from pipeline.training.settings import TrainingSettings

STEPS = TrainingSettings(
    steps=2, batch=4, crop_frames=40, optimizer="adamw", lr=1e-3, distillation=10.0, precision="32-true"
)
RECIPE = Recipe(
    name="tiny",
    seed=5,
    corpus=CorpusSettings(
        heldout_share=0.4,
        max_trials=40,
        synthetic=SyntheticSettings(speakers=8, sessions=1, utterances_per_session=4),
    ),
    model=ModelSpec(architecture="resnet10", base_channels=4, embedding_dim=16),
    pretrain=STEPS.model_copy(update={"steps": 8, "lr": 5e-3, "distillation": 0.0}),
    uniform=UniformSettings(finetune=STEPS),
    mixed=MixedSettings(
        average_bits=(7,), sensitivity=SensitivitySettings(crops=1, crop_frames=40, probes=1), finetune=STEPS
    ),
    msft=MsftSettings(groups=2, compare_orders=("front-to-back",), finetune=STEPS.model_copy(update={"steps": 1})),
    binary=BinarySettings(finetune=STEPS),
    export=ExportSettings(max_seconds=6.0, fallback=("8bit",)),
)
FEW = SweptSettings(uniform_bits=(4, 2), mixed_bits=(2,), quantizers=("sign", "adaptive"))
LABELS = [
    "fp32",
    "4bit",
    "2bit",
    "mixed-2bit",
    "msft-2bit",
    "msft-2bit-front-to-back",
    "1bit-sign",
    "1bit-adaptive",
]


def test_the_methods_settings_and_what_is_compared() -> None:
    swept = swept_recipe(RECIPE, SweptSettings())
    assert swept.uniform.bits == (8, 5, 4, 3, 2)
    assert swept.mixed.average_bits == (5, 4, 3, 2)
    assert swept.binary.quantizers == ("sign", "static", "adaptive")
    assert swept.corpus.seed == 5
    assert swept.uniform.finetune == STEPS
    pairs = [(one.setting, one.other) for one in comparisons(SweptSettings())]
    assert pairs == [
        ("4bit", "fp32"),
        *((f"mixed-{bits}bit", f"{bits}bit") for bits in (5, 4, 3, 2)),
        *((f"msft-{bits}bit", f"mixed-{bits}bit") for bits in (5, 4, 3, 2)),
        ("1bit-static", "1bit-sign"),
        ("1bit-adaptive", "1bit-sign"),
    ]
    assert [one.setting for one in comparisons(SweptSettings()) if one.lossless] == ["4bit"]
    orders: dict[Order, str] = {"front-to-back": "msft-2bit", "back-to-front": "msft-2bit-back-to-front"}
    last = comparisons(SweptSettings(), orders)[-1]
    assert (last.setting, last.other) == ("msft-2bit", "msft-2bit-back-to-front")
    assert last.statement == "MSFT front-to-back beats back-to-front"


def test_the_built_in_sweep_compares_like_with_like() -> None:
    recipe = load_recipe("sweep-mini")
    assert recipe.msft is not None
    steps = recipe.msft.groups * recipe.msft.finetune.steps
    assert steps == recipe.mixed.finetune.steps == recipe.uniform.finetune.steps
    once = {"steps": 1}
    # One bit stands for itself: its quantizers are compared with one another alone.
    rest = [one.finetune.model_copy(update=once) for one in (recipe.uniform, recipe.mixed, recipe.msft)]
    assert rest[0] == rest[1] == rest[2]
    swept = swept_recipe(recipe, SweptSettings())
    # The sweep changes nothing but the corpus's seed.
    assert swept == recipe.model_copy(update={"corpus": swept.corpus})


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (RECIPE.model_copy(update={"msft": None}), r"tiny: expected a recipe with a section \[msft\]"),
        (
            RECIPE.model_copy(update={"uniform": UniformSettings(keep_fp32=("conv1",))}),
            "uniform.keep_fp32: expected none: .* found conv1",
        ),
        (RECIPE.model_copy(update={"seed": 2**31 - 1}), "--seeds: expected 1 or more, from seed 2147483647"),
    ],
)
def test_a_recipe_that_cannot_be_swept(tmp_path: Path, recipe: Recipe, message: str) -> None:
    with pytest.raises(InputError, match=message):
        sweep(recipe, corpus_folder=None, out=tmp_path / "out", seeds=2, given=None, progress=Progress())
    assert not (tmp_path / "out").exists()


def test_fewer_settings() -> None:
    few = SweptSettings.parse("8,4,4", "none", " sign,adaptive ")
    assert few == SweptSettings(uniform_bits=(8, 4), mixed_bits=(), quantizers=("sign", "adaptive"))
    assert SweptSettings.parse("8,5,4,3,2", "5,4,3,2", "sign,static,adaptive") == SweptSettings()
    orders = RECIPE.msft and RECIPE.msft.compare_orders
    for settings, wanted in ((few, ()), (FEW, orders), (SweptSettings(), orders)):
        swept = swept_recipe(RECIPE, settings)
        assert swept.msft is not None
        assert swept.msft.compare_orders == wanted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("9", "none", "none"), "--bits: expected widths from 1 to 8 with commas, or none, found 9"),
        (("4", "3;2", "none"), "--mixed-bits: expected widths .*, found 3;2"),
        (("4", "", "none"), "--mixed-bits: expected widths"),
        (("4", "none", "ternary"), "--quantizers: expected some of sign, static, adaptive, or none, found ternary"),
    ],
)
def test_settings_that_are_none(words: tuple[str, str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SweptSettings.parse(*words)


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="sweep: expected one process"):
        sweep(RECIPE, corpus_folder=None, out=tmp_path, seeds=1, given=None, progress=Progress())


def test_given_trials_are_checked_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("1 a/1.flac a/2.flac\n")
    with pytest.raises(InputError, match=r"t\.txt:1: expected an utterance of .*a/1\.flac, which is not there"):
        sweep(
            RECIPE,
            corpus_folder=None,
            out=tmp_path / "out",
            seeds=1,
            given=GivenTrials(tmp_path, tmp_path / "t.txt"),
            progress=Progress(),
        )
    assert not (tmp_path / "out").exists()


def _swept(out: Path, given: GivenTrials | None, jobs: int = 1) -> Sweep:
    return sweep(
        RECIPE, corpus_folder=None, out=out, seeds=2, given=given, progress=Progress(), settings=FEW, jobs=jobs
    )


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sweep, Path]:
    out = tmp_path_factory.mktemp("sweep")
    return _swept(out, None, jobs=2), out


@pytest.mark.slow
def test_every_setting_of_every_seed_is_measured(swept: tuple[Sweep, Path]) -> None:
    result, out = swept
    assert [setting.label for setting in result.settings] == LABELS
    assert result.seeds == (5, 6)
    assert read_sweep(out) == result
    by_label = {setting.label: setting for setting in result.settings}
    assert [setting.finetune_steps for setting in result.settings] == [0, 2, 2, 2, 2, 2, 2, 2]
    for k in range(2):
        assert by_label["mixed-2bit"].sizes[k].artifact_bytes <= by_label["2bit"].sizes[k].artifact_bytes
    assert by_label["1bit-sign"].size.bits_per_weight == 1
    for setting in result.settings:
        for suffix in ("pte", "tflite"):
            (path,) = (out / "seed-5" / "files" / setting.label).glob(f"*.{suffix}")
            assert setting.file_bytes[suffix] == path.stat().st_size  # type: ignore[index]
    assert not (out / "seed-6" / "files").exists()
    assert len(result.layers[0].trace) == 2
    shown = CliRunner().invoke(app, ["report", str(out)])
    assert shown.exit_code == 0
    assert all(label in shown.stdout for label in LABELS)
    assert "beats naive 1 bit" in shown.stdout


@pytest.mark.slow
def test_seeds_differ_in_their_networks_and_not_in_their_trials(swept: tuple[Sweep, Path]) -> None:
    _, out = swept
    trials = [(out / f"seed-{seed}" / "corpus" / "trials.txt").read_bytes() for seed in (5, 6)]
    assert trials[0] == trials[1]
    weights = [(out / f"seed-{seed}" / "pretrain" / "model.safetensors").read_bytes() for seed in (5, 6)]
    assert weights[0] != weights[1]


@pytest.mark.slow
def test_the_figures_are_those_of_the_embeddings(swept: tuple[Sweep, Path]) -> None:
    result, out = swept
    corpus = out / "seed-5" / "corpus"
    trials = read_trials(corpus / "trials.txt")
    labels, pairs = trial_labels(trials), trial_speakers(trials, heldout_speakers(corpus))

    def scores(seed: int, label: str) -> np.ndarray:
        folder = out / f"seed-{seed}" / "measured" / "heldout" / label
        return cosine_scores(read_embeddings(folder / "embeddings.safetensors"), trials)

    two = next(setting for setting in result.settings if setting.label == "2bit").on("heldout")
    rates = [eer(scores(seed, "2bit"), labels).rate for seed in (5, 6)]
    assert [one.evaluation.eer for one in two.seeds] == rates
    assert two.eer.mean == pytest.approx(statistics.fmean(rates))
    difference = next(one for one in result.differences if one.setting == "1bit-adaptive")
    expected = [eer(scores(s, "1bit-adaptive"), labels).rate - eer(scores(s, "1bit-sign"), labels).rate for s in (5, 6)]
    assert difference.per_seed == pytest.approx(expected)
    values = {
        (seed, label): bootstrap_values(scores(seed, label), labels, speakers=pairs)
        for seed in (5, 6)
        for label in ("1bit-adaptive", "1bit-sign")
    }
    pooled = sum(values[seed, "1bit-adaptive"] - values[seed, "1bit-sign"] for seed in (5, 6)) / 2
    interval = difference.over_trials
    assert [interval.low, interval.high] == pytest.approx(np.quantile(pooled, [0.025, 0.975]))
    assert (interval.unit, interval.draws) == ("speakers", len(pooled))


@pytest.mark.slow
def test_a_second_sweep_only_adds_the_given_trials(swept: tuple[Sweep, Path], tmp_path: Path) -> None:
    before, out = swept
    voices = out / "seed-5" / "voices"
    names = sorted(path.relative_to(voices).as_posix() for path in voices.rglob("*.flac"))[:12]
    write_trials(
        [Trial(a[:4] == b[:4], a, b) for i, a in enumerate(names) for b in names[i + 1 :]], tmp_path / "list.txt"
    )
    stamps = {path: path.stat().st_mtime_ns for path in out.rglob("stamp.json")}
    after = _swept(out, GivenTrials(voices, tmp_path / "list.txt"))
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    added = {path.parent.relative_to(out).as_posix() for path in out.rglob("stamp.json")} - {
        path.parent.relative_to(out).as_posix() for path in stamps
    }
    assert added == {f"seed-{seed}/measured/trials/{label}" for seed in (5, 6) for label in LABELS}
    assert [one.name for one in after.trial_lists] == ["held-out speakers", "list.txt"]
    for old, new in zip(before.settings, after.settings, strict=True):
        assert new.on("heldout") == old.on("heldout")
    assert (out / "pareto-trials.svg").is_file()


@pytest.mark.slow
def test_a_sweep_of_one_width_alone(swept: tuple[Sweep, Path], tmp_path: Path) -> None:
    shutil.copytree(swept[1], tmp_path / "out")
    (tmp_path / "out" / "bits.svg").unlink()
    alone = SweptSettings(uniform_bits=(4,), mixed_bits=(), quantizers=())
    result = sweep(
        RECIPE, corpus_folder=None, out=tmp_path / "out", seeds=2, given=None, progress=Progress(), settings=alone
    )
    assert [setting.label for setting in result.settings] == ["fp32", "4bit"]
    assert result.layers == ()
    assert result.differences == tuple(one for one in swept[0].differences if one.setting == "4bit")
    assert not (tmp_path / "out" / "bits.svg").exists()
    assert "Bits per layer" not in (tmp_path / "out" / "sweep.html").read_text()


@pytest.mark.slow
def test_an_error_of_a_seed_run_beside_others_is_the_sweeps(tmp_path: Path) -> None:
    (tmp_path / "corpus" / "speaker").mkdir(parents=True)
    (tmp_path / "corpus" / "speaker" / "1.wav").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"1\.wav: expected "):
        sweep(
            RECIPE,
            corpus_folder=tmp_path / "corpus",
            out=tmp_path / "out",
            seeds=2,
            given=None,
            progress=Progress(),
            settings=FEW,
            jobs=2,
        )
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_seeds_run_side_by_side_end_with_a_killed_sweep(tmp_path: Path) -> None:
    words = ["-m", "pipeline.cli", "sweep", "sweep-mini", "--out", str(tmp_path / "out"), "--seeds", "2", "--jobs", "2"]
    parent = subprocess.Popen([sys.executable, *words], stderr=subprocess.DEVNULL)
    try:
        _wait_for(lambda: len(list((tmp_path / "out").glob("seed-*/.voices*"))) == 2)
        tasks = Path(f"/proc/{parent.pid}/task").glob("*/children")
        children = [Path("/proc") / pid for task in tasks for pid in task.read_text().split()]
        assert len(children) >= 2
    finally:
        parent.kill()
        parent.wait()
    _wait_for(lambda: not any(child.exists() for child in children))


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
