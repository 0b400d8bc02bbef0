"""The front-end specification: every option that turns samples into features. It travels with every model."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, model_validator

FILE_NAME = "frontend.json"

_Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Positive = Annotated[float, Field(strict=True, allow_inf_nan=False, gt=0)]
_NotNegative = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=0)]


class FrontEndSpec(BaseModel):
    """Log-mel filter bank as Kaldi computes it, one fixed set of options, all of them written out.

    features = log(mel(|fft(window(preemphasis(dc_removed(sample_scale * x))))|^2)) - mean over the utterance's frames

    Options with a single allowed value are written out because Kaldi's readers ask for them. Dither would make
    features differ from run to run, snip_edges = false would make the first frames depend on reflected samples (so that
    a training crop could not be computed from its own samples), and an energy column would be an extra "mel bin".
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample_rate_hz: Annotated[StrictInt, Field(ge=8000, le=48000)] = 16000
    sample_scale: _Positive = 32768.0  # samples arrive in [-1, 1); Kaldi's models expect the int16 range
    frame_length_ms: Annotated[_Positive, Field(le=1000)] = 25.0
    frame_shift_ms: Annotated[_Positive, Field(le=1000)] = 10.0
    window: Literal["hamming", "povey", "hanning"] = "hamming"
    round_to_power_of_two: StrictBool = True
    snip_edges: Literal[True] = True
    dither: Annotated[_NotNegative, Field(le=0)] = 0.0
    preemphasis: Annotated[_NotNegative, Field(le=1)] = 0.97
    remove_dc_offset: StrictBool = True
    num_mel_bins: Annotated[StrictInt, Field(ge=3, le=256)] = 80  # kaldi-native-fbank takes no fewer
    low_hz: _NotNegative = 20.0
    high_hz: _Real = 0.0  # 0: up to half the sample rate; negative: that far below it
    use_power: StrictBool = True
    use_log: StrictBool = True
    use_energy: Literal[False] = False
    mean_normalise: Literal["utterance"] = "utterance"
    min_seconds: _Positive = 0.3  # shorter utterances are refused: too few frames for a standard deviation

    @model_validator(mode="after")
    def _consistent(self) -> FrontEndSpec:
        half = self.sample_rate_hz / 2
        if not self.low_hz < self.high_edge_hz <= half:
            raise ValueError(f"mel range {self.low_hz} to {self.high_edge_hz} Hz does not lie within 0 to {half} Hz")
        if self.shift_samples < 1:
            raise ValueError(f"frame_shift_ms {self.frame_shift_ms} is less than a sample")
        if round(self.min_seconds * self.sample_rate_hz) < self.window_samples:
            raise ValueError(f"min_seconds {self.min_seconds} is shorter than a frame")
        if self.fft_size % 2:
            raise ValueError(f"a frame of {self.fft_size} samples: the FFT takes an even number")
        empty = self._empty_mel_bin()
        if empty is not None:
            raise ValueError(f"num_mel_bins {self.num_mel_bins}: no frequency of the FFT lies in bin {empty}")
        return self

    @property
    def window_samples(self) -> int:
        """Samples of a frame, rounded down as Kaldi does."""
        return int(self.sample_rate_hz * 0.001 * self.frame_length_ms)

    @property
    def shift_samples(self) -> int:
        """Samples from one frame to the next, rounded down as Kaldi does."""
        return int(self.sample_rate_hz * 0.001 * self.frame_shift_ms)

    @property
    def fft_size(self) -> int:
        """Samples that the FFT takes: a frame, with zeros behind it up to a power of two."""
        return 1 << (self.window_samples - 1).bit_length() if self.round_to_power_of_two else self.window_samples

    @property
    def high_edge_hz(self) -> float:
        """Upper edge of the last mel bin in Hz."""
        return self.high_hz if self.high_hz > 0 else self.sample_rate_hz / 2 + self.high_hz

    def _empty_mel_bin(self) -> int | None:
        """The first mel bin that would always be zero, if there is one; kaldi-native-fbank refuses such."""
        half = self.fft_size // 2
        frequencies = [_mel(k * self.sample_rate_hz / self.fft_size) for k in range(half)]
        low, high = _mel(self.low_hz), _mel(self.high_edge_hz)
        edges = [low + (high - low) * m / (self.num_mel_bins + 1) for m in range(self.num_mel_bins + 2)]
        for m in range(self.num_mel_bins):
            if bisect_right(frequencies, edges[m]) >= bisect_left(frequencies, edges[m + 2]):
                return m
        return None

    def write(self, folder: Path) -> None:
        """Write the specification as `frontend.json` into `folder`."""
        (folder / FILE_NAME).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")


def _mel(hz: float) -> float:
    return 1127.0 * math.log1p(hz / 700.0)
