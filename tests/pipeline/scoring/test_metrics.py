from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.scoring.metrics import (
    DetectionCost,
    Interval,
    Resampling,
    bootstrap_interval,
    bootstrap_values,
    det_curve,
    eer,
    min_dcf,
    paired_bootstrap_difference,
)


@st.composite
def scored(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Scores with many ties, and labels of both classes."""
    targets = draw(st.lists(st.integers(-8, 10), min_size=1, max_size=25))
    nontargets = draw(st.lists(st.integers(-10, 8), min_size=1, max_size=25))
    labels = np.array([1] * len(targets) + [0] * len(nontargets))
    order = draw(st.permutations(range(len(labels))))
    return np.array(targets + nontargets, dtype=np.float64)[list(order)], labels[list(order)]


def _points(scores: np.ndarray, labels: np.ndarray) -> list[tuple[float, float]]:
    """(P(miss), P(false alarm)) of every threshold, by counting."""
    thresholds = [*sorted(set(scores)), np.inf]
    return [
        (float(np.mean(scores[labels == 1] < t)), float(np.mean(scores[labels == 0] >= t)))  #
        for t in thresholds
    ]


def _brute_force_eer(scores: np.ndarray, labels: np.ndarray) -> float:
    points = _points(scores, labels)
    for (miss, alarm), (next_miss, next_alarm) in pairwise(points):
        if miss <= alarm and next_miss >= next_alarm:
            span = (next_miss - miss) + (alarm - next_alarm)
            return miss + (alarm - miss) / span * (next_miss - miss)
    raise AssertionError("no crossing")


@given(scored())
def test_eer_agrees_with_brute_force(case: tuple[np.ndarray, np.ndarray]) -> None:
    assert eer(*case).rate == pytest.approx(_brute_force_eer(*case), abs=1e-12)


@given(scored())
def test_eer_is_unmoved_by_rising_maps(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = case
    rate = eer(scores, labels).rate
    for mapped in (3 * scores - 7, np.exp(scores), np.arctan(scores)):
        assert eer(mapped, labels).rate == rate
        assert min_dcf(mapped, labels) == min_dcf(scores, labels)


@given(scored())
def test_negated_scores_and_swapped_classes_give_the_same_eer(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = case
    assert eer(-scores, 1 - labels).rate == pytest.approx(eer(scores, labels).rate, abs=1e-12)
    assert eer(-scores, labels).rate == pytest.approx(1 - eer(scores, labels).rate, abs=1e-12)


@given(scored())
def test_the_threshold_is_the_best_balanced_one(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = case
    threshold = eer(scores, labels).threshold
    miss, alarm = np.mean(scores[labels == 1] < threshold), np.mean(scores[labels == 0] >= threshold)
    assert abs(miss - alarm) == pytest.approx(min(abs(m - a) for m, a in _points(scores, labels)), abs=1e-12)


@given(scored(), st.floats(0.001, 0.999), st.floats(0.1, 10), st.floats(0.1, 10))
def test_min_dcf_agrees_with_brute_force(
    case: tuple[np.ndarray, np.ndarray], p_target: float, c_miss: float, c_fa: float
) -> None:
    costs = [c_miss * p_target * miss + c_fa * (1 - p_target) * alarm for miss, alarm in _points(*case)]
    expected = min(costs) / min(c_miss * p_target, c_fa * (1 - p_target))
    found = min_dcf(*case, DetectionCost(p_target, c_miss, c_fa))
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found <= 1 + 1e-12


@given(scored())
def test_det_curve_is_every_operating_point(case: tuple[np.ndarray, np.ndarray]) -> None:
    scores, labels = case
    curve = det_curve(scores, labels)
    np.testing.assert_allclose(np.stack([curve.p_miss, curve.p_false_alarm], axis=1), _points(scores, labels))
    for threshold, miss, alarm in zip(curve.thresholds, curve.p_miss, curve.p_false_alarm, strict=True):
        assert miss == pytest.approx(np.mean(scores[labels == 1] < threshold))
        assert alarm == pytest.approx(np.mean(scores[labels == 0] >= threshold))


def test_cases_by_hand() -> None:
    assert eer([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0]).rate == 0.0
    assert eer([0.9, 0.8, 0.2, 0.1], [1, 1, 0, 0]).threshold == pytest.approx(0.5)
    assert eer([0.1, 0.2, 0.8, 0.9], [1, 1, 0, 0]).rate == 1.0
    assert eer([5, 5, 5], [1, 0, 0]).rate == 0.5  # all tied
    # One of four targets below one of four non-targets.
    assert eer([4, 5, 6, 1, 2, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0]).rate == 0.25
    # A tie at the crossing: miss goes 0 -> 1/2 while false alarm goes 1/2 -> 0.
    assert eer([1, 2, 1, 0], [1, 1, 0, 0]).rate == 0.25
    # 3 targets, 2 non-targets: miss steps by 1/3 past false alarm 1/2.
    assert eer([1, 3, 5, 2, 4], [1, 1, 1, 0, 0]).rate == pytest.approx(0.5)
    assert min_dcf([1, 3, 2, 0], [1, 1, 0, 0], DetectionCost(0.5)) == pytest.approx(0.5)
    assert min_dcf([1, 3, 2, 0], [1, 1, 0, 0]) == pytest.approx(0.5)
    assert min_dcf([0, 1, 2, 3], [1, 1, 0, 0]) == pytest.approx(1.0)


def test_neighbouring_floats_are_told_apart() -> None:
    low = 1.0
    high = float(np.nextafter(low, 2.0))
    found = eer([high, low], [1, 0])
    assert found.rate == 0.0
    assert low < found.threshold <= high


@pytest.mark.parametrize(
    ("scores", "labels", "found"),
    [
        ([], [], "no trials"),
        ([0.1, 0.2], [1, 1], "2 target trials"),
        ([0.1, 0.2], [0, 0], "2 non-target trials"),
        ([0.1, np.nan], [1, 0], "1 NaN or infinite of 2"),
        ([np.inf, -np.inf], [1, 0], "2 NaN or infinite of 2"),
        ([0.1, 0.2], [1], "as many scores as labels"),
        ([[0.1, 0.2]], [[1, 0]], "in one row"),
        ([0.1, 0.2], [2, 0], "0 or 1"),
    ],
)
def test_scores_that_make_no_rate(scores: list[float], labels: list[int], found: str) -> None:
    for measure in (eer, min_dcf, det_curve, bootstrap_interval):
        with pytest.raises(InputError, match=found):
            measure(scores, labels)


@pytest.mark.parametrize(
    "cost", [DetectionCost(0.0), DetectionCost(1.0), DetectionCost(c_miss=0), DetectionCost(np.nan)]
)
def test_costs_out_of_range(cost: DetectionCost) -> None:
    with pytest.raises(InputError, match="detection cost"):
        min_dcf([1, 0], [1, 0], cost)


def _gaussian(targets: int, nontargets: int, seed: int, shift: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(shift, 1, targets), rng.normal(0, 1, nontargets)])
    return scores, np.arange(targets + nontargets) < targets


def _trials_of_speakers(seed: int, speakers: int = 12, utterances: int = 4) -> tuple[np.ndarray, np.ndarray, list]:
    rng = np.random.default_rng(seed)
    names = [f"s{s}" for s in range(speakers) for _ in range(utterances)]
    means = rng.normal(size=(speakers, 6))
    points = np.repeat(means, utterances, axis=0) + rng.normal(size=(len(names), 6))
    i, j = np.triu_indices(len(names), k=1)
    pairs = [(names[a], names[b]) for a, b in zip(i, j, strict=True)]
    scores = -np.linalg.norm(points[i] - points[j], axis=1)
    return scores, np.array([a == b for a, b in pairs]), pairs


def test_interval_of_trials_covers_as_often_as_it_says() -> None:
    truth = 0.15865525  # of two unit Gaussians two apart
    covered = 0
    for seed in range(60):
        interval = bootstrap_interval(*_gaussian(300, 600, seed), resampling=Resampling(draws=200, seed=seed))
        covered += interval.low <= truth <= interval.high
    assert 50 <= covered <= 60


def test_intervals_are_seeded() -> None:
    scores, labels, pairs = _trials_of_speakers(0)
    for speakers in (None, pairs):
        first = bootstrap_interval(scores, labels, speakers=speakers)
        assert first == bootstrap_interval(scores, labels, speakers=speakers)
        assert first != bootstrap_interval(scores, labels, speakers=speakers, resampling=Resampling(seed=1))
        assert first.low < eer(scores, labels).rate < first.high
        assert first.unit == ("trials" if speakers is None else "speakers")


def test_speakers_are_less_certain_than_trials() -> None:
    scores, labels, pairs = _trials_of_speakers(1)
    widths = [
        (lambda interval: interval.high - interval.low)(bootstrap_interval(scores, labels, speakers=speakers))
        for speakers in (None, pairs)
    ]
    assert widths[1] > 1.3 * widths[0]


def test_a_resample_of_speakers_is_the_list_with_their_trials_repeated() -> None:
    """With two draws the percentile ends are the two values: compare them with lists built by repeating trials."""
    scores, labels, pairs = _trials_of_speakers(2, speakers=5, utterances=3)
    found = bootstrap_interval(scores, labels, speakers=pairs, resampling=Resampling(draws=2, seed=3, level=1 - 1e-12))
    names = sorted({name for pair in pairs for name in pair})
    drawn = np.random.default_rng(3).integers(0, 5, (2, 5))
    rates = []
    for row in drawn:
        count = {name: int((row == k).sum()) for k, name in enumerate(names)}
        times = [count[a] if a == b else count[a] * count[b] for a, b in pairs]
        rates.append(eer(np.repeat(scores, times), np.repeat(labels, times)).rate)
    assert found.draws == 2
    assert [found.low, found.high] == pytest.approx(sorted(rates), abs=1e-9)


def test_blocks_do_not_change_the_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels, pairs = _trials_of_speakers(3)
    whole = bootstrap_interval(scores, labels, speakers=pairs, metric="min_dcf")
    monkeypatch.setattr("pipeline.scoring.metrics._BLOCK", 7 * len(scores))
    assert bootstrap_interval(scores, labels, speakers=pairs, metric="min_dcf") == whole


def test_resamples_of_one_speaker_are_left_out() -> None:
    scores, labels, pairs = _trials_of_speakers(4, speakers=2)
    assert 300 < bootstrap_interval(scores, labels, speakers=pairs).draws < 700  # both are drawn half of the time


def test_speakers_that_do_not_fit_the_trials() -> None:
    with pytest.raises(InputError, match="a pair for each of 3 trials, found 1"):
        bootstrap_interval([1, 2, 3], [1, 0, 0], speakers=[("a", "b")])


@pytest.mark.parametrize("resampling", [Resampling(draws=0), Resampling(level=1.0), Resampling(level=0.0)])
def test_resampling_out_of_range(resampling: Resampling) -> None:
    with pytest.raises(InputError, match="draws >= 1"):
        bootstrap_interval([1, 0], [1, 0], resampling=resampling)


def test_difference_of_a_system_with_itself_is_nothing() -> None:
    scores, labels, pairs = _trials_of_speakers(5)
    same = paired_bootstrap_difference(scores, 2 * scores + 1, labels, speakers=pairs)
    assert same == Interval(0.0, 0.0, same.draws, "speakers")


def test_a_worse_system_shows() -> None:
    scores, labels = _gaussian(300, 600, seed=0)
    worse = scores + np.random.default_rng(1).normal(0, 1.0, len(scores))
    found = paired_bootstrap_difference(scores, worse, labels)
    difference = eer(worse, labels).rate - eer(scores, labels).rate
    assert 0 < found.low < difference < found.high
    back = paired_bootstrap_difference(worse, scores, labels)
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_values_of_two_systems_belong_together() -> None:
    scores, labels, pairs = _trials_of_speakers(6)
    other = scores + np.random.default_rng(2).normal(0, 0.5, len(scores))
    first, second = (bootstrap_values(one, labels, speakers=pairs) for one in (scores, other))
    found = paired_bootstrap_difference(scores, other, labels, speakers=pairs)
    assert [found.low, found.high] == pytest.approx(np.quantile(second - first, [0.025, 0.975]))
    assert found.draws == len(first)
    assert (second - first).std() < 0.8 * (second - first[::-1]).std()


@settings(max_examples=20)
@given(scored())
def test_a_bootstrap_never_leaves_the_unit_range(case: tuple[np.ndarray, np.ndarray]) -> None:
    for metric in ("eer", "min_dcf"):
        interval = bootstrap_interval(*case, metric=metric, resampling=Resampling(draws=50))
        assert 0 <= interval.low <= interval.high <= 1 + 1e-12
        assert interval.draws == 50
