"""Does a bundle run here? Its golden utterance through front end and every model file, on the runtimes at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import safetensors
import safetensors.numpy
from pydantic import BaseModel, ConfigDict

from device_tests.drive.process import HostDevice
from device_tests.drive.run import embed_with_engine
from exporters.bundle.contents import checked_file
from exporters.bundle.manifest import BundledModel, Manifest, golden_key
from pipeline.corpus.audio import read_utterance
from pipeline.errors import InputError, MissingToolError, VerificationError
from pipeline.features.fbank import features
from pipeline.progress import Progress

# Features of the same samples on another processor: sums in another order, far below what an embedding notices.
FBANK_TOLERANCE = 1e-4

_UTTERANCE = "golden"


class GoldenResult(BaseModel):
    """One model file's golden embedding, compared with the one in the bundle."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    outcome: Literal["agrees", "not run"]
    runtime: str | None
    max_relative_error: float | None
    reason: str | None  # why it was not run


def run_golden(folder: Path, manifest: Manifest, progress: Progress) -> list[GoldenResult]:
    """Run every model file of a bundle on its golden utterance, each in a process of its own.

    A runtime that is not here is said so in the result. Raises VerificationError naming the file if features or an
    embedding differ beyond the tolerance, InputError if a golden file is malformed or a model cannot be run.
    """
    spec, golden = manifest.frontend, manifest.golden
    wanted_fbank = _tensors(checked_file(folder, manifest, golden.fbank)).get("fbank")
    wanted = _tensors(checked_file(folder, manifest, golden.embeddings))
    wav = checked_file(folder, manifest, golden.wav)
    samples = read_utterance(wav, spec.sample_rate_hz, spec.min_seconds)
    fbank = features(samples, spec)
    if wanted_fbank is None or wanted_fbank.shape != fbank.shape:
        found = "none" if wanted_fbank is None else str(list(wanted_fbank.shape))
        raise InputError(folder / golden.fbank, expected=f"fbank {list(fbank.shape)}", found=found)
    _compare(folder / golden.wav, "features", fbank, wanted_fbank, FBANK_TOLERANCE)
    results = []
    with progress.task("golden vectors", len(manifest.models)) as task:
        for model in manifest.models:
            key = golden_key(model.label, model.mode)
            reference = wanted.get(key)
            if reference is None:
                raise InputError(folder / golden.embeddings, expected=f"an embedding {key}", found="none")
            taken = wanted_fbank if model.input == "fbank" else samples
            results.append(
                _run_one(checked_file(folder, manifest, model.file), model, taken, reference, golden.tolerance)
            )
            task.note(model.file)
            task.advance()
    return results


def _run_one(
    path: Path, model: BundledModel, taken: np.ndarray, reference: np.ndarray, tolerance: float
) -> GoldenResult:
    try:
        embeddings, record = embed_with_engine(HostDevice(), path, {_UTTERANCE: taken}, progress=Progress.silent())
    except MissingToolError as error:
        return GoldenResult(
            model=model.file, outcome="not run", runtime=None, max_relative_error=None, reason=str(error)
        )
    difference = _compare(path, "embedding", embeddings[_UTTERANCE], reference, tolerance)
    return GoldenResult(
        model=model.file,
        outcome="agrees",
        runtime=f"{record.engine} {record.runtime_version}",
        max_relative_error=difference,
        reason=None,
    )


def _compare(path: Path, what: str, found: np.ndarray, wanted: np.ndarray, tolerance: float) -> float:
    if found.shape != wanted.shape:
        raise VerificationError(f"{path}: expected {what} {list(wanted.shape)}, found {list(found.shape)}")
    error = float(np.abs(found - wanted).max() / np.abs(wanted).max())
    if not error <= tolerance:  # also catches NaN
        raise VerificationError(f"{path}: expected {what} within {tolerance:g} of the golden ones, found {error:.3g}")
    return error


def _tensors(path: Path) -> dict[str, np.ndarray]:
    expected = "a safetensors file of float32 tensors"
    try:
        tensors: dict[str, np.ndarray] = safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(path, expected=expected, found=str(error)) from None
    for name, value in tensors.items():
        if value.dtype != np.float32 or not value.size or not np.isfinite(value).all() or not np.abs(value).max() > 0:
            raise InputError(path, expected=expected, found=f"{name} that is empty, all zero or not finite")
    return tensors
