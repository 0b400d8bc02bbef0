from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.scoring.metrics import DetectionCost, Resampling, eer, min_dcf
from pipeline.scoring.operating import (
    AtEqualErrors,
    AtFalseAlarmRate,
    AtMinimumCost,
    nontargets_to_support,
    operating_point,
)

FEW = Resampling(draws=50)


def _trials(seed: int, targets: int = 200, nontargets: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return np.concatenate([rng.normal(2, 1, targets), rng.normal(0, 1, nontargets)]), np.arange(
        targets + nontargets
    ) < targets


def test_the_rule_of_30() -> None:
    assert [nontargets_to_support(rate) for rate in (0.1, 0.01, 0.001, 0.0007)] == [300, 3000, 30000, 42858]
    for bad in (0.0, 1.0, -0.1, 2.0):
        with pytest.raises(InputError, match="false-alarm rate"):
            nontargets_to_support(bad)


def test_the_threshold_of_a_false_alarm_rate_by_hand() -> None:
    scores = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.35, 0.55, 0.9]
    labels = [0, 0, 0, 0, 0, 0, 1, 1, 1]
    point = operating_point(scores, labels, AtFalseAlarmRate(0.34), resampling=FEW)
    assert (point.false_alarms, point.misses, point.nontargets, point.targets) == (2, 1, 6, 3)
    assert point.threshold == pytest.approx(0.45)
    none = operating_point(scores, labels, AtFalseAlarmRate(0.1), resampling=FEW)
    assert (none.false_alarms, none.misses) == (0, 2)
    assert none.threshold == pytest.approx(0.75)


@given(st.integers(0, 1000), st.floats(0.005, 0.5))
def test_a_threshold_is_the_lowest_that_keeps_the_rate(seed: int, rate: float) -> None:
    scores, labels = _trials(seed, 50, 400)
    point = operating_point(scores, labels, AtFalseAlarmRate(rate), resampling=Resampling(draws=2))
    strangers = scores[~labels]
    assert (strangers >= point.threshold).mean() <= rate
    lower = np.sort(scores[scores < point.threshold])[-1]
    assert (strangers >= lower).mean() > rate or point.false_alarms == int((strangers >= lower).sum())
    assert point.misses == int((scores[labels] < point.threshold).sum())


def test_equal_errors_and_minimum_cost_agree_with_the_metrics() -> None:
    scores, labels = _trials(1)
    assert operating_point(scores, labels, AtEqualErrors(), resampling=FEW).threshold == eer(scores, labels).threshold
    cost = DetectionCost(p_target=0.05)
    point = operating_point(scores, labels, AtMinimumCost(cost), resampling=FEW)
    value = (0.05 * point.misses / point.targets + 0.95 * point.false_alarms / point.nontargets) / 0.05
    assert value == pytest.approx(min_dcf(scores, labels, cost))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """The true threshold of 5 % false alarms for N(0, 1) is its 95 % quantile."""
    held = 0
    for seed in range(100):
        scores, labels = _trials(seed, 50, 1000)
        found = operating_point(scores, labels, AtFalseAlarmRate(0.05), resampling=Resampling(draws=200, seed=seed))
        held += found.threshold_interval.low <= 1.6449 <= found.threshold_interval.high
    assert 88 <= held <= 100


def test_a_threshold_above_all_scores_is_a_number() -> None:
    point = operating_point([0.5, 0.9, 0.9], [1, 0, 0], AtFalseAlarmRate(0.4), resampling=FEW)
    assert point.false_alarms == 0
    assert np.isfinite(point.threshold)
    assert point.threshold > 0.9


def test_speakers_are_resampled() -> None:
    scores, labels = _trials(3, 20, 80)
    speakers = [("a" if i % 2 else "b", "a" if i % 2 else "b") if one else ("a", "b") for i, one in enumerate(labels)]
    by_speaker = operating_point(scores, labels, AtEqualErrors(), speakers=speakers, resampling=FEW)
    assert by_speaker.p_miss_interval.unit == "speakers"
    assert operating_point(scores, labels, AtEqualErrors(), resampling=FEW).p_miss_interval.unit == "trials"
