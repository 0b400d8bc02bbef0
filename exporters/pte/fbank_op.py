"""The op `voxpress::fbank` as torch knows it: schema, shape for tracing, and an eager version made of torch's own ops.

Importing this module registers it with its `.out` variant. The formula is that of exporters/kernels/frontend/fbank.h.
"""

from __future__ import annotations

from dataclasses import astuple
from typing import Any

import torch
from torch import Tensor

import exporters.pte.ops  # noqa: F401 - defines the library that this op is added to
from exporters.frontend import FbankNumbers
from exporters.manifest import FBANK_VERSION
from pipeline.errors import InputError

_ARGUMENTS = (
    "Tensor samples, int sample_rate_hz, int window_samples, int shift_samples, int num_mel_bins, float sample_scale, "
    "float preemphasis, float low_hz, float high_hz, int window, int flags, int version"
)

_library: Any = torch.library.Library("voxpress", "FRAGMENT")  # type: ignore[no-untyped-call]


def fbank(samples: Tensor, numbers: FbankNumbers) -> Tensor:
    """Log-mel features of samples through the registered op: [N, samples] -> [N, frames, mel]."""
    features: Tensor = torch.ops.voxpress.fbank(samples, *astuple(numbers), FBANK_VERSION)
    return features


def _fbank(samples: Tensor, *attributes: Any) -> Tensor:
    *values, version = attributes
    if version != FBANK_VERSION:
        raise InputError("voxpress::fbank", expected=f"op version {FBANK_VERSION}", found=str(version))
    numbers = FbankNumbers(*values)
    size, flags = numbers.window_samples, numbers.flags
    fft_size = 1 << (size - 1).bit_length() if flags & 1 else size
    frames = samples.double().unfold(1, size, numbers.shift_samples) * numbers.sample_scale
    if flags & 2:
        frames = frames - frames.mean(-1, keepdim=True)
    frames = frames - numbers.preemphasis * torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
    spectrum = torch.fft.rfft(frames * _window(numbers), fft_size).abs()[..., : fft_size // 2]
    mel = (spectrum.square() if flags & 4 else spectrum) @ _filters(numbers, fft_size)
    if flags & 8:
        mel = mel.clamp_min(torch.finfo(torch.float32).eps).log()
    features: Tensor = (mel - mel.mean(1, keepdim=True) if flags & 16 else mel).float()
    return features


def _window(numbers: FbankNumbers) -> Tensor:
    cosine = (
        torch.arange(numbers.window_samples, dtype=torch.float64) * 2 * torch.pi / (numbers.window_samples - 1)
    ).cos()
    return (0.54 - 0.46 * cosine, (0.5 - 0.5 * cosine) ** 0.85, 0.5 - 0.5 * cosine)[numbers.window]


def _filters(numbers: FbankNumbers, fft_size: int) -> Tensor:
    """Triangles [fft_size // 2, mel]."""

    def mel(hz: Tensor) -> Tensor:
        return 1127.0 * (1.0 + hz.double() / 700.0).log()

    low, high = mel(torch.tensor([numbers.low_hz, numbers.high_hz]))
    edges = low + (high - low) * torch.arange(numbers.num_mel_bins + 2) / (numbers.num_mel_bins + 1)
    bins = mel(torch.arange(fft_size // 2) * numbers.sample_rate_hz / fft_size)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0.0)


def _fbank_out(samples: Tensor, *attributes: Any, out: Tensor) -> Tensor:
    y = _fbank(samples, *attributes)
    return out.resize_(y.shape).copy_(y)


def _fbank_fake(
    samples: Tensor, sample_rate_hz: int, window_samples: int, shift_samples: int, num_mel_bins: int, *_: Any
) -> Tensor:
    # Stays symbolic in the number of samples.
    frames = 1 + (samples.shape[1] - window_samples) // shift_samples
    return samples.new_empty((samples.shape[0], frames, num_mel_bins))


def _register() -> None:
    _library.define(f"fbank({_ARGUMENTS}) -> Tensor")
    _library.define(f"fbank.out({_ARGUMENTS}, *, Tensor(a!) out) -> Tensor(a!)")
    _library.impl("fbank", _fbank, "CPU")
    _library.impl("fbank.out", _fbank_out, "CPU")
    torch.library.register_fake("voxpress::fbank", _fbank_fake, lib=_library)


_register()
