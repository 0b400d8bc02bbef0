"""The front end as an op inside a model: a FrontEndSpec as the numbers that both runtimes' `fbank` ops carry."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.features.spec import FrontEndSpec

# Values of FbankWindow in exporters/kernels/frontend/fbank.h.
WINDOWS = ("hamming", "povey", "hanning")


@dataclass(frozen=True)
class FbankNumbers:
    """Attributes of the op `fbank`; sizes in samples, edges in Hz, `flags` a bit for each switch."""

    sample_rate_hz: int
    window_samples: int
    shift_samples: int
    num_mel_bins: int
    sample_scale: float
    preemphasis: float
    low_hz: float
    high_hz: float
    window: int  # index into WINDOWS
    flags: int  # round_to_power_of_two 1, remove_dc_offset 2, use_power 4, use_log 8, mean_normalise 16


def fbank_numbers(spec: FrontEndSpec) -> FbankNumbers:
    """The op's attributes for a front-end specification."""
    return FbankNumbers(
        sample_rate_hz=spec.sample_rate_hz,
        window_samples=spec.window_samples,
        shift_samples=spec.shift_samples,
        num_mel_bins=spec.num_mel_bins,
        sample_scale=spec.sample_scale,
        preemphasis=spec.preemphasis,
        low_hz=spec.low_hz,
        high_hz=spec.high_edge_hz,
        window=WINDOWS.index(spec.window),
        flags=1 * spec.round_to_power_of_two
        + 2 * spec.remove_dc_offset
        + 4 * spec.use_power
        + 8 * spec.use_log
        + 16 * (spec.mean_normalise == "utterance"),
    )
