"""What models take of a run's utterances, as the files that engines read: features, samples, and what is timed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save

from exporters.manifest import ModelInput
from pipeline.errors import InputError
from pipeline.features.fbank import samples_of
from pipeline.features.spec import FrontEndSpec
from pipeline.files import write_atomically

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Waveform:
    """Samples float32 [S] by utterance, and the front end that makes their features."""

    samples: Mapping[str, Values]
    frontend: FrontEndSpec


def input_file(model_input: ModelInput, *, speed: bool) -> str:
    """Name of the file that models of an input are run on: every utterance, or only the one that is timed."""
    what = "features" if model_input == "fbank" else "samples"
    return f"speed-{what}.safetensors" if speed else f"{what}.safetensors"


def write_inputs(folder: Path, features: Mapping[str, Values], waveform: Waveform | None, *, speed_frames: int) -> None:
    """Write all input files. What is timed lies in a file of its own, to keep the engines' memory clean.

    features: float32 [frames, mel] by utterance.
    """
    _write(folder, "fbank", features, speed_frames)
    if waveform is not None:
        _write(folder, "waveform", waveform.samples, samples_of(speed_frames, waveform.frontend))


def check_features(features: Mapping[str, Values]) -> None:
    """Raise InputError unless there is at least one utterance and all are float32 [frames, mel] of one mel."""
    if not features:
        raise InputError("features", expected="at least one utterance", found="none")
    mel: int | None = None
    for utterance, value in sorted(features.items()):
        mel = value.shape[1] if mel is None and value.ndim == 2 else mel
        if value.dtype != np.float32 or value.ndim != 2 or value.shape[1] != mel or value.size == 0:
            expected = f"float32 [frames, {mel if mel is not None else 'mel'}]"
            raise InputError(f"features of {utterance!r}", expected=expected, found=f"{value.dtype} {value.shape}")


def check_samples(samples: Mapping[str, Values]) -> None:
    """Raise InputError unless there is at least one utterance and all are float32 [S]."""
    if not samples:
        raise InputError("samples", expected="at least one utterance", found="none")
    for utterance, value in sorted(samples.items()):
        if value.dtype != np.float32 or value.ndim != 1 or value.size == 0:
            raise InputError(f"samples of {utterance!r}", expected="float32 [S]", found=f"{value.dtype} {value.shape}")


def check_inputs(features: Mapping[str, Values], waveform: Waveform | None, wanted: set[ModelInput]) -> None:
    """Raise InputError unless there is what models of the `wanted` inputs take, of the same utterances."""
    check_features(features)
    if waveform is not None:
        check_samples(waveform.samples)
        if waveform.samples.keys() != features.keys():
            stranger = min(waveform.samples.keys() ^ features.keys())
            raise InputError("samples", expected="samples and features of the same utterances", found=repr(stranger))
    elif "waveform" in wanted:
        raise InputError("samples", expected="samples, for a model that takes them", found="features only")


def cut_for_speed(inputs: Mapping[str, Values], rows: int) -> Values:
    """What models are timed on: the first utterance, by name, with at least `rows` frames or samples, cut to these.

    If none is long enough, the first utterance repeated. inputs: [frames, mel] or [S] by utterance.
    """
    names = sorted(inputs)
    name = next((name for name in names if len(inputs[name]) >= rows), names[0])
    chosen = inputs[name]
    repeats = -(-rows // len(chosen))
    return np.ascontiguousarray(np.concatenate([chosen] * repeats)[:rows])


def features_digest(features: Mapping[str, Values]) -> str:
    """Hex sha256 over names, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for utterance, value in sorted(features.items()):
        sizes = " ".join(map(str, value.shape))
        digest.update(f"{len(utterance.encode())} {utterance} {sizes}\n".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    return digest.hexdigest()


def contiguous(inputs: Mapping[str, Values]) -> dict[str, Values]:
    """The same as arrays of their own: safetensors writes the bytes of a view's base, not of the view."""
    return {utterance: np.ascontiguousarray(value) for utterance, value in inputs.items()}


def _write(folder: Path, model_input: ModelInput, inputs: Mapping[str, Values], rows: int) -> None:
    write_atomically(folder / input_file(model_input, speed=False), save(contiguous(inputs)))
    speed = {"speed": cut_for_speed(inputs, rows)}
    write_atomically(folder / input_file(model_input, speed=True), save(speed))
