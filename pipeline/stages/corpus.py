"""Stage `corpus`: manifests of the training and the held-out utterances, and trials between the latter."""

from __future__ import annotations

import hashlib
from pathlib import Path

from lhotse import CutSet
from pydantic import BaseModel

from pipeline.corpus.read import read_corpus, read_cuts, write_cuts
from pipeline.corpus.shar import is_shards, read_shards
from pipeline.corpus.split import split_speakers
from pipeline.corpus.synthetic import make_synthetic_corpus
from pipeline.corpus.trials import all_pairs_trials, write_trials
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.files import sha256_file
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


def jobs(recipe: Recipe, source: Path | None) -> list[Job]:
    """The corpus is read from `source`, a folder, a manifest or shards; without it, synthetic voices are made first."""
    settings = _Settings(
        corpus=recipe.corpus.model_copy(update={"seed": None}),
        sample_rate_hz=recipe.frontend.sample_rate_hz,
        min_seconds=recipe.frontend.min_seconds,
        seed=recipe.corpus_seed,
    )
    if source is not None:
        sources = {"corpus": sha256_file(source) if source.is_file() else folder_fingerprint(source)}
        return [Job(JOB, "corpus", settings, (), lambda context: _divide(context, source), sources)]
    voices = _VoicesSettings(synthetic=recipe.corpus.synthetic, seed=recipe.corpus_seed)
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
            seed=context.recipe.corpus_seed,
            progress=lambda done, total: task.advance(),
        )


def _divide(context: JobContext, source: Path) -> None:
    recipe = context.recipe
    if source.is_file():
        cuts = _checked(read_cuts(source), source, recipe.frontend)
    elif is_shards(source):
        cuts = _checked(read_shards(source), source, recipe.frontend)
    else:
        cuts = read_corpus(
            source, sample_rate_hz=recipe.frontend.sample_rate_hz, min_seconds=recipe.frontend.min_seconds
        )
    split = split_speakers(
        cuts, recipe.corpus.heldout_share, segment_seconds=recipe.corpus.segment_seconds or None, corpus=source
    )
    trials = all_pairs_trials(split.held_out, max_trials=recipe.corpus.max_trials, seed=recipe.corpus_seed)
    write_cuts(split.train, context.folder / TRAIN_FILE)
    write_cuts(split.held_out, context.folder / HELDOUT_FILE)
    write_trials(trials, context.folder / TRIALS_FILE)
    targets = sum(trial.target for trial in trials)
    context.progress.say(
        f"    {len(split.train)} training utterances, {len(split.held_out)} held out; "
        f"{targets} target and {len(trials) - targets} non-target trials"
    )


def _checked(cuts: CutSet, manifest: Path, spec: FrontEndSpec) -> CutSet:
    """The cuts, if they are what the front end takes; their audio files are read, and checked, when they are needed."""
    for cut in cuts:
        source = cut.recording.sources[0] if cut.recording is not None and cut.recording.sources else None
        if source is None or source.type != "file":
            raise InputError(f"{manifest}: {cut.id}", expected="audio in a file", found="none")
        if cut.sampling_rate != spec.sample_rate_hz:
            raise InputError(
                f"{manifest}: {cut.id}",
                expected=f"a sample rate of {spec.sample_rate_hz} Hz",
                found=f"{cut.sampling_rate} Hz",
            )
        if cut.duration < spec.min_seconds:
            raise InputError(
                f"{manifest}: {cut.id}", expected=f"at least {spec.min_seconds:g} s", found=f"{cut.duration:.4g} s"
            )
    return cuts


def folder_fingerprint(folder: Path) -> str:
    """Hash of the names and sizes of a folder's files: a changed corpus is read again, a moved one is not."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            digest.update(f"{path.relative_to(folder).as_posix()} {path.stat().st_size}\n".encode())
    return digest.hexdigest()
