"""Samples to log-mel features, exactly as a FrontEndSpec says, by kaldi-native-fbank."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import kaldi_native_fbank
import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.features.spec import FILE_NAME, FrontEndSpec
from pipeline.files import read_json


def fbank(samples: NDArray[np.float32], spec: FrontEndSpec) -> NDArray[np.float32]:
    """Log-mel filter bank of an utterance, without mean normalisation: float32 [samples] -> float32 [frames, mel].

    feature[t, m] = log(max(sum_k mel[m, k] |fft(window * preemphasis(dc_removed(sample_scale * x_t)))[k]|^2, eps)),
    with x_t = x[t * shift : t * shift + window], frames = 1 + (samples - window) // shift and eps that of float32.
    A frame depends on its own samples only, so the fbank of x[t * shift :] is the fbank of x from frame t on.

    Raises InputError if the samples are not one row or too few for a frame.
    """
    frames = frames_of(len(samples), spec) if samples.ndim == 1 else 0
    if frames < 1:
        raise InputError("samples", expected=f"one row of at least {spec.window_samples}", found=f"{samples.shape}")
    computer = kaldi_native_fbank.OnlineFbank(_options(spec))
    computer.accept_waveform(spec.sample_rate_hz, samples.astype(np.float32) * np.float32(spec.sample_scale))
    computer.input_finished()
    features = np.empty((frames, spec.num_mel_bins), dtype=np.float32)
    for t in range(frames):
        features[t] = computer.get_frame(t)
    return features


def mean_normalise(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features minus their mean over frames: float32 [frames, mel] -> float32 [frames, mel]. The sum is in float64."""
    mean = features.mean(axis=0, dtype=np.float64)
    normalised: NDArray[np.float32] = (features - mean).astype(np.float32)
    return normalised


def features(samples: NDArray[np.float32], spec: FrontEndSpec) -> NDArray[np.float32]:
    """What a network reads: `mean_normalise(fbank(samples, spec))`, float32 [frames, mel]."""
    return mean_normalise(fbank(samples, spec))


def frames_of(samples: int, spec: FrontEndSpec) -> int:
    """Frames that so many samples give: 1 + (samples - window) // shift, or 0 if they are fewer than a window."""
    return max(0, 1 + (samples - spec.window_samples) // spec.shift_samples)


def samples_of(frames: int, spec: FrontEndSpec) -> int:
    """The fewest samples that give so many frames: (frames - 1) * shift + window."""
    return (frames - 1) * spec.shift_samples + spec.window_samples


def min_frames(spec: FrontEndSpec) -> int:
    """Frames of the shortest utterance that is not refused."""
    return max_frames(spec.min_seconds, spec)


def max_frames(seconds: float, spec: FrontEndSpec) -> int:
    """Frames of an utterance of so many seconds (rounded to a sample)."""
    return frames_of(round(seconds * spec.sample_rate_hz), spec)


def read_spec(path: str | PathLike[str]) -> FrontEndSpec:
    """Front-end specification of a JSON file, or of `frontend.json` in a folder.

    Raises InputError naming the file and the first thing wrong in it: missing, not JSON, an unknown key, a value of the
    wrong type or out of range.
    """
    path = Path(path)
    return read_json(path / FILE_NAME if path.is_dir() else path, FrontEndSpec, what="a front-end specification")


def _options(spec: FrontEndSpec) -> kaldi_native_fbank.FbankOptions:
    options = kaldi_native_fbank.FbankOptions()
    frame = options.frame_opts
    frame.samp_freq = spec.sample_rate_hz
    frame.frame_length_ms = spec.frame_length_ms
    frame.frame_shift_ms = spec.frame_shift_ms
    frame.window_type = spec.window
    frame.round_to_power_of_two = spec.round_to_power_of_two
    frame.snip_edges = spec.snip_edges
    frame.dither = spec.dither
    frame.preemph_coeff = spec.preemphasis
    frame.remove_dc_offset = spec.remove_dc_offset
    mel = options.mel_opts
    mel.num_bins = spec.num_mel_bins
    mel.low_freq = spec.low_hz
    mel.high_freq = spec.high_hz
    options.use_power = spec.use_power
    options.use_log_fbank = spec.use_log
    options.use_energy = spec.use_energy
    return options
