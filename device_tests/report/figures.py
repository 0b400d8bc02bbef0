"""The figures of a report: every number it shows, computed from the raw records, and what limits its worth."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from calibration.ranges import Mode
from calibration.threshold import DecisionFlips
from device_tests.records import (
    BundleIdentity,
    DeviceClass,
    Embedding,
    Environment,
    MachineState,
    ModelFormat,
    ModelRun,
    Protocol,
)
from device_tests.report.decision import ScoreKind
from exporters.manifest import Lowering, ModelInput
from pipeline.errors import InputError
from pipeline.scoring.metrics import Interval
from pipeline.scoring.score import Evaluation

# Below these a median says little; they make notes, not errors.
FEW_RUNS, FEW_ROUNDS = 30, 3
WIDE_SPREAD, WIDE_ROUNDS = 1.25, 1.10
FEW_TARGETS = 200


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Parity(_Frozen):
    """How near embeddings are to those of a reference, over all utterances."""

    cosine_mean: float
    cosine_min: float
    worst_utterance: str = Field(description="the one of the lowest cosine")
    max_relative_error: float = Field(description="largest of max|x - reference| / max|reference|")


class Difference(_Frozen):
    """How much worse the device's error rates are than a reference's on the same trials, with paired intervals."""

    eer: float = Field(description="EER of the device - EER of the reference")
    eer_interval: Interval
    min_dcf: float
    min_dcf_interval: Interval


class Latency(_Frozen):
    """Timed runs of one model; quantiles by nearest rank over all rounds."""

    runs: int
    p50_ns: int
    p90_ns: int
    p99_ns: int
    round_medians_ns: tuple[int, ...]
    ratio: float | None = Field(description="median over rounds of (median / median of the control); None: no control")
    ratio_low: float | None = Field(description="lowest of the rounds")
    ratio_high: float | None


class Memory(_Frozen):
    """Medians over rounds, but the highest peak. Growth is from just before the model was loaded."""

    load_growth_bytes: int
    run_growth_bytes: int
    resident_bytes: int
    peak_bytes: int


class Conditions(_Frozen):
    """What the machine was like while the timings were made; None: it does not say."""

    thermal_rise_celsius: float | None = Field(description="of the hottest zone, from before to after, the largest")
    hottest_celsius: float | None
    clock_share: float | None = Field(description="lowest clock after a process as a share of its core's highest")
    governor: str | None


class ModelFigures(_Frozen):
    """One model file's line in every table."""

    file: str
    sha256: str
    bits: str
    format: ModelFormat
    lowering: Lowering
    mode: Mode = "exact"
    input: ModelInput = "fbank"
    is_control: bool
    file_bytes: int
    size_ratio: float | None = Field(description="to the fp32 twin of the same format; None: there is none")
    device: Evaluation
    artifact: Evaluation | None = Field(description="the same weights decoded and run in torch")
    reference_parity: Parity
    artifact_parity: Parity | None
    to_reference: Difference = Field(
        description="to the reference, the fp32 network if there is one: what pressing cost"
    )
    to_artifact: Difference | None = Field(description="to the decoded artifact: what the runtime and device add")
    golden_relative_error: float | None = Field(default=None, description="of the embedding of the golden features")
    calibrated_score: ScoreKind | None = Field(
        default=None,
        description="what the bundle's threshold is of; None: it has none, and that of an EER here is used",
    )
    flips: DecisionFlips = Field(
        description="against the reference, both at the bundle's threshold of cosines, or else at the reference's EER"
    )
    artifact_flips: DecisionFlips | None = Field(
        description="against the decoded artifact, both at the bundle's threshold, or else at the artifact's EER"
    )
    conditions: Conditions
    latency: Latency
    load_ns: int = Field(description="median over rounds")
    first_ns: int = Field(description="median over rounds")
    memory: Memory
    runtime: str
    kernels: tuple[str, ...]
    delegates: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def variant(self) -> str:
        """What limits go by: label, then mode and input where they are not the usual, then format: "4bit.fast.pte"."""
        words = [self.bits, self.mode, self.input, self.format]
        return ".".join(word for word in words if word not in ("exact", "fbank"))


class Report(_Frozen):
    """Everything a report says (`report.json`)."""

    schema_version: Literal[1] = 1
    title: str
    created_at: datetime
    device: str
    started_at: datetime
    environment: Environment
    protocol: Protocol
    device_class: DeviceClass = "host"
    latency_valid: bool = True
    bundle: BundleIdentity | None = None
    front_end_difference: float | None = Field(
        default=None, description="largest |features made here of the golden wav - the bundle's golden features|"
    )
    trials_sha256: str = Field(default="", description="of the trials, as sorted lines `<0 or 1> <enrolment> <test>`")
    reference: Evaluation
    reference_label: str = Field(default="fp32", description="the label of what all files are compared with")
    models: tuple[ModelFigures, ...]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...]


def parity(embeddings: Mapping[str, Embedding], reference: Mapping[str, Embedding], *, name: str) -> Parity:
    """Cosine and relative error of embeddings [E] to those of a reference, utterance by utterance.

    Raises InputError, beginning with `name`, if the utterances or the lengths differ or a reference is all zero.
    """
    strangers = sorted(set(embeddings) ^ set(reference))
    if strangers or not reference:
        found = f"{strangers[0]!r} in only one of them" if strangers else "none"
        raise InputError(name, expected=f"the {len(reference)} utterances of its reference", found=found)
    cosines: dict[str, float] = {}
    worst_error = 0.0
    for utterance, expected in sorted(reference.items()):
        a, b = np.asarray(embeddings[utterance], np.float64), np.asarray(expected, np.float64)
        if a.shape != b.shape or a.ndim != 1:
            raise InputError(name, expected=f"an embedding {b.shape} of {utterance!r}", found=f"{a.shape}")
        scale = float(np.linalg.norm(a) * np.linalg.norm(b))
        if not (math.isfinite(scale) and scale > 0):
            raise InputError(
                name, expected=f"finite embeddings of {utterance!r} that are not zero", found=f"|a||b| = {scale}"
            )
        cosines[utterance] = min(1.0, max(-1.0, float(a @ b) / scale))
        worst_error = max(worst_error, float(np.abs(a - b).max() / np.abs(b).max()))
    worst = min(cosines, key=lambda utterance: cosines[utterance])
    return Parity(
        cosine_mean=statistics.fmean(cosines.values()),
        cosine_min=cosines[worst],
        worst_utterance=worst,
        max_relative_error=worst_error,
    )


def latency(model: ModelRun, control: ModelRun | None) -> Latency:
    """Quantiles of a model's timings, and their ratio to the control's, round by round."""
    medians = _round_medians(model)
    ratios = [own / other for own, other in zip(medians, _round_medians(control), strict=True)] if control else []
    return Latency(
        runs=len(model.latency_ns),
        p50_ns=quantile(model.latency_ns, 0.50),
        p90_ns=quantile(model.latency_ns, 0.90),
        p99_ns=quantile(model.latency_ns, 0.99),
        round_medians_ns=medians,
        ratio=statistics.median(ratios) if ratios else None,
        ratio_low=min(ratios, default=None),
        ratio_high=max(ratios, default=None),
    )


def memory(model: ModelRun) -> Memory:
    """Resident and peak memory over the rounds for speed, which hold one utterance and no embeddings."""
    rounds = model.rounds
    return Memory(
        load_growth_bytes=_median(r.resident_after_load_bytes - r.resident_before_bytes for r in rounds),
        run_growth_bytes=_median(r.resident_after_run_bytes - r.resident_before_bytes for r in rounds),
        resident_bytes=_median(r.resident_after_run_bytes for r in rounds),
        peak_bytes=max(r.peak_bytes for r in rounds),
    )


def conditions(model: ModelRun) -> Conditions:
    """Heat and clocks over the processes that were timed."""
    pairs = [(_hottest(record.before), _hottest(record.after)) for record in model.rounds]
    rises = [after - before for before, after in pairs if before is not None and after is not None]
    shares = [
        now / most
        for record in model.rounds
        for now, most in zip(record.after.clock_hz, record.after.max_clock_hz, strict=False)
    ]
    governors = sorted({record.before.governor for record in model.rounds if record.before.governor})
    return Conditions(
        thermal_rise_celsius=max(rises, default=None),
        hottest_celsius=max((after for _, after in pairs if after is not None), default=None),
        clock_share=min(shares, default=None),
        governor=", ".join(governors) or None,
    )


def size_twin(model: ModelRun, models: Sequence[ModelRun]) -> ModelRun | None:
    """The fp32 file that a size is compared with: the control of the format, else its one fp32 file."""
    same = [other for other in models if other.format == model.format]
    twins = [other for other in same if other.is_control] or [other for other in same if other.bits == "fp32"]
    return twins[0] if twins else None


def model_notes(model: ModelRun, figures: Latency, *, has_artifact: bool) -> tuple[str, ...]:
    """What limits the worth of a model's figures; empty if nothing does."""
    notes = []
    if figures.runs < FEW_RUNS or len(model.rounds) < FEW_ROUNDS:
        notes.append(f"few timings: {figures.runs} runs in {len(model.rounds)} rounds")
    if figures.p90_ns > WIDE_SPREAD * figures.p50_ns:
        notes.append(f"timings spread widely: p90 is {figures.p90_ns / figures.p50_ns:.2f} times p50")
    lowest, highest = min(figures.round_medians_ns), max(figures.round_medians_ns)
    if highest > WIDE_ROUNDS * lowest:
        notes.append(f"rounds disagree: the slowest median is {highest / lowest:.2f} times the fastest")
    if figures.ratio is None:
        notes.append(f"control missing: no fp32 control of format .{model.format} ran, so there is no latency ratio")
    if model.lowering == "voxpress" and not model.kernels:
        notes.append("no VoxPress kernel ran, though the file is made of VoxPress ops")
    if not has_artifact:
        notes.append(f"no embeddings of the decoded artifact {model.bits!r} to compare with")
    return tuple(notes)


def quantile(samples: Sequence[int], share: float) -> int:
    """The smallest sample that at least `share` of all samples do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _hottest(state: MachineState) -> float | None:
    # Zones that are not wired up say 0, or minus hundreds.
    celsius = [value / 1000 for value in state.temperature_mc.values()]
    return max((value for value in celsius if 0 < value < 150), default=None)


def _round_medians(model: ModelRun) -> tuple[int, ...]:
    return tuple(quantile(record.latency_ns, 0.5) for record in model.rounds)


def _median(values: Iterable[int]) -> int:
    return round(statistics.median(values))
