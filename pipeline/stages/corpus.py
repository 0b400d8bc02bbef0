"""Stage `corpus`: manifests of the training and the held-out utterances, and trials between the latter."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pydantic import BaseModel

from pipeline.corpus.read import read_corpus, write_cuts
from pipeline.corpus.split import split_speakers
from pipeline.corpus.synthetic import make_synthetic_corpus
from pipeline.corpus.trials import all_pairs_trials, write_trials
from pipeline.recipe import CorpusSettings, Recipe, SyntheticSettings
from pipeline.stages.job import Job, JobContext

VOICES_JOB = "voices"
JOB = "corpus"
TRAIN_FILE = "train.jsonl.gz"
HELDOUT_FILE = "heldout.jsonl.gz"
TRIALS_FILE = "trials.txt"


class _VoicesSettings(BaseModel):
    synthetic: SyntheticSettings
    seed: int


class _Settings(BaseModel):
    corpus: CorpusSettings
    sample_rate_hz: int
    min_seconds: float
    seed: int


def jobs(recipe: Recipe, folder: Path | None) -> list[Job]:
    """The corpus is read from `folder`; without one, synthetic voices are made first."""
    settings = _Settings(
        corpus=recipe.corpus,
        sample_rate_hz=recipe.frontend.sample_rate_hz,
        min_seconds=recipe.frontend.min_seconds,
        seed=recipe.seed,
    )
    if folder is not None:
        sources = {"corpus": folder_fingerprint(folder)}
        return [Job(JOB, "corpus", settings, (), lambda context: _divide(context, folder), sources)]
    voices = _VoicesSettings(synthetic=recipe.corpus.synthetic, seed=recipe.seed)
    return [
        Job(VOICES_JOB, "corpus", voices, (), _make_voices, {}),
        Job(JOB, "corpus", settings, (VOICES_JOB,), lambda context: _divide(context, context.needs[VOICES_JOB]), {}),
    ]


def _make_voices(context: JobContext) -> None:
    settings = context.recipe.corpus.synthetic
    total = settings.speakers * settings.sessions * settings.utterances_per_session
    with context.progress.task("synthetic voices", total) as task:
        make_synthetic_corpus(
            context.folder,
            speakers=settings.speakers,
            sessions=settings.sessions,
            utterances_per_session=settings.utterances_per_session,
            seed=context.recipe.seed,
            progress=lambda done, total: task.advance(),
        )


def _divide(context: JobContext, folder: Path) -> None:
    recipe = context.recipe
    cuts = read_corpus(folder, sample_rate_hz=recipe.frontend.sample_rate_hz, min_seconds=recipe.frontend.min_seconds)
    split = split_speakers(
        cuts, recipe.corpus.heldout_share, segment_seconds=recipe.corpus.segment_seconds or None, corpus=folder
    )
    trials = all_pairs_trials(split.held_out, max_trials=recipe.corpus.max_trials, seed=recipe.seed)
    write_cuts(split.train, context.folder / TRAIN_FILE)
    write_cuts(split.held_out, context.folder / HELDOUT_FILE)
    write_trials(trials, context.folder / TRIALS_FILE)
    targets = sum(trial.target for trial in trials)
    context.progress.say(
        f"    {len(split.train)} training utterances, {len(split.held_out)} held out; "
        f"{targets} target and {len(trials) - targets} non-target trials"
    )


def folder_fingerprint(folder: Path) -> str:
    """Hash of the names and sizes of a folder's files: a changed corpus is read again, a moved one is not."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
    return digest.hexdigest()
