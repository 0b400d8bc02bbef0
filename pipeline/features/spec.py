"""The front-end specification: every option that turns samples into features. It travels with every model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

FILE_NAME = "frontend.json"


class FrontEndSpec(BaseModel):
    """Log-mel filter bank as Kaldi computes it, one fixed set of options, all of them written out.

    features = log(mel(|fft(window(preemphasis(dc_removed(sample_scale * x))))|^2)) - mean over the utterance's frames
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    sample_rate_hz: Annotated[int, Field(ge=8000, le=48000)] = 16000
    sample_scale: float = 32768.0  # samples arrive in [-1, 1); Kaldi's models expect the int16 range
    frame_length_ms: float = 25.0
    frame_shift_ms: float = 10.0
    window: Literal["hamming", "povey", "hanning"] = "hamming"
    round_to_power_of_two: bool = True
    snip_edges: bool = True
    dither: float = 0.0
    preemphasis: float = 0.97
    remove_dc_offset: bool = True
    num_mel_bins: Annotated[int, Field(ge=1, le=256)] = 80
    low_hz: float = 20.0
    high_hz: float = 0.0  # 0: up to half the sample rate
    use_power: bool = True
    use_log: bool = True
    use_energy: bool = False
    mean_normalise: Literal["utterance"] = "utterance"
    min_seconds: float = 0.3  # shorter utterances are refused: too few frames for a standard deviation

    def write(self, folder: Path) -> None:
        """Write the specification as `frontend.json` into `folder`."""
        (folder / FILE_NAME).write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
