"""EER and minDCF of anything that makes embeddings: a pre-trained model, an artifact, a model file or a bundle."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy
from lhotse import MonoCut
from pydantic import BaseModel, ConfigDict, TypeAdapter
from rich.table import Table

from device_tests.report.figures import Parity, parity
from device_tests.subjects import Embeddings, How, Inputs, Runnable, one_runnable, runnables
from device_tests.trial_set import TrialSet, extract_inputs, read_trial_set
from exporters.manifest import ModelInput
from pipeline.corpus.read import read_corpus, read_cuts, speaker_of
from pipeline.corpus.shar import is_shards, read_shards
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.files import write_atomically
from pipeline.progress import Progress
from pipeline.scoring.score import DEFAULT_COHORT_TOP, Evaluation, evaluate_embeddings, unit_rows


class ModelEvaluation(BaseModel):
    """How one model does on a trial list."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    runtime: str
    kernels: tuple[str, ...]
    seconds: float  # of embedding, without reading audio
    evaluation: Evaluation
    reference: str | None = None
    to_reference: Parity | None = None  # of embeddings, utterance by utterance


def evaluation_json(results: list[ModelEvaluation]) -> str:
    """Evaluations as JSON text: rates 0..1, seconds, trial counts."""
    return TypeAdapter(list[ModelEvaluation]).dump_json(results, indent=1).decode()


def evaluation_table(results: list[ModelEvaluation]) -> Table:
    """Evaluations as a table for the terminal."""
    table = Table(
        "model", "EER %", "95 % interval", "resampled", "minDCF(0.01)", "targets", "non-targets", "runtime", "s"
    )
    for name in sorted({result.reference for result in results if result.reference is not None}):
        table.add_column(f"cosine to {name}: mean")
        table.add_column("least")
    for result in results:
        one = result.evaluation
        table.add_row(
            result.model,
            f"{100 * one.eer:.2f}",
            f"{100 * one.eer_interval.low:.2f} .. {100 * one.eer_interval.high:.2f}",
            one.eer_interval.unit,
            f"{one.min_dcf:.3f}",
            str(one.target_trials),
            str(one.nontarget_trials),
            result.runtime,
            f"{result.seconds:.1f}",
            *_cosines(result),
        )
    return table


def _cosines(result: ModelEvaluation) -> tuple[str, ...]:
    found = result.to_reference
    return () if found is None else (f"{found.cosine_mean:.5f}", f"{found.cosine_min:.5f}")


def evaluate(
    model: Path,
    *,
    audio: Path,
    trials_file: Path,
    progress: Progress,
    only: str | None = None,
    crop_seconds: float = 0.0,
    threads: int = 1,
    low_memory: bool = False,
    reference: Path | None = None,
    cohort_file: Path | None = None,
    cohort_top: int = DEFAULT_COHORT_TOP,
) -> list[ModelEvaluation]:
    """EER and minDCF of `model` on trials between utterances below `audio`.

    model, only: as `device_tests.subjects.runnables` takes them; audio: as `read_trial_set` does. `crop_seconds` uses
    only the first seconds of every utterance; 0: all of it. Where speakers are known the EER's interval resamples
    speakers; else it resamples trials, and is too narrow by what trials of one speaker have in common. With
    `cohort_file` (see `make_cohort`; of one model, so `model` must be one) scores are normalised by AS-Norm.
    `reference`, one model of the same front end, is run too, and each model's embeddings are compared with its.

    Raises InputError naming the file for anything that is missing or not what it should be.
    """
    trial_set = read_trial_set(audio, trials_file, crop_seconds=crop_seconds)
    cohort = None if cohort_file is None else read_cohort(cohort_file)
    how = How(threads, low_memory)
    results = []
    with runnables(model, only) as subjects:
        if cohort is not None and len(subjects) > 1:
            raise InputError(model, expected="one model, whose cohort it is (--only)", found=f"{len(subjects)}")
        known: dict[tuple[FrontEndSpec, ModelInput], Inputs] = {}
        wanted = None if reference is None else _reference_embeddings(reference, subjects, trial_set, how, progress)
        for subject in subjects:
            takes = (subject.frontend, subject.input)
            if takes not in known:
                known[takes] = trial_set.inputs(*takes, progress)
            started = time.monotonic()
            embedded = subject.embed(known[takes], how, progress)
            seconds = time.monotonic() - started
            results.append(
                ModelEvaluation(
                    model=subject.name,
                    runtime=embedded.runtime,
                    kernels=embedded.kernels,
                    seconds=seconds,
                    evaluation=evaluate_embeddings(
                        embedded.embeddings,
                        trial_set.trials,
                        speakers=trial_set.speakers,
                        cohort=cohort,
                        cohort_top=cohort_top,
                    ),
                    reference=None if reference is None else reference.resolve().name,
                    to_reference=None if wanted is None else parity(embedded.embeddings, wanted, name=subject.name),
                )
            )
    return results


def _reference_embeddings(
    reference: Path, subjects: list[Runnable], trial_set: TrialSet, how: How, progress: Progress
) -> Embeddings:
    with one_runnable(reference) as one:
        for subject in subjects:
            if subject.frontend != one.frontend:
                raise InputError(reference, expected=f"a model with the front end of {subject.name}", found="another")
        return one.embed(trial_set.inputs(one.frontend, one.input, progress), how, progress).embeddings


def make_cohort(
    model: Path,
    *,
    corpus: Path,
    out: Path,
    utterances_per_speaker: int,
    progress: Progress,
    only: str | None = None,
    threads: int = 1,
) -> int:
    """Write the cohort of a model: the mean of each speaker's embeddings, each scaled to length 1 before.

    corpus: a folder of speakers, a lhotse manifest or shards; of each speaker the first `utterances_per_speaker` are
    taken. Returns the number of speakers. Raises InputError naming the file for anything that is not what it should be.
    """
    with one_runnable(model, only) as subject:
        spec = subject.frontend
        if corpus.is_file():
            cuts = read_cuts(corpus)
        elif is_shards(corpus):
            cuts = read_shards(corpus)
        else:
            cuts = read_corpus(corpus, sample_rate_hz=spec.sample_rate_hz, min_seconds=spec.min_seconds)
        chosen: dict[str, list[MonoCut]] = {}
        for cut in cuts:
            of_speaker = chosen.setdefault(speaker_of(cut), [])
            if len(of_speaker) < utterances_per_speaker:
                of_speaker.append(cut)
        means = {}
        with progress.task("cohort", len(chosen)) as task:
            for speaker, taken in sorted(chosen.items()):
                inputs = extract_inputs(taken, spec, subject.input)
                embeddings = subject.embed(inputs, How(threads), Progress.silent()).embeddings
                means[speaker] = unit_rows(embeddings, sorted(embeddings)).mean(axis=0).astype(np.float32)
                task.advance()
    write_atomically(out, safetensors.numpy.save(means, metadata={"model": subject.name}))
    return len(means)


def read_cohort(path: Path) -> Embeddings:
    """Cohort embeddings [E] by speaker. Raises InputError naming the file if it is missing or damaged."""
    try:
        cohort: Embeddings = safetensors.numpy.load_file(path)
    except FileNotFoundError:
        raise InputError(path, expected="a cohort (.safetensors)", found="no such file") from None
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(path, expected="a cohort (.safetensors)", found=str(error)) from None
    return cohort
