"""The figures of a sweep: what every setting gave, over seeds, and what that says about the method's claims.

Rates and differences of rates are 0..1. A difference is EER(setting) - EER(other), of the same seed and trials; below 0
the setting is the better one.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from scipy.stats import t as student_t

from device_tests.records import ModelFormat
from device_tests.report.figures import FEW_TARGETS
from pipeline.scoring.metrics import Interval, percentile_interval
from pipeline.scoring.score import Evaluation

Float64 = npt.NDArray[np.float64]
Family = Literal["fp32", "uniform", "mixed", "msft", "other order", "binary"]
Verdict = Literal["shown", "not shown", "undecided"]

LEVEL = 0.95
FEW_SEEDS = 3
# Below so many speakers a resample of them has too few outcomes for its percentiles to mean what they say.
FEW_SPEAKERS = 10
# What counts as lossless, and as a ratio of about 8. Fixed here for every corpus and network.
LOSSLESS_POINTS = 0.003  # of EER above that of fp32
RATIO_OF_FOUR_BITS = (7.2, 8.8)
FP32, FOUR_BIT = "fp32", "4bit"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrialList(_Frozen):
    """A list of trials that every setting of every seed was scored on."""

    key: str
    name: str = Field(description="for people")
    target_trials: int
    nontarget_trials: int
    utterances: int
    speakers: int | None = Field(description="None: not known, so that intervals resample trials")


class Size(_Frozen):
    """The artifact of one seed."""

    seed: int
    bits_per_weight: float
    artifact_bytes: int = Field(description="of its tensors: codes, palettes, scales, biases, float weights")


class SeedResult(_Frozen):
    """One seed's network on one trial list."""

    seed: int
    evaluation: Evaluation
    cosine_mean: float = Field(description="of embeddings to those of the seed's fp32 network, over utterances")
    cosine_min: float


class Spread(_Frozen):
    """Over seeds."""

    mean: float
    std: float | None = Field(description="of the sample (n - 1); None: one seed")


class ListResult(_Frozen):
    """A setting on one trial list."""

    trial_list: str
    seeds: tuple[SeedResult, ...]
    eer: Spread
    min_dcf: Spread
    cosine: Spread


class SettingFigures(_Frozen):
    """One line of the tables."""

    label: str
    family: Family
    finetune_steps: int = Field(description="of all groups together")
    sizes: tuple[Size, ...]
    size_ratio: float = Field(description="artifact bytes to fp32's, first seed")
    file_bytes: dict[ModelFormat, int] = Field(description="of the first seed's verified model files")
    results: tuple[ListResult, ...]

    @property
    def size(self) -> Size:
        """The artifact of the first seed, whose model files were written."""
        return self.sizes[0]

    def on(self, trial_list: str) -> ListResult:
        """The result on a trial list."""
        return next(result for result in self.results if result.trial_list == trial_list)


class SeedInterval(_Frozen):
    """mean +- t s / sqrt(n) over n seeds, s the sample standard deviation, t Student's for n - 1."""

    low: float
    high: float


class Difference(_Frozen):
    """EER(setting) - EER(other) on one trial list."""

    setting: str
    other: str
    trial_list: str
    per_seed: tuple[float, ...]
    mean: float
    over_seeds: SeedInterval | None = Field(description="None: one seed")
    over_trials: Interval = Field(description="bootstrap of the mean over seeds, all seeds on the same resample")


class Claim(_Frozen):
    """A claim of the method and whether this corpus shows it."""

    statement: str
    trial_list: str | None = Field(description="None: a claim about sizes")
    verdict: Verdict
    evidence: str


class LayerFigures(_Frozen):
    """A layer, in execution order; tuples are over seeds."""

    name: str
    weights: int
    trace: tuple[float, ...] = Field(description="mean Hessian trace")
    penalty: dict[int, tuple[float, ...]] = Field(description="trace times squared rounding error, by width")
    widths: dict[str, tuple[int, ...]] = Field(description="planned, by setting")


class Sweep(_Frozen):
    """Everything a sweep says (`sweep.json`)."""

    schema_version: Literal[1] = 1
    title: str
    created_at: datetime
    tools: dict[str, str]
    recipe: dict[str, Any] = Field(description="of the first seed, with the sweep's settings")
    seeds: tuple[int, ...]
    trial_lists: tuple[TrialList, ...]
    settings: tuple[SettingFigures, ...]
    differences: tuple[Difference, ...]
    claims: tuple[Claim, ...]
    layers: tuple[LayerFigures, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Measurement:
    """A seed's result and the EER of every bootstrap resample [draws], which are the same for all of a trial list."""

    result: SeedResult
    eer_values: Float64


@dataclass(frozen=True)
class MeasuredSetting:
    """What was measured of a setting; sequences are over the seeds, in one order."""

    label: str
    family: Family
    finetune_steps: int
    sizes: Sequence[Size]
    file_bytes: Mapping[ModelFormat, int]
    measurements: Mapping[str, Sequence[Measurement]]  # by trial list


@dataclass(frozen=True)
class Comparison:
    """Two settings whose difference is a claim: the first has a lower EER, or (lossless) not a notably higher one."""

    setting: str
    other: str
    statement: str
    lossless: bool = False


@dataclass(frozen=True)
class SweepSubject:
    """What was swept."""

    title: str
    recipe: Mapping[str, Any]
    tools: Mapping[str, str]
    seeds: Sequence[int]
    notes: Sequence[str]


def summarise(
    subject: SweepSubject,
    measured: Sequence[MeasuredSetting],
    comparisons: Sequence[Comparison],
    *,
    list_names: Mapping[str, str],
    layers: Sequence[LayerFigures],
) -> Sweep:
    """All figures of a sweep from what was measured; `fp32` is among the settings.

    list_names: names of the trial lists by key, in the order of the tables.
    """
    by_label = {setting.label: setting for setting in measured}
    fp32_bytes = by_label[FP32].sizes[0].artifact_bytes
    settings = tuple(_setting_figures(setting, list_names, fp32_bytes) for setting in measured)
    differences = tuple(
        _difference(by_label[comparison.setting], by_label[comparison.other], key)
        for key in list_names
        for comparison in comparisons
    )
    lists = tuple(_trial_list(key, name, by_label[FP32]) for key, name in list_names.items())
    return Sweep(
        title=subject.title,
        created_at=datetime.now(UTC),
        tools=dict(subject.tools),
        recipe=dict(subject.recipe),
        seeds=tuple(subject.seeds),
        trial_lists=lists,
        settings=settings,
        differences=differences,
        claims=(*_accuracy_claims(settings, differences, comparisons), *_size_claims(settings)),
        layers=tuple(layers),
        notes=(*subject.notes, *_notes(subject.seeds, lists)),
    )


def spread(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation."""
    return Spread(mean=statistics.fmean(values), std=statistics.stdev(values) if len(values) > 1 else None)


def seed_interval(values: Sequence[float]) -> SeedInterval | None:
    """Student's 95 % interval of the mean of independent values; None for a single one."""
    count = len(values)
    if count < 2:
        return None
    mean, half = statistics.fmean(values), statistics.stdev(values) / math.sqrt(count)
    half *= float(student_t.ppf((1 + LEVEL) / 2, count - 1))
    return SeedInterval(low=mean - half, high=mean + half)


def judge(difference: Difference, limit: float, *, inclusive: bool, speakers: int | None) -> Verdict:
    """Whether the difference lies below `limit` (`inclusive`: at or below).

    Shown if both intervals, over seeds and over trials, lie on that side; not shown if both lie on the other; else, and
    with a single seed or fewer than 10 speakers (None: not known) in the trials, undecided.
    """
    if difference.over_seeds is None or (speakers is not None and speakers < FEW_SPEAKERS):
        return "undecided"
    intervals = (difference.over_seeds, difference.over_trials)
    highest, lowest = max(one.high for one in intervals), min(one.low for one in intervals)
    if highest < limit or (inclusive and highest == limit):
        return "shown"
    if lowest > limit or (not inclusive and lowest == limit):
        return "not shown"
    return "undecided"


def pareto_front(settings: Sequence[SettingFigures], trial_list: str) -> list[SettingFigures]:
    """The settings than which none is both smaller (or as small) and better, by size; the first seed's bytes count."""
    front: list[SettingFigures] = []
    for setting in sorted(settings, key=lambda one: (one.size.artifact_bytes, one.on(trial_list).eer.mean)):
        if not front or setting.on(trial_list).eer.mean < front[-1].on(trial_list).eer.mean:
            front.append(setting)
    return front


def _setting_figures(setting: MeasuredSetting, lists: Mapping[str, str], fp32_bytes: int) -> SettingFigures:
    results = []
    for key in lists:
        seeds = tuple(measurement.result for measurement in setting.measurements[key])
        results.append(
            ListResult(
                trial_list=key,
                seeds=seeds,
                eer=spread([one.evaluation.eer for one in seeds]),
                min_dcf=spread([one.evaluation.min_dcf for one in seeds]),
                cosine=spread([one.cosine_mean for one in seeds]),
            )
        )
    return SettingFigures(
        label=setting.label,
        family=setting.family,
        finetune_steps=setting.finetune_steps,
        sizes=tuple(setting.sizes),
        size_ratio=setting.sizes[0].artifact_bytes / fp32_bytes,
        file_bytes=dict(setting.file_bytes),
        results=tuple(results),
    )


def _difference(setting: MeasuredSetting, other: MeasuredSetting, key: str) -> Difference:
    pairs = list(zip(setting.measurements[key], other.measurements[key], strict=True))
    per_seed = tuple(one.result.evaluation.eer - two.result.evaluation.eer for one, two in pairs)
    pooled = np.mean([one.eer_values - two.eer_values for one, two in pairs], axis=0)
    unit = pairs[0][0].result.evaluation.eer_interval.unit
    return Difference(
        setting=setting.label,
        other=other.label,
        trial_list=key,
        per_seed=per_seed,
        mean=statistics.fmean(per_seed),
        over_seeds=seed_interval(per_seed),
        over_trials=percentile_interval(pooled, unit=unit, level=LEVEL),
    )


def _accuracy_claims(
    settings: Sequence[SettingFigures], differences: Sequence[Difference], comparisons: Sequence[Comparison]
) -> list[Claim]:
    speakers = {result.trial_list: result.seeds[0].evaluation.speakers for result in settings[0].results}
    claims = []
    for comparison in comparisons:
        for one in differences:
            if (one.setting, one.other) != (comparison.setting, comparison.other):
                continue
            limit = LOSSLESS_POINTS if comparison.lossless else 0.0
            claims.append(
                Claim(
                    statement=comparison.statement,
                    trial_list=one.trial_list,
                    verdict=judge(one, limit, inclusive=comparison.lossless, speakers=speakers[one.trial_list]),
                    evidence=f"EER difference {100 * one.mean:+.2f} points, limit {100 * limit:.2f}",
                )
            )
    return claims


def _size_claims(settings: Sequence[SettingFigures]) -> list[Claim]:
    low, high = RATIO_OF_FOUR_BITS
    return [
        Claim(
            statement=f"4 bit is about 8 times smaller than fp32 ({low:g} to {high:g} times)",
            trial_list=None,
            verdict="shown" if low <= 1 / setting.size_ratio <= high else "not shown",
            evidence=f"{1 / setting.size_ratio:.2f} times fewer bytes in the artifact",
        )
        for setting in settings
        if setting.label == FOUR_BIT
    ]


def _trial_list(key: str, name: str, fp32: MeasuredSetting) -> TrialList:
    evaluation = fp32.measurements[key][0].result.evaluation
    return TrialList(
        key=key,
        name=name,
        target_trials=evaluation.target_trials,
        nontarget_trials=evaluation.nontarget_trials,
        utterances=evaluation.utterances,
        speakers=evaluation.speakers,
    )


def _notes(seeds: Sequence[int], lists: Sequence[TrialList]) -> list[str]:
    notes = []
    if len(seeds) < FEW_SEEDS:
        notes.append(f"few seeds: {len(seeds)}" + (", so that no ranking can be claimed" if len(seeds) == 1 else ""))
    for one in lists:
        if one.target_trials < FEW_TARGETS:
            step = 100 / one.target_trials
            notes.append(
                f"{one.name}: few trials: {one.target_trials} target trials, so a single miss moves the miss rate by "
                f"{step:.2f} %"
            )
        if one.speakers is None:
            notes.append(f"{one.name}: speakers are not known, so intervals over trials are too narrow")
        elif one.speakers < FEW_SPEAKERS:
            notes.append(f"{one.name}: few speakers: {one.speakers}, so no claim is decided on them")
    return notes
