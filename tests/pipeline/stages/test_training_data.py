from pathlib import Path

import pytest
import torch

from pipeline.features.store import FeatureSource
from pipeline.progress import Progress
from pipeline.recipe import CorpusSettings, Recipe, SyntheticSettings
from pipeline.stages.corpus import JOB as CORPUS
from pipeline.stages.job import JobContext
from pipeline.stages.run import run_recipe
from pipeline.stages.training_data import clean_crops
from pipeline.training.settings import TrainingSettings


def _recipe(seed: int) -> Recipe:
    synthetic = SyntheticSettings(speakers=4, sessions=1, utterances_per_session=2)
    return Recipe(
        name="x",
        seed=seed,
        corpus=CorpusSettings(heldout_share=0.5, synthetic=synthetic, seed=seed),
        pretrain=TrainingSettings(steps=1),
    )


def _context(out: Path, seed: int) -> JobContext:
    recipe = _recipe(seed)
    run_recipe(recipe, corpus_folder=None, out=out, until="corpus", progress=Progress.silent())
    return JobContext(recipe, out / "job", {CORPUS: out / CORPUS}, out / "work", Progress.silent(), "")


def test_features_are_computed_once_for_each_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preloads = []
    preload = FeatureSource.preload
    monkeypatch.setattr(FeatureSource, "preload", lambda *words: preloads.append(1) or preload(*words))
    one, other = _context(tmp_path / "one", 1), _context(tmp_path / "other", 2)
    first = clean_crops(one, 40)
    again = clean_crops(one, 60)
    assert again.source is first.source
    assert again[3][0].shape == (60, 80)
    assert len(preloads) == 1
    there = clean_crops(other, 40)
    assert len(preloads) == 2
    assert not torch.equal(there[3][0], first[3][0])
    assert torch.equal(clean_crops(one, 40)[3][0], first[3][0])
