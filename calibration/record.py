"""Calibrations on disk: a folder with `calibration.json`, its plot, and the cohort if scores are normalised."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

from calibration.llr import LlrMap
from calibration.ranges import Mode
from calibration.threshold import DecisionFlips, FlipBin
from pipeline.files import read_json, write_atomically
from pipeline.scoring.metrics import Interval
from pipeline.scoring.score import Evaluation

CALIBRATION_FILE = "calibration.json"
CALIBRATION_PLOT = "calibration.svg"
COHORT_FILE = "cohort.safetensors"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Subject(_Frozen):
    """What was calibrated: an artifact (all its files in mode `exact` share the calibration) or one model file."""

    name: str
    kind: Literal["artifact", "model file", "pre-trained model"]
    sha256: Sha256 = Field(description="of the artifact's weights, the model file or the pre-trained weights")


class CalibrationTrials(_Frozen):
    """The trials of a calibration."""

    list_sha256: Sha256
    target_trials: PositiveInt
    nontarget_trials: PositiveInt
    utterances: PositiveInt
    speakers: PositiveInt | None = Field(description="None: not known, and intervals resample trials")
    crop_seconds: float | None = Field(default=None, description="utterances were cut to this length; None: whole")


class Threshold(_Frozen):
    """Accept a trial whose score is at least `threshold`. Rates are 0..1; intervals are bootstrap intervals."""

    name: str = Field(description='"eer", "far-1%", "min-dcf-0.01"')
    threshold: float
    threshold_interval: Interval
    threshold_llr: float = Field(description="the threshold as a log-likelihood ratio, natural units")
    false_acceptances: NonNegativeInt
    false_rejections: NonNegativeInt
    far: float | None = Field(description="false acceptance rate; None: fewer than 30 errors do not support one")
    far_interval: Interval | None
    far_needs_trials: int | None = Field(
        description="non-target trials that would support the rate seen here; None: there are enough"
    )
    frr: float = Field(description="false rejection rate")
    frr_interval: Interval


class RefusedRate(_Frozen):
    """A false acceptance rate that the trial list does not support."""

    far: float
    nontarget_trials: int
    needs_trials: int


class PointFlips(_Frozen):
    """Decisions that differ from the reference's, each system at its own threshold of one operating point."""

    point: str
    flips: DecisionFlips
    by_distance: tuple[FlipBin, ...]


class ReferenceFlips(_Frozen):
    """What quantization changed: decisions of the reference (fp32) and of the calibrated system."""

    reference: Subject
    reference_eer: float
    points: tuple[PointFlips, ...]


class GroupFigures(_Frozen):
    """Error rates on the trials of one label of the list."""

    group: str
    target_trials: NonNegativeInt
    nontarget_trials: NonNegativeInt
    evaluation: Evaluation | None = Field(description="None: trials of one class only")


class CohortInfo(_Frozen):
    """The cohort that scores are normalised with (AS-Norm)."""

    sha256: Sha256
    speakers: PositiveInt
    top: PositiveInt


class Calibration(_Frozen):
    """How to read the scores of one artifact or model file (`calibration.json`)."""

    format: Literal["voxpress-calibration"] = "voxpress-calibration"
    format_version: Literal[1] = 1
    created_by: str
    subject: Subject
    mode: Mode = "exact"
    runtime: str
    score: Literal["cosine", "as-norm"]
    cohort: CohortInfo | None
    trials: CalibrationTrials
    evaluation: Evaluation
    llr: LlrMap
    cllr: float = Field(description="bits, on the trials that the map was fitted to")
    cllr_interval: Interval
    cllr_min: float = Field(description="bits, after the best rising map")
    cllr_other_speakers: float | None = Field(
        description="bits, each half of the speakers by the map of the other half; None: too few speakers"
    )
    thresholds: tuple[Threshold, ...]
    refused: tuple[RefusedRate, ...]
    flips: ReferenceFlips | None = None
    groups: tuple[GroupFigures, ...] = ()

    @model_validator(mode="after")
    def _cohort_where_scores_need_one(self) -> Calibration:
        wanted = self.score == "as-norm"
        if (self.cohort is not None) != wanted:
            raise ValueError(f"{self.score} scores {'without' if wanted else 'with'} a cohort")
        return self

    def threshold(self, name: str) -> Threshold | None:
        """The threshold of an operating point; None if the trials do not support it or it was not asked for."""
        return next((point for point in self.thresholds if point.name == name), None)


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write `calibration.json` into a folder."""
    write_atomically(folder / CALIBRATION_FILE, calibration.model_dump_json(indent=1) + "\n")


def read_calibration(folder: Path) -> Calibration:
    """The calibration of a folder. Raises InputError naming the file if it is missing or malformed."""
    return read_json(folder / CALIBRATION_FILE, Calibration, what="a calibration")
