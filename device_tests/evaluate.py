"""EER and minDCF of anything that makes embeddings: a pre-trained model, an artifact, a model file or a bundle."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
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

from device_tests.drive.process import HostDevice
from device_tests.drive.run import embed_with_engine
from exporters.bundle import MANIFEST_FILE, Manifest, checked_file, read_manifest, unzip_bundle
from exporters.manifest import ModelManifest
from pipeline.artifact.decode import decode
from pipeline.artifact.embed import embed as embed_in_torch
from pipeline.artifact.store import HEADER_FILE as ARTIFACT_FILE
from pipeline.artifact.store import read_artifact
from pipeline.corpus.read import read_corpus, read_cuts, read_utterances, speaker_of
from pipeline.corpus.shar import is_shards, read_shards
from pipeline.corpus.trials import Trial, check_trials_against, read_trials
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.features.store import extract_features
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


def evaluation_json(results: list[ModelEvaluation]) -> str:
    """Evaluations as JSON text: rates 0..1, seconds, trial counts."""
    return TypeAdapter(list[ModelEvaluation]).dump_json(results, indent=1).decode()


def evaluation_table(results: list[ModelEvaluation]) -> Table:
    """Evaluations as a table for the terminal."""
    table = Table(
        "model", "EER %", "95 % interval", "resampled", "minDCF(0.01)", "targets", "non-targets", "runtime", "s"
    )
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
        )
    return table


@dataclass(frozen=True)
class _Subject:
    """Something to evaluate: its front end and a way to embed features, giving embeddings, runtime and kernels."""

    name: str
    frontend: FrontEndSpec
    embed: Callable[[Features, int, Progress], tuple[Embeddings, str, tuple[str, ...]]]


def evaluate(
    model: Path,
    *,
    audio: Path,
    trials_file: Path,
    progress: Progress,
    only: str | None = None,
    crop_seconds: float = 0.0,
    threads: int = 1,
    cohort_file: Path | None = None,
    cohort_top: int = DEFAULT_COHORT_TOP,
) -> list[ModelEvaluation]:
    """EER and minDCF of `model` on trials between utterances below `audio`.

    model: folder of a pre-trained model or an artifact (run by the torch reference), a .pte or .tflite file (run by
    its device engine), or a bundle folder or zip (every model file in it, or the one named `only`). `crop_seconds`
    uses only the first seconds of every utterance; 0: all of it. Where every path begins with a folder, that folder is
    the speaker and the EER's interval resamples speakers; else it resamples trials, and is too narrow by what trials
    of one speaker have in common. With `cohort_file` (see `make_cohort`; of one model, so `model` must be one) scores
    are normalised by AS-Norm.

    Raises InputError naming the file for anything that is missing or not what it should be.
    """
    trials, names = trials_between(audio, trials_file)
    cohort = None if cohort_file is None else read_cohort(cohort_file)
    results = []
    with _subjects(model, only) as subjects:
        if cohort is not None and len(subjects) > 1:
            raise InputError(model, expected="one model, whose cohort it is (--only)", found=f"{len(subjects)}")
        known: dict[FrontEndSpec, Features] = {}
        for subject in subjects:
            if subject.frontend not in known:
                known[subject.frontend] = trial_features(audio, names, subject.frontend, crop_seconds, progress)
            started = time.monotonic()
            embeddings, runtime, kernels = subject.embed(known[subject.frontend], threads, progress)
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
                )
            )
    return results


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
                features = extract_features(taken, spec)
                embeddings, _, _ = subject.embed(features, threads, Progress.silent())
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
    cuts = read_utterances(audio, names, sample_rate_hz=spec.sample_rate_hz, min_seconds=spec.min_seconds)
    if crop_seconds:
        cuts = cuts.truncate(max_duration=crop_seconds, offset_type="start", preserve_id=True)
    with progress.task("features", len(names)) as task:
        return extract_features(cuts, spec, lambda done, total: task.advance())


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
        yield [_engine_subject(model, _manifest_of(model).frontend)]
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
    return [_engine_subject(checked_file(folder, manifest, entry.file), manifest.frontend) for entry in chosen]


def _engine_subject(path: Path, frontend: FrontEndSpec) -> _Subject:
    def embed(features: Features, threads: int, progress: Progress) -> tuple[Embeddings, str, tuple[str, ...]]:
        embeddings, record = embed_with_engine(HostDevice(), path, features, threads=threads, progress=progress)
        return embeddings, f"{record.engine} {record.runtime_version}", record.kernels

    return _Subject(path.name, frontend, embed)


def _torch_subject(path: Path, network: nn.Module, frontend: FrontEndSpec) -> _Subject:
    def embed(features: Features, threads: int, progress: Progress) -> tuple[Embeddings, str, tuple[str, ...]]:
        torch.set_num_threads(threads)
        return embed_in_torch(network, features, progress, "embedding, torch"), f"torch {torch.__version__}", ()

    return _Subject(path.resolve().name, frontend, embed)
