"""Kaldi's log-mel filter bank from its definition, in float64 and slowly: what `fbank` is compared with."""

from __future__ import annotations

import numpy as np

from pipeline.features.spec import FrontEndSpec


def _mel(hz: np.ndarray) -> np.ndarray:
    return 1127.0 * np.log(1.0 + np.asarray(hz, dtype=np.float64) / 700.0)


def _window(name: str, size: int) -> np.ndarray:
    phase = 2 * np.pi * np.arange(size) / (size - 1)
    hann = 0.5 - 0.5 * np.cos(phase)
    return {"hamming": 0.54 - 0.46 * np.cos(phase), "hanning": hann, "povey": hann**0.85}[name]


def reference_fbank(samples: np.ndarray, spec: FrontEndSpec) -> np.ndarray:
    """[samples] -> [frames, mel]."""
    size = int(spec.sample_rate_hz * spec.frame_length_ms / 1000)
    shift = int(spec.sample_rate_hz * spec.frame_shift_ms / 1000)
    fft_size = 1 << (size - 1).bit_length() if spec.round_to_power_of_two else size
    high_hz = spec.high_hz if spec.high_hz > 0 else spec.sample_rate_hz / 2 + spec.high_hz
    edges = np.linspace(_mel(np.array(spec.low_hz)), _mel(np.array(high_hz)), spec.num_mel_bins + 2)
    bins = _mel(np.arange(fft_size // 2) * spec.sample_rate_hz / fft_size)  # the Nyquist bin is left out
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    filters = np.maximum(0.0, np.minimum(rising, falling))
    rows = []
    for start in range(0, len(samples) - size + 1, shift):
        frame = samples[start : start + size].astype(np.float64) * spec.sample_scale
        if spec.remove_dc_offset:
            frame = frame - frame.mean()
        frame = frame - spec.preemphasis * np.concatenate([frame[:1], frame[:-1]])
        spectrum = np.abs(np.fft.rfft(frame * _window(spec.window, size), fft_size))[: fft_size // 2]
        energies = filters @ (spectrum**2 if spec.use_power else spectrum)
        rows.append(np.log(np.maximum(energies, np.finfo(np.float32).eps)) if spec.use_log else energies)
    return np.array(rows)
