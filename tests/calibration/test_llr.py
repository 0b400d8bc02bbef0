from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.linear_model import LogisticRegression

from calibration.llr import LlrMap, best_rising_llrs, cllr, fit_llr, min_cllr
from pipeline.errors import InputError


def _gaussian(seed: int, targets: int = 4000, nontargets: int = 40000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(0.6, 0.2, targets), rng.normal(0.0, 0.2, nontargets)])
    return scores, np.arange(len(scores)) < targets


def test_the_map_of_two_gaussians_is_their_log_likelihood_ratio() -> None:
    """Equal variances: llr = (m1 - m0) / v * s - (m1^2 - m0^2) / 2v = 15 s - 4.5, whatever the share of targets."""
    found = fit_llr(*_gaussian(0))
    assert found.slope == pytest.approx(15, rel=0.05)
    assert found.intercept == pytest.approx(-4.5, rel=0.05)
    for score in (-0.2, 0.3, 0.8):
        truth = norm.logpdf(score, 0.6, 0.2) - norm.logpdf(score, 0.0, 0.2)
        assert found.llr(score) == pytest.approx(truth, abs=0.35)


def test_the_map_is_that_of_scikit_learn() -> None:
    """With many trials the softened labels weigh nothing: the fit is plain logistic regression of balanced classes."""
    scores, labels = _gaussian(1)
    other = LogisticRegression(C=1e12, class_weight="balanced", tol=1e-10, max_iter=1000).fit(scores[:, None], labels)
    found = fit_llr(scores, labels)
    assert found.slope == pytest.approx(float(other.coef_[0, 0]), rel=5e-3)
    assert found.intercept == pytest.approx(float(other.intercept_[0]), rel=5e-3)


@given(st.floats(0.01, 100), st.floats(-50, 50))
@settings(max_examples=25)
def test_a_rising_line_through_the_scores_changes_nothing(factor: float, shift: float) -> None:
    scores, labels = _gaussian(2, 100, 300)
    one, other = fit_llr(scores, labels), fit_llr(factor * scores + shift, labels)
    np.testing.assert_allclose(other.llr(factor * scores + shift), one.llr(scores), rtol=1e-3, atol=1e-3)


def test_classes_that_are_apart_have_a_finite_map() -> None:
    found = fit_llr([0.9, 0.8, 0.1, 0.2, 0.15], [1, 1, 0, 0, 0])
    assert 0 < found.slope < 1e3
    assert cllr(found.llr([0.9, 0.8, 0.1, 0.2, 0.15]), [1, 1, 0, 0, 0]) < 1
    assert min_cllr([0.9, 0.8, 0.1], [1, 1, 0]) == 0


def test_cllr_by_hand() -> None:
    assert cllr([0, 0], [1, 0]) == pytest.approx(1)
    assert cllr([50, -50], [1, 0]) == pytest.approx(0, abs=1e-12)
    assert cllr([np.log(3), -np.log(3)], [1, 0]) == pytest.approx(np.log2(4 / 3))
    assert cllr([np.log(3), np.log(3)], [1, 0]) == pytest.approx((np.log2(4 / 3) + np.log2(4)) / 2)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.booleans()), min_size=2))
def test_no_rising_map_beats_the_best_one(rows: list[tuple[float, bool]]) -> None:
    scores, labels = (np.array(part) for part in zip(*rows, strict=True))
    if labels.all() or not labels.any():
        return
    best = min_cllr(scores, labels)
    assert 0 <= best <= 1 + 1e-12
    for slope in (0.0, 0.5, 1.0, 3.0):
        assert best <= cllr(LlrMap(slope=slope, intercept=-slope / 2).llr(scores), labels) + 1e-9
    llrs = best_rising_llrs(scores, labels)
    order = np.argsort(scores, kind="stable")
    assert (np.diff(llrs[order].clip(-1e9, 1e9)) >= 0).all()


@pytest.mark.parametrize(
    ("scores", "labels", "found"),
    [
        ([0.1, 0.2], [1, 1], "one class"),
        ([], [], "one class"),
        ([0.5, 0.5, 0.5], [1, 0, 0], "all the same"),
        ([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0], "fall with likelihood"),
        ([np.nan, 0.2], [1, 0], "NaN"),
        ([0.1, 0.2], [1], "(2,), (1,)"),
    ],
)
def test_scores_that_cannot_be_calibrated(scores: list[float], labels: list[int], found: str) -> None:
    with pytest.raises(InputError) as caught:
        fit_llr(scores, labels)
    assert found in str(caught.value)
