"""Activation ranges: which real numbers the 256 values of every u8 activation stand for (`activations.json`).

An activation x is kept as the byte q = clamp(round(x / scale) + zero, 0, 255) and read back as scale * (q - zero), one
scale and zero for each tensor of an artifact's program. Ranges are widened to take in 0, so that 0, which padding and
ReLU make, is exactly the byte `zero`; after a ReLU, zero is 0.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from pipeline.artifact.store import LoadedArtifact
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.files import read_json, write_atomically

ACTIVATIONS_FILE = "activations.json"
MIN_UTTERANCES = 4
LEVELS = 255  # steps between the 256 values of a byte

Mode = Literal["exact", "fast"]  # arithmetic: fp32 activations; u8 activations where there are many
RangeMethod = Literal["min-max", "percentile", "mse"]

Finite = Annotated[float, Field(allow_inf_nan=False)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RangeChoice(_Frozen):
    """How a range is chosen from the values seen.

    min-max: all of them. percentile: all but 100 - `percentile` per cent at each end. mse: the range of the least mean
    squared error, clipped values and the rounding error scale^2 / 12 of the others taken together.
    """

    method: RangeMethod = "percentile"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99  # of method percentile only


class TensorRange(_Frozen):
    """One tensor: the smallest and the largest value seen, and the byte's scale and zero."""

    minimum: Finite
    maximum: Finite
    scale: Annotated[float, Field(gt=0, le=3e38, allow_inf_nan=False)]
    zero: Annotated[int, Field(ge=0, le=LEVELS)]


class ActivationRanges(_Frozen):
    """The ranges of an artifact's tensors (`activations.json`), and what they were measured on."""

    format: Literal["voxpress-activations"] = "voxpress-activations"
    format_version: Literal[1] = 1
    artifact: str
    artifact_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    frontend: FrontEndSpec
    utterances: PositiveInt
    frames: PositiveInt
    choice: RangeChoice
    tensors: dict[str, TensorRange]

    @model_validator(mode="after")
    def _enough(self) -> ActivationRanges:
        if self.utterances < MIN_UTTERANCES:
            raise ValueError(f"measured on {self.utterances} utterances, fewer than {MIN_UTTERANCES}")
        return self


def tensor_range(minimum: float, maximum: float, low: float, high: float) -> TensorRange:
    """Scale and zero for bytes over [low, high], widened to take in 0: scale = (high - low) / 255 as a float32.

    zero = round(-low / scale). A range of 0 to 0 takes scale 1: all its values are 0.
    """
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float32((high - low) / LEVELS))
    if scale == 0:
        scale = 1.0
    zero = min(LEVELS, max(0, round(-low / scale)))
    return TensorRange(minimum=minimum, maximum=maximum, scale=scale, zero=zero)


def write_ranges(path: Path, ranges: ActivationRanges) -> None:
    """Write ranges as readable JSON, one line for each tensor's number."""
    write_atomically(path, ranges.model_dump_json(indent=1) + "\n")


def read_ranges(path: Path, artifact: LoadedArtifact) -> ActivationRanges:
    """Ranges of an artifact.

    Raises InputError naming the file if it is missing or malformed, or was measured on another artifact or front end.
    """
    ranges = read_json(path, ActivationRanges, what="an artifact's activation ranges")
    if ranges.artifact_sha256 != artifact.sha256:
        expected = f"ranges of {artifact.header.name}, sha256 {artifact.sha256[:12]}"
        raise InputError(path, expected=expected, found=f"those of {ranges.artifact}, {ranges.artifact_sha256[:12]}")
    if ranges.frontend != artifact.header.frontend:
        raise InputError(path, expected="ranges measured on the artifact's front end", found="another front end")
    return ranges
