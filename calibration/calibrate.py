"""Scores of a trial list in, a calibration out: the map to log-likelihood ratios, thresholds, what to make of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibration.llr import LlrMap, cllr, cllr_terms, fit_llr, min_cllr
from calibration.record import GroupFigures, PointFlips, RefusedRate, Threshold
from calibration.threshold import decision_flips, flips_by_distance
from pipeline.corpus.trials import Trial
from pipeline.errors import GateError, InputError
from pipeline.scoring.metrics import (
    DEFAULT_RESAMPLING,
    VOXCELEB_COST,
    DetectionCost,
    Interval,
    Resampling,
    percentile_interval,
    resample_weights,
    resampled_unit,
)
from pipeline.scoring.operating import (
    ERRORS_TO_SUPPORT_A_RATE,
    AtEqualErrors,
    AtFalseAlarmRate,
    AtMinimumCost,
    OperatingPoint,
    Rule,
    nontargets_to_support,
    operating_point,
)
from pipeline.scoring.score import evaluate_scores, trial_labels, trial_speakers

DEFAULT_RATES = (0.01, 0.001)

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class ScoredTrials:
    """Trials with their scores [trials], and the speaker of every utterance where that is known."""

    trials: Sequence[Trial]
    scores: Float64
    speakers: Mapping[str, str] | None = None

    @property
    def labels(self) -> NDArray[np.bool_]:
        """[trials], true for target trials."""
        return trial_labels(self.trials)

    @property
    def pairs(self) -> list[tuple[str, str]] | None:
        """The enrolment's and the test's speaker of every trial."""
        return None if self.speakers is None else trial_speakers(self.trials, self.speakers)


@dataclass(frozen=True)
class CalibrationRequest:
    """Which thresholds are wanted.

    `rates`: false acceptance rates; None: 1 % and 0.1 %, as far as the trials support them. Rates that are named must
    be supported. `cost`: that of the minDCF threshold.
    """

    rates: tuple[float, ...] | None = None
    cost: DetectionCost = VOXCELEB_COST
    resampling: Resampling = DEFAULT_RESAMPLING


def rate_name(rate: float) -> str:
    """Name of the operating point of a false acceptance rate: "far-1%", "far-0.1%"."""
    return f"far-{100 * rate:g}%"


def refused_rates(nontargets: int, request: CalibrationRequest) -> tuple[RefusedRate, ...]:
    """The rates that so many non-target trials do not support.

    Raises GateError, saying how many trials it would take, if the request names such a rate itself.
    """
    refused = []
    for rate in request.rates or DEFAULT_RATES:
        needed = nontargets_to_support(rate)
        if nontargets < needed:
            refused.append(RefusedRate(far=rate, nontarget_trials=nontargets, needs_trials=needed))
    if refused and request.rates is not None:
        first = refused[0]
        raise GateError(
            f"{rate_name(first.far)}: expected at least {first.needs_trials} non-target trials "
            f"({ERRORS_TO_SUPPORT_A_RATE} false acceptances), found {first.nontarget_trials}"
        )
    return tuple(refused)


def calibration_figures(scored: ScoredTrials, request: CalibrationRequest) -> dict[str, Any]:
    """The fields of a `Calibration` that scores alone decide.

    Raises GateError as `refused_rates`; InputError as `fit_llr`, `operating_point` and `evaluate_scores`.
    """
    labels, pairs = scored.labels, scored.pairs
    refused = refused_rates(int((~labels).sum()), request)
    mapping = fit_llr(scored.scores, labels)
    return {
        "evaluation": evaluate_scores(
            scored.scores,
            scored.trials,
            speakers=scored.speakers,
            resampling=request.resampling,
            cost=request.cost,
        ),
        "llr": mapping,
        "cllr": cllr(mapping.llr(scored.scores), labels),
        "cllr_interval": _cllr_interval(mapping.llr(scored.scores), labels, pairs, request.resampling),
        "cllr_min": min_cllr(scored.scores, labels),
        "cllr_other_speakers": _cllr_other_speakers(scored),
        "thresholds": tuple(
            _threshold(
                name,
                operating_point(scored.scores, labels, rule, speakers=pairs, resampling=request.resampling),
                mapping,
            )
            for name, rule in _rules(request, refused).items()
        ),
        "refused": refused,
        "groups": _groups(scored, request),
    }


def point_flips(
    reference: ScoredTrials, other: ScoredTrials, thresholds: Sequence[Threshold], request: CalibrationRequest
) -> tuple[PointFlips, ...]:
    """Decisions of two systems on the same trials, each at its own threshold of every operating point.

    `thresholds` are the other's. Distances are in log-likelihood ratios by the reference's own calibration.
    """
    labels = reference.labels
    mapping = fit_llr(reference.scores, labels)
    rules = _rules(request, refused_rates(int((~labels).sum()), request))
    found = []
    for point in thresholds:
        own = operating_point(
            reference.scores, labels, rules[point.name], speakers=reference.pairs, resampling=request.resampling
        ).threshold
        found.append(
            PointFlips(
                point=point.name,
                flips=decision_flips(reference.scores, other.scores, labels, own, point.threshold),
                by_distance=tuple(
                    flips_by_distance(
                        # As log-likelihood ratios; the map rises, so decisions stay what they are.
                        mapping.llr(reference.scores),
                        other.scores,
                        labels,
                        (float(mapping.llr(own)), point.threshold),
                    )
                ),
            )
        )
    return tuple(found)


def _rules(request: CalibrationRequest, refused: Sequence[RefusedRate]) -> dict[str, Rule]:
    cannot = {entry.far for entry in refused}
    rules: dict[str, Rule] = {"eer": AtEqualErrors()}
    for rate in request.rates or DEFAULT_RATES:
        if rate not in cannot:
            rules[rate_name(rate)] = AtFalseAlarmRate(rate)
    rules[f"min-dcf-{request.cost.p_target:g}"] = AtMinimumCost(request.cost)
    return rules


def _threshold(name: str, point: OperatingPoint, mapping: LlrMap) -> Threshold:
    supported = point.false_alarms >= ERRORS_TO_SUPPORT_A_RATE
    if name.startswith("far-"):
        supported = True  # the list was checked against the rate asked for; ties may leave a few errors less
    seen = max(point.false_alarms, 1) / point.nontargets
    return Threshold(
        name=name,
        threshold=point.threshold,
        threshold_interval=point.threshold_interval,
        threshold_llr=float(mapping.llr(point.threshold)),
        false_acceptances=point.false_alarms,
        false_rejections=point.misses,
        far=point.false_alarms / point.nontargets if supported else None,
        far_interval=point.p_false_alarm_interval if supported else None,
        far_needs_trials=None if supported else nontargets_to_support(min(seen, 1 - 1e-9)),
        frr=point.misses / point.targets,
        frr_interval=point.p_miss_interval,
    )


def _cllr_interval(
    llrs: Float64, labels: NDArray[np.bool_], pairs: list[tuple[str, str]] | None, resampling: Resampling
) -> Interval:
    """Percentile bootstrap interval of Cllr, the map kept as it is."""
    terms = cllr_terms(llrs, labels)
    values = []
    for weights in resample_weights(labels, pairs, resampling):
        means = [
            (weights[:, members] @ terms[members]) / weights[:, members].sum(axis=1) for members in (labels, ~labels)
        ]
        values.append((means[0] + means[1]) / 2)
    return percentile_interval(np.concatenate(values), unit=resampled_unit(pairs), level=resampling.level)


def _cllr_other_speakers(scored: ScoredTrials) -> float | None:
    """Cllr where the trials among one half of the speakers are mapped by a fit to those among the other half.

    The fit of `fit_llr` has two numbers; this shows whether they hold for speakers it has not seen. None if speakers
    are not known or a half lacks a class.
    """
    pairs = scored.pairs
    if pairs is None:
        return None
    # Every other one of the sorted names, so that neither half is of one source.
    first = set(sorted({name for pair in pairs for name in pair})[::2])
    halves = [
        np.array([one in first and two in first for one, two in pairs]),
        np.array([one not in first and two not in first for one, two in pairs]),
    ]
    labels, llrs, kept = scored.labels, np.zeros(len(scored.scores)), np.zeros(len(scored.scores), bool)
    for fitted, applied in (halves, halves[::-1]):
        try:
            llrs[applied] = fit_llr(scored.scores[fitted], labels[fitted]).llr(scored.scores[applied])
        except InputError:  # a half of one class
            return None
        kept |= applied
    return cllr(llrs[kept], labels[kept])


def _groups(scored: ScoredTrials, request: CalibrationRequest) -> tuple[GroupFigures, ...]:
    """Figures of every label of the trial list; trials without a label are in none."""
    found = []
    for group in sorted({trial.group for trial in scored.trials if trial.group}):
        members = np.array([trial.group == group for trial in scored.trials])
        trials = [trial for trial in scored.trials if trial.group == group]
        labels = trial_labels(trials)
        both = labels.any() and not labels.all()
        found.append(
            GroupFigures(
                group=group,
                target_trials=int(labels.sum()),
                nontarget_trials=int((~labels).sum()),
                evaluation=evaluate_scores(
                    scored.scores[members],
                    trials,
                    speakers=scored.speakers,
                    resampling=request.resampling,
                    cost=request.cost,
                )
                if both
                else None,
            )
        )
    return tuple(found)
