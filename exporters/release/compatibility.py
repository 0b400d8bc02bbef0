"""Whether voices enrolled with one version still work with the next: the record of `voxpress compat`."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from pipeline.scoring.metrics import Interval
from pipeline.scoring.score import Evaluation

Verdict = Literal["compatible", "incompatible", "undecided"]

# How much worse, as a rate, old enrolments may be and still count as working.
DEFAULT_MARGIN = 0.01


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ComparedModel(_Frozen):
    """One side of a comparison."""

    bundle: str = Field(description="name and version")
    model: str = Field(description="the file that embedded the utterances")
    runtime: str


class CrossPoint(_Frozen):
    """What an app meets that keeps old enrolments and takes the new version's threshold."""

    name: str
    threshold: float = Field(description="the new version's")
    far: float | None = Field(description="None: fewer than 30 false acceptances do not support a rate")
    frr: float
    frr_enrolled_anew: float = Field(description="the new version's, enrolment and test both by it")


class Compatibility(_Frozen):
    """Enrolments by OLD scored against tests by NEW."""

    format: Literal["voxpress-compatibility"] = "voxpress-compatibility"
    format_version: Literal[1] = 1
    old: ComparedModel
    new: ComparedModel
    trials_sha256: str
    margin: float
    old_alone: Evaluation
    new_alone: Evaluation
    across: Evaluation | None = Field(description="None: embeddings of different sizes have no cosine")
    loss: Interval | None = Field(
        description="of EER(across) - max(EER(old), EER(new)), on the same resampled trials; None: no cosine"
    )
    cosine_mean: float | None = Field(description="of an utterance's embeddings by old and new")
    points: tuple[CrossPoint, ...]
    verdict: Verdict

    def sentence(self) -> str:
        """The finding on one line."""
        if self.across is None or self.loss is None:
            return "embeddings of different sizes"
        loss = f"{100 * self.loss.low:+.2f} to {100 * self.loss.high:+.2f}"
        return (
            f"old enrolments, new tests: EER {100 * self.across.eer:.2f} % (old {100 * self.old_alone.eer:.2f} %, "
            f"new {100 * self.new_alone.eer:.2f} %), loss {loss} points, margin {100 * self.margin:g}, "
            f"{self.across.target_trials} target and {self.across.nontarget_trials} non-target trials"
        )


def judge(loss: Interval | None, margin: float) -> Verdict:
    """Compatible if the whole interval of the loss is within the margin, incompatible if all of it is beyond."""
    if loss is None:
        return "incompatible"
    if loss.high <= margin:
        return "compatible"
    return "incompatible" if loss.low > margin else "undecided"
