from __future__ import annotations

import numpy as np
import pytest

from calibration.calibrate import (
    CalibrationRequest,
    ScoredTrials,
    calibration_figures,
    point_flips,
    rate_name,
    refused_rates,
)
from pipeline.corpus.trials import Trial
from pipeline.errors import GateError
from pipeline.scoring.metrics import Resampling

FEW = Resampling(draws=60)


def scored(speakers: int = 12, utterances: int = 5, noise: float = 0.7, seed: int = 0) -> ScoredTrials:
    """All pairs among a few speakers; every odd speaker is labelled as of group `odd`, across groups there is none."""
    rng = np.random.default_rng(seed)
    who = {f"s{s:02d}/u{u}": f"s{s:02d}" for s in range(speakers) for u in range(utterances)}
    names = sorted(who)
    trials, scores = [], []
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            target = who[one] == who[other]
            odd = [int(who[name][1:]) % 2 for name in (one, other)]
            group = "" if odd[0] != odd[1] else ("odd" if odd[0] else "even")
            trials.append(Trial(target, one, other, group=group))
            scores.append(target + noise * rng.normal())
    return ScoredTrials(trials, np.array(scores), who)


def test_default_rates_are_given_as_far_as_trials_go() -> None:
    """1650 non-target trials support neither 1 % (3000) nor 0.1 % (30000)."""
    figures = calibration_figures(scored(), CalibrationRequest(resampling=FEW))
    assert [point.name for point in figures["thresholds"]] == ["eer", "min-dcf-0.01"]
    assert [(entry.far, entry.nontarget_trials, entry.needs_trials) for entry in figures["refused"]] == [
        (0.01, 1650, 3000),
        (0.001, 1650, 30000),
    ]


def test_a_rate_that_is_named_must_be_supported() -> None:
    with pytest.raises(GateError, match=r"far-1%: expected at least 3000 non-target trials .*, found 1650") as caught:
        calibration_figures(scored(), CalibrationRequest(rates=(0.05, 0.01), resampling=FEW))
    assert caught.value.exit_code == 3
    assert refused_rates(3000, CalibrationRequest(rates=(0.01,))) == ()


def test_thresholds_do_what_they_say() -> None:
    trials = scored()
    figures = calibration_figures(trials, CalibrationRequest(rates=(0.1, 0.02), resampling=FEW))
    strangers, own = trials.scores[~trials.labels], trials.scores[trials.labels]
    for point in figures["thresholds"]:
        assert point.false_acceptances == (strangers >= point.threshold).sum()
        assert point.false_rejections == (own < point.threshold).sum()
        assert point.frr == pytest.approx(point.false_rejections / len(own))
        assert point.frr_interval.low <= point.frr <= point.frr_interval.high
        assert point.threshold_llr == pytest.approx(float(figures["llr"].llr(point.threshold)))
        if point.far is None:
            assert point.false_acceptances < 30
            assert point.far_needs_trials > len(strangers)
        else:
            assert point.far == pytest.approx(point.false_acceptances / len(strangers))
    by_name = {point.name: point for point in figures["thresholds"]}
    assert by_name["far-10%"].far <= 0.1 < by_name["far-10%"].far + 2 / len(strangers)
    assert by_name["far-2%"].threshold > by_name["far-10%"].threshold


def test_a_rate_with_too_few_errors_is_withheld() -> None:
    """At the minDCF threshold of well separated classes hardly anyone is accepted wrongly."""
    figures = calibration_figures(scored(noise=0.2), CalibrationRequest(resampling=FEW))
    point = next(point for point in figures["thresholds"] if point.name.startswith("min-dcf"))
    assert point.false_acceptances < 30
    assert (point.far, point.far_interval) == (None, None)
    assert point.far_needs_trials >= 30 * 1650


def test_cllr_and_its_bounds() -> None:
    figures = calibration_figures(scored(), CalibrationRequest(resampling=FEW))
    assert 0 < figures["cllr_min"] <= figures["cllr"] < 1
    assert figures["cllr_interval"].low <= figures["cllr"] <= figures["cllr_interval"].high
    assert figures["cllr_interval"].unit == "speakers"
    assert figures["cllr_other_speakers"] == pytest.approx(figures["cllr"], abs=0.1)


def test_without_speakers_trials_are_resampled() -> None:
    trials = scored()
    unknown = ScoredTrials(trials.trials, trials.scores)
    figures = calibration_figures(unknown, CalibrationRequest(resampling=FEW))
    assert figures["cllr_interval"].unit == "trials"
    assert figures["cllr_other_speakers"] is None


def test_groups_are_those_of_the_list() -> None:
    trials = scored()
    groups = {group.group: group for group in calibration_figures(trials, CalibrationRequest(resampling=FEW))["groups"]}
    assert groups.keys() == {"even", "odd"}
    assert groups["odd"].target_trials == 6 * 10
    assert groups["odd"].evaluation.nontarget_trials == 15 * 25
    one_class = ScoredTrials(
        [Trial(t.target, t.enrolment, t.test, group="all" if t.target else "") for t in trials.trials],
        trials.scores,
        trials.speakers,
    )
    (only,) = calibration_figures(one_class, CalibrationRequest(resampling=FEW))["groups"]
    assert (only.evaluation, only.nontarget_trials) == (None, 0)


def test_flips_are_counted_at_every_threshold_and_lie_near_it() -> None:
    reference = scored()
    blurred = ScoredTrials(
        reference.trials,
        reference.scores + 0.05 * np.random.default_rng(1).normal(size=len(reference.scores)),
        reference.speakers,
    )
    request = CalibrationRequest(rates=(0.05,), resampling=FEW)
    thresholds = calibration_figures(blurred, request)["thresholds"]
    found = point_flips(reference, blurred, thresholds, request)
    assert [place.point for place in found] == ["eer", "far-5%", "min-dcf-0.01"]
    for place in found:
        assert sum(part.flips for part in place.by_distance) == place.flips.total
        assert sum(part.trials for part in place.by_distance) == place.flips.trials == len(reference.trials)
        assert sum(part.harmful for part in place.by_distance) == place.flips.harmful
    near, *_, far = found[0].by_distance
    assert near.flips / near.trials > 5 * (far.flips / max(far.trials, 1))


def test_names_of_rates() -> None:
    assert [rate_name(rate) for rate in (0.01, 0.001, 0.0005)] == ["far-1%", "far-0.1%", "far-0.05%"]
