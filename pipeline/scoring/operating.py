"""Operating points: the threshold that a rule chooses on a trial list, and how far to trust it.

A false-alarm rate f is measured on non-target trials by the errors among them. By the rule of 30 (Doddington et al.,
"The NIST speaker recognition evaluation: overview, methodology, systems, results, perspective", Speech Communication
31, 2000) the true rate lies within 30 % of the measured one, with 90 % confidence, if there were at least 30 errors: a
list supports f if it has 30 / f non-target trials. The rule takes trials for independent; intervals over resampled
speakers, which do not, are given beside every figure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import InputError
from pipeline.scoring.metrics import (
    DEFAULT_RESAMPLING,
    DetectionCost,
    Float64,
    Interval,
    OrderedScores,
    Resampling,
    percentile_interval,
    resample_weights,
    resampled_unit,
)

ERRORS_TO_SUPPORT_A_RATE = 30


@dataclass(frozen=True)
class AtEqualErrors:
    """The threshold where P(miss) and P(false alarm) are nearest to each other."""


@dataclass(frozen=True)
class AtFalseAlarmRate:
    """The lowest threshold at which P(false alarm) is at most `rate` (0..1)."""

    rate: float


@dataclass(frozen=True)
class AtMinimumCost:
    """The threshold of the lowest detection cost."""

    cost: DetectionCost


Rule = AtEqualErrors | AtFalseAlarmRate | AtMinimumCost


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold, the errors made at it on the list it was chosen on, and percentile bootstrap intervals.

    `threshold_interval` is that of the rule's choice on resampled trials. The intervals of the rates are those at the
    threshold itself, on resampled trials.
    """

    threshold: float
    misses: int
    false_alarms: int
    targets: int
    nontargets: int
    threshold_interval: Interval
    p_miss_interval: Interval
    p_false_alarm_interval: Interval


def nontargets_to_support(rate: float) -> int:
    """How many non-target trials it takes to support a false-alarm rate: 30 / rate, rounded up.

    Raises InputError if the rate is not within (0, 1).
    """
    if not 0 < rate < 1:
        raise InputError("false-alarm rate", expected="a rate within (0, 1)", found=f"{rate:g}")
    # A ratio like 30 / 0.001 may come out a hair above the whole number it stands for.
    return math.ceil(round(ERRORS_TO_SUPPORT_A_RATE / rate, 6))


def operating_point(
    scores: ArrayLike,
    labels: ArrayLike,
    rule: Rule,
    *,
    speakers: Sequence[tuple[str, str]] | None = None,
    resampling: Resampling = DEFAULT_RESAMPLING,
) -> OperatingPoint:
    """The operating point that `rule` chooses. scores: [trials]; labels: [trials], true for target trials.

    `speakers` (the enrolment's and the test's of every trial) are resampled as `bootstrap_interval` does. A threshold
    above all scores is given as the next number after the highest. Raises InputError as `bootstrap_interval`.
    """
    ordered = OrderedScores.of(scores, labels)
    thresholds = ordered.thresholds()
    thresholds[-1] = np.nextafter(ordered.distinct[-1], np.inf)  # files cannot carry infinity
    missed, accepted = ordered.errors(np.ones((1, ordered.trials)))
    place = int(_places(missed, accepted, rule)[0])
    chosen, p_miss, p_false_alarm = [], [], []
    for weights in resample_weights(ordered.labels, speakers, resampling):
        some_missed, some_accepted = ordered.errors(weights[:, ordered.order])
        chosen.append(thresholds[_places(some_missed, some_accepted, rule)])
        p_miss.append(some_missed[:, place] / some_missed[:, -1])
        p_false_alarm.append(some_accepted[:, place] / some_accepted[:, 0])

    def interval(values: list[Float64]) -> Interval:
        return percentile_interval(np.concatenate(values), unit=resampled_unit(speakers), level=resampling.level)

    return OperatingPoint(
        threshold=float(thresholds[place]),
        misses=int(missed[0, place]),
        false_alarms=int(accepted[0, place]),
        targets=int(missed[0, -1]),
        nontargets=int(accepted[0, 0]),
        threshold_interval=interval(chosen),
        p_miss_interval=interval(p_miss),
        p_false_alarm_interval=interval(p_false_alarm),
    )


def _places(missed: Float64, accepted: Float64, rule: Rule) -> NDArray[np.intp]:
    """[resamples] index of the chosen operating point, from the errors at every one of them [resamples, points]."""
    targets, nontargets = missed[:, -1:], accepted[:, :1]
    places: NDArray[np.intp]
    if isinstance(rule, AtEqualErrors):
        places = np.abs(missed * nontargets - accepted * targets).argmin(axis=1)
    elif isinstance(rule, AtFalseAlarmRate):
        places = (accepted <= rule.rate * nontargets).argmax(axis=1)  # true at the last point at the latest
    else:
        cost = rule.cost
        miss, false_alarm = cost.c_miss * cost.p_target, cost.c_false_alarm * (1 - cost.p_target)
        places = (miss * missed / targets + false_alarm * accepted / nontargets).argmin(axis=1)
    return places
