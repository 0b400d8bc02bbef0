"""EER and minDCF of anything that makes embeddings: a pre-trained model, an artifact, a model file or a bundle."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import safetensors
import safetensors.numpy
import torch
from lhotse import MonoCut
from pydantic import BaseModel, ConfigDict, TypeAdapter
from rich.table import Table
from torch import nn

from device_tests.drive.host import embed_with_engine
from device_tests.report.figures import Parity, parity
from exporters.bundle import MANIFEST_FILE, Manifest, checked_file, read_manifest, unzip_bundle
from exporters.manifest import ModelInput, ModelManifest
from pipeline.artifact.decode import decode
from pipeline.artifact.embed import embed as embed_in_torch
from pipeline.artifact.store import HEADER_FILE as ARTIFACT_FILE
from pipeline.artifact.store import read_artifact
from pipeline.corpus.read import read_corpus, read_cuts, read_utterances, speaker_of
from pipeline.corpus.shar import is_shards, read_shards
from pipeline.corpus.trials import Trial, check_trials_against, read_trials
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.features.store import FeatureSource, extract_features
from pipeline.files import write_atomically
from pipeline.models.store import HEADER_FILE as MODEL_FILE
from pipeline.models.store import read_pretrained
from pipeline.progress import Progress
from pipeline.scoring.score import DEFAULT_COHORT_TOP, Evaluation, evaluate_embeddings, unit_rows

Features = Mapping[str, npt.NDArray[np.float32]]
Embeddings = Mapping[str, npt.NDArray[np.float32]]


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


@dataclass(frozen=True)
class _How:
    """How models are run; low_memory is of VoxPress ops only."""

    threads: int
    low_memory: bool = False


@dataclass(frozen=True)
class _Subject:
    """Something to evaluate: what it takes, and a way to embed that, giving embeddings, runtime and kernels."""

    name: str
    frontend: FrontEndSpec
    input: ModelInput
    embed: Callable[[Features, _How, Progress], tuple[Embeddings, str, tuple[str, ...]]]


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

    model: folder of a pre-trained model or an artifact (run by the torch reference), a .pte or .tflite file (run by
    its device engine), or a bundle folder or zip (every model file in it, or the one named `only`). `crop_seconds`
    uses only the first seconds of every utterance; 0: all of it. Where every path begins with a folder, that folder is
    the speaker and the EER's interval resamples speakers; else it resamples trials, and is too narrow by what trials
    of one speaker have in common. With `cohort_file` (see `make_cohort`; of one model, so `model` must be one) scores
    are normalised by AS-Norm. `reference`, one model of the same front end, is run too, and each model's embeddings are
    compared with its.

    Raises InputError naming the file for anything that is missing or not what it should be.
    """
    trials, names = trials_between(audio, trials_file)
    cohort = None if cohort_file is None else read_cohort(cohort_file)
    how = _How(threads, low_memory)
    results = []
    with _subjects(model, only) as subjects:
        if cohort is not None and len(subjects) > 1:
            raise InputError(model, expected="one model, whose cohort it is (--only)", found=f"{len(subjects)}")
        known: dict[tuple[FrontEndSpec, ModelInput], Features] = {}
        wanted: Embeddings | None = None
        if reference is not None:
            wanted = _embeddings_of_one(reference, subjects, audio, names, crop_seconds, how, progress)
        for subject in subjects:
            takes = (subject.frontend, subject.input)
            if takes not in known:
                known[takes] = trial_inputs(audio, names, *takes, crop_seconds, progress)
            started = time.monotonic()
            embeddings, runtime, kernels = subject.embed(known[takes], how, progress)
            seconds = time.monotonic() - started
            results.append(
                ModelEvaluation(
                    model=subject.name,
                    runtime=runtime,
                    kernels=kernels,
                    seconds=seconds,
                    evaluation=evaluate_embeddings(
                        embeddings, trials, speakers=speakers_by_folder(names), cohort=cohort, cohort_top=cohort_top
                    ),
                    reference=None if reference is None else reference.resolve().name,
                    to_reference=None if wanted is None else parity(embeddings, wanted, name=subject.name),
                )
            )
    return results


def _embeddings_of_one(
    reference: Path,
    subjects: list[_Subject],
    audio: Path,
    names: list[str],
    crop_seconds: float,
    how: _How,
    progress: Progress,
) -> Embeddings:
    with _subjects(reference, None) as found:
        if len(found) != 1:
            raise InputError(reference, expected="one reference model", found=f"{len(found)}")
        (one,) = found
        for subject in subjects:
            if subject.frontend != one.frontend:
                raise InputError(reference, expected=f"a model with the front end of {subject.name}", found="another")
        inputs = trial_inputs(audio, names, one.frontend, one.input, crop_seconds, progress)
        return one.embed(inputs, how, progress)[0]


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
    with _subjects(model, only) as subjects:
        if len(subjects) != 1:
            raise InputError(model, expected="one model (--only)", found=f"{len(subjects)}")
        (subject,) = subjects
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
                embeddings, _, _ = subject.embed(inputs, _How(threads), Progress.silent())
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


def trials_between(audio: Path, trials_file: Path) -> tuple[list[Trial], list[str]]:
    """Trials of a list and, sorted, the utterances below `audio` that they are between.

    Raises InputError naming the list's line for an utterance that is not there.
    """
    trials = read_trials(trials_file)
    names = sorted({name for trial in trials for name in (trial.enrolment, trial.test)})
    present = {name for name in names if (audio / name).is_file()}
    check_trials_against(trials, present, trials_path=trials_file, corpus=audio)
    return trials, names


def speakers_by_folder(names: list[str]) -> dict[str, str] | None:
    """Speaker of every utterance: the first folder of its path; None if a path has no folder."""
    if not all("/" in name for name in names):
        return None
    return {name: name.partition("/")[0] for name in names}


def trial_features(
    audio: Path, names: list[str], spec: FrontEndSpec, crop_seconds: float, progress: Progress
) -> Features:
    """Mean-normalised features of utterances below `audio`; of their first `crop_seconds` if that is not 0."""
    return trial_inputs(audio, names, spec, "fbank", crop_seconds, progress)


def trial_inputs(
    audio: Path, names: list[str], spec: FrontEndSpec, model_input: ModelInput, crop_seconds: float, progress: Progress
) -> Features:
    """What a model takes of utterances below `audio`: features [frames, mel] or samples [S]; see `trial_features`."""
    cuts = read_utterances(audio, names, sample_rate_hz=spec.sample_rate_hz, min_seconds=spec.min_seconds)
    if crop_seconds:
        cuts = cuts.truncate(max_duration=crop_seconds, preserve_id=True)
    with progress.task("features" if model_input == "fbank" else "audio", len(names)) as task:
        return extract_inputs(cuts, spec, model_input, task.advance)


def extract_inputs(
    cuts: Iterable[MonoCut], spec: FrontEndSpec, model_input: ModelInput, on_step: Callable[[], None] = lambda: None
) -> Features:
    """Features [frames, mel] or samples [S] by utterance."""
    if model_input == "fbank":
        return extract_features(cuts, spec, lambda done, total: on_step())
    source, samples = FeatureSource(cuts, spec, cache="none"), {}
    for cut_id in source.ids:
        samples[cut_id] = source.samples(cut_id, 0, source.sample_count(cut_id))
        on_step()
    return samples


@contextmanager
def _subjects(model: Path, only: str | None) -> Iterator[list[_Subject]]:
    if (model / MANIFEST_FILE).is_file():
        yield _bundle_subjects(model, read_manifest(model), only)
    elif model.suffix == ".zip" and model.is_file():
        with tempfile.TemporaryDirectory(prefix="voxpress-") as name:
            folder = Path(name)
            unzip_bundle(model, folder)
            yield _bundle_subjects(folder, read_manifest(folder), only)
    elif (model / ARTIFACT_FILE).is_file():
        artifact = read_artifact(model)
        yield [_torch_subject(model, decode(artifact), artifact.header.frontend)]
    elif (model / MODEL_FILE).is_file():
        pretrained = read_pretrained(model)
        yield [_torch_subject(model, pretrained.network, pretrained.frontend)]
    elif model.suffix in (".pte", ".tflite"):
        yield [_engine_subject(model)]
    else:
        what = "a pre-trained model, an artifact, a .pte, a .tflite or a bundle"
        found = "none of these" if model.exists() else "no such file or folder"
        raise InputError(model, expected=what, found=found)


def _manifest_of(model: Path) -> ModelManifest:
    # Each runtime is imported only for its own files.
    if model.suffix == ".pte":
        from exporters.pte.run import PteRunner

        return PteRunner(model).manifest
    from exporters.tflite.run import TfliteRunner

    return TfliteRunner(model).manifest


def _bundle_subjects(folder: Path, manifest: Manifest, only: str | None) -> list[_Subject]:
    chosen = [entry for entry in manifest.models if only in (None, Path(entry.file).name)]
    if not chosen:
        names = ", ".join(Path(entry.file).name for entry in manifest.models)
        raise InputError(folder / MANIFEST_FILE, expected=f"one of the models {names}", found=str(only))
    return [_engine_subject(checked_file(folder, manifest, entry.file)) for entry in chosen]


def _engine_subject(path: Path) -> _Subject:
    manifest = _manifest_of(path)

    def embed(features: Features, how: _How, progress: Progress) -> tuple[Embeddings, str, tuple[str, ...]]:
        embeddings, record = embed_with_engine(
            path, features, threads=how.threads, low_memory=how.low_memory, progress=progress
        )
        return embeddings, f"{record.engine} {record.runtime_version}", record.kernels

    return _Subject(path.name, manifest.frontend, manifest.input, embed)


def _torch_subject(path: Path, network: nn.Module, frontend: FrontEndSpec) -> _Subject:
    def embed(features: Features, how: _How, progress: Progress) -> tuple[Embeddings, str, tuple[str, ...]]:
        torch.set_num_threads(how.threads)
        return embed_in_torch(network, features, progress, "embedding, torch"), f"torch {torch.__version__}", ()

    return _Subject(path.resolve().name, frontend, "fbank", embed)
