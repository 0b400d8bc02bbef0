from pathlib import Path

from pipeline.progress import Progress
from pipeline.recipe import CorpusSettings, Recipe, SyntheticSettings
from pipeline.stages.corpus import HELDOUT_FILE, TRIALS_FILE
from pipeline.stages.run import run_recipe
from pipeline.training.settings import TrainingSettings

SETTINGS = CorpusSettings(
    heldout_share=0.5,
    max_trials=10,
    synthetic=SyntheticSettings(speakers=6, sessions=1, utterances_per_session=3),
)


def _files(folder: Path, seed: int, corpus_seed: int | None) -> tuple[bytes, bytes]:
    recipe = Recipe(
        name="x",
        seed=seed,
        corpus=SETTINGS.model_copy(update={"seed": corpus_seed}),
        pretrain=TrainingSettings(steps=1),
    )
    run_recipe(recipe, corpus_folder=None, out=folder, until="corpus", progress=Progress())
    assert (folder / "corpus" / HELDOUT_FILE).is_file()
    voice = next(iter(sorted((folder / "voices").rglob("*.flac"))))
    return (folder / "corpus" / TRIALS_FILE).read_bytes(), voice.read_bytes()


def test_a_corpus_seed_keeps_voices_and_trials_where_the_recipes_seed_changes(tmp_path: Path) -> None:
    first = _files(tmp_path / "a", 1, None)
    assert _files(tmp_path / "b", 2, 1) == first
    trials, voice = _files(tmp_path / "c", 2, None)
    assert trials != first[0]
    assert voice != first[1]
