from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.threshold import DecisionFlips, decision_flips, eer_threshold, flips_by_distance
from pipeline.errors import InputError
from pipeline.scoring.metrics import eer

LABELS = [1, 1, 1, 0, 0, 0]
REFERENCE = [0.9, 0.6, 0.3, 0.7, 0.2, 0.1]


def test_threshold_is_that_of_the_eer() -> None:
    assert eer_threshold(REFERENCE, LABELS) == eer(REFERENCE, LABELS).threshold


def test_flips_by_hand() -> None:
    other = [0.4, 0.6, 0.8, 0.3, 0.5, 0.1]
    assert decision_flips(REFERENCE, other, LABELS, 0.5) == DecisionFlips(
        trials=6,
        total=4,
        harmful=2,
        helpful=2,
        newly_missed=1,
        newly_accepted_nontargets=1,
        reference_threshold=0.5,
        other_threshold=0.5,
    )


def test_each_system_has_its_own_threshold() -> None:
    shifted = np.array(REFERENCE) - 0.3
    assert decision_flips(REFERENCE, shifted, LABELS, 0.5, 0.2).total == 0
    found = decision_flips(REFERENCE, shifted, LABELS, 0.5)
    assert (found.total, found.harmful, found.helpful) == (2, 1, 1)


@given(st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.booleans()), min_size=1), st.floats(-1, 1))
def test_flips_add_up_and_turn_round(rows: list[tuple[float, float, bool]], threshold: float) -> None:
    reference, other, labels = zip(*rows, strict=True)
    found = decision_flips(reference, other, labels, threshold)
    back = decision_flips(other, reference, labels, threshold)
    assert found.harmful + found.helpful == found.total == back.total
    assert found.newly_missed + found.newly_accepted_nontargets == found.harmful == back.helpful
    wrong = [sum((s >= threshold) != t for s, t in zip(scores, labels, strict=True)) for scores in (reference, other)]
    assert wrong[1] - wrong[0] == found.harmful - found.helpful
    assert decision_flips(reference, reference, labels, threshold).total == 0


@pytest.mark.parametrize(
    ("reference", "other", "labels", "threshold"),
    [
        ([], [], [], 0.0),
        ([1.0], [1.0, 2.0], [1], 0.0),
        ([1.0], [1.0], [1, 0], 0.0),
        ([np.nan], [1.0], [1], 0.0),
        ([1.0], [np.nan], [1], 0.0),
        ([1.0], [1.0], [1], np.nan),
    ],
)
def test_scores_that_do_not_fit(reference: list, other: list, labels: list, threshold: float) -> None:
    with pytest.raises(InputError, match="scores"):
        decision_flips(reference, other, labels, threshold)


def test_flips_lie_in_bins_of_distance() -> None:
    reference, other = [0.9, 0.55, 0.2, 0.45, 0.1, 0.5], [0.9, 0.4, 0.2, 0.6, 0.1, 0.5]
    near, middle, far = flips_by_distance(reference, other, LABELS, (0.5, 0.5), edges=(0.0, 0.1, 0.35))
    assert (near.trials, near.flips, near.harmful, near.helpful) == (3, 2, 2, 0)
    assert (middle.trials, middle.flips) == (1, 0)
    assert (far.low, far.high, far.trials, far.flips) == (0.35, None, 2, 0)
