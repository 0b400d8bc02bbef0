"""Embeddings and trials in, scores and error rates out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from pipeline.corpus.trials import Trial
from pipeline.errors import InputError
from pipeline.scoring.metrics import (
    DEFAULT_RESAMPLING,
    VOXCELEB_COST,
    DetectionCost,
    Interval,
    Resampling,
    bootstrap_interval,
    eer,
    min_dcf,
)

DEFAULT_COHORT_TOP = 300  # of a cohort of thousands of speakers, as is usual
_COHORT_BLOCK = 8_000_000  # cosines at a time: 64 MB


class Evaluation(BaseModel):
    """What a table shows of a system on a trial list; rates are 0..1, the interval is the EER's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    eer: float
    eer_interval: Interval
    interval_level: float
    min_dcf: float
    p_target: float
    threshold: float
    target_trials: int
    nontarget_trials: int
    utterances: int
    speakers: int | None  # of the trials; None where they are not known

    def summary(self) -> str:
        """EER with its interval, minDCF and trial counts on one line."""
        return (
            f"EER {100 * self.eer:.2f} % ({self.interval_level:.0%} interval {100 * self.eer_interval.low:.2f} to "
            f"{100 * self.eer_interval.high:.2f}), minDCF({self.p_target:g}) {self.min_dcf:.3f}, "
            f"{self.target_trials} target and {self.nontarget_trials} non-target trials"
        )


def cosine_scores(embeddings: Mapping[str, NDArray[np.floating]], trials: Sequence[Trial]) -> NDArray[np.float64]:
    """Cosine of the two embeddings of every trial, computed in float64: [trials], within [-1, 1].

    embeddings: [E] each, by utterance. Raises InputError if there are no trials, if an utterance of a trial has no
    embedding, or if an embedding is not one row of the common length, not finite or zero.
    """
    names = _names_of(trials)
    unit = unit_rows(embeddings, names)
    row_of = {name: row for row, name in enumerate(names)}
    enrolment = np.array([row_of[trial.enrolment] for trial in trials])
    test = np.array([row_of[trial.test] for trial in trials])
    cosines: NDArray[np.float64] = np.einsum("ij,ij->i", unit[enrolment], unit[test]).clip(-1.0, 1.0)
    return cosines


def as_norm_scores(
    embeddings: Mapping[str, NDArray[np.floating]],
    trials: Sequence[Trial],
    cohort: Mapping[str, NDArray[np.floating]],
    *,
    top: int = DEFAULT_COHORT_TOP,
) -> NDArray[np.float64]:
    """Cosine scores with adaptive symmetric normalisation (AS-Norm), in float64: [trials].

    s' = ((s - mean_e) / std_e + (s - mean_t) / std_t) / 2, where mean_e and std_e (over `top`, not top - 1) are those
    of the enrolment's `top` highest cosines with the cohort, mean_t and std_t those of the test's. For systems whose
    scores of strangers differ in level from speaker to speaker.

    embeddings, cohort: [E] each, by name; the cohort's speakers should be none of the trials'. Raises InputError as
    `cosine_scores`, and if the cohort has fewer than `top` embeddings, others than [E], or only equal cosines.
    """
    scores = cosine_scores(embeddings, trials)
    if not 2 <= top <= len(cohort):
        raise InputError("cohort", expected=f"at least {max(2, top)} embeddings", found=f"{len(cohort)}")
    names = _names_of(trials)
    others = unit_rows(cohort, list(cohort))
    own = unit_rows(embeddings, names)
    if others.shape[1] != own.shape[1]:
        raise InputError("cohort", expected=f"embeddings of {own.shape[1]} values", found=f"{others.shape[1]}")
    means, deviations = np.empty(len(names)), np.empty(len(names))
    # In blocks: all utterances of a large trial list against a whole cohort would be gigabytes.
    rows = max(1, _COHORT_BLOCK // len(others))
    for first in range(0, len(names), rows):
        cosines = own[first : first + rows] @ others.T
        highest = np.partition(cosines, len(others) - top, axis=1)[:, len(others) - top :]
        means[first : first + rows] = highest.mean(axis=1)
        deviations[first : first + rows] = highest.std(axis=1)
    for row in np.flatnonzero(deviations <= 1e-9):
        raise InputError(names[int(row)], expected="different cosines with the cohort", found="all the same")
    row_of = {name: row for row, name in enumerate(names)}
    enrolment = np.array([row_of[trial.enrolment] for trial in trials])
    test = np.array([row_of[trial.test] for trial in trials])
    normalised: NDArray[np.float64] = 0.5 * (
        (scores - means[enrolment]) / deviations[enrolment] + (scores - means[test]) / deviations[test]
    )
    return normalised


def unit_rows(embeddings: Mapping[str, NDArray[np.floating]], names: Sequence[str]) -> NDArray[np.float64]:
    """The named embeddings scaled to length 1, in float64: [names, E].

    Raises InputError if one is missing, not one row of the common length, not finite or zero.
    """
    for name in names:
        if name not in embeddings:
            raise InputError(name, expected=f"an embedding among {len(embeddings)}", found="none")
    shape = np.shape(embeddings[names[0]])
    for name in names:
        found = np.shape(embeddings[name])
        if len(found) != 1 or found != shape:
            raise InputError(name, expected=f"an embedding [E] of the same length as {names[0]}'s", found=f"{found}")
    stacked = np.stack([np.asarray(embeddings[name], dtype=np.float64) for name in names])
    # Scaled by its largest value first, so that squaring neither overflows nor underflows.
    largest = np.abs(stacked).max(axis=1, keepdims=True, initial=0.0)
    for row in np.flatnonzero(~((largest > 0) & np.isfinite(largest))):
        value = float(largest[row, 0])
        kind = "all zero" if value == 0 else "NaN or infinite"
        raise InputError(names[int(row)], expected="a finite embedding that is not zero", found=f"values {kind}")
    stacked /= largest
    stacked /= np.linalg.norm(stacked, axis=1, keepdims=True)
    return stacked


def _names_of(trials: Sequence[Trial]) -> list[str]:
    if not trials:
        raise InputError("trials", expected="at least one trial", found="none")
    return sorted({name for trial in trials for name in (trial.enrolment, trial.test)})


def trial_labels(trials: Sequence[Trial]) -> NDArray[np.bool_]:
    """[trials], true for target trials."""
    return np.array([trial.target for trial in trials], dtype=bool)


def trial_speakers(trials: Sequence[Trial], speakers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Speaker of the enrolment and of the test of every trial, from the speaker of every utterance.

    Raises InputError if an utterance has no speaker there, or if the trial's label contradicts its speakers.
    """
    pairs = []
    for trial in trials:
        for name in (trial.enrolment, trial.test):
            if name not in speakers:
                raise InputError(name, expected="an utterance whose speaker is known", found="no speaker")
        pair = (speakers[trial.enrolment], speakers[trial.test])
        if trial.target != (pair[0] == pair[1]):
            kind = "target" if trial.target else "non-target"
            raise InputError(
                f"trial {trial.enrolment} {trial.test}",
                expected=f"a {kind} trial's speakers",
                found=f"{pair[0]} and {pair[1]}",
            )
        pairs.append(pair)
    return pairs


def evaluate_scores(
    scores: NDArray[np.float64],
    trials: Sequence[Trial],
    *,
    speakers: Mapping[str, str] | None = None,
    resampling: Resampling = DEFAULT_RESAMPLING,
    cost: DetectionCost = VOXCELEB_COST,
) -> Evaluation:
    """EER with its bootstrap interval, minDCF, threshold and counts of scored trials. scores: [trials].

    With `speakers` (the speaker of every utterance) the interval comes from resampled speakers, else from resampled
    trials. Raises InputError as `eer`, `bootstrap_interval` and `trial_speakers`.
    """
    labels = trial_labels(trials)
    pairs = None if speakers is None else trial_speakers(trials, speakers)
    point = eer(scores, labels)
    return Evaluation(
        eer=point.rate,
        eer_interval=bootstrap_interval(scores, labels, speakers=pairs, resampling=resampling),
        interval_level=resampling.level,
        min_dcf=min_dcf(scores, labels, cost),
        p_target=cost.p_target,
        threshold=point.threshold,
        target_trials=int(labels.sum()),
        nontarget_trials=int((~labels).sum()),
        utterances=len({name for trial in trials for name in (trial.enrolment, trial.test)}),
        speakers=None if pairs is None else len({name for pair in pairs for name in pair}),
    )


def evaluate_embeddings(
    embeddings: Mapping[str, NDArray[np.floating]],
    trials: Sequence[Trial],
    *,
    speakers: Mapping[str, str] | None = None,
    resampling: Resampling = DEFAULT_RESAMPLING,
    cost: DetectionCost = VOXCELEB_COST,
    cohort: Mapping[str, NDArray[np.floating]] | None = None,
    cohort_top: int = DEFAULT_COHORT_TOP,
) -> Evaluation:
    """`evaluate_scores` of the trials' cosine scores, with a `cohort` normalised by `as_norm_scores`.

    Raises InputError as these functions do.
    """
    if cohort is None:
        scores = cosine_scores(embeddings, trials)
    else:
        scores = as_norm_scores(embeddings, trials, cohort, top=cohort_top)
    return evaluate_scores(scores, trials, speakers=speakers, resampling=resampling, cost=cost)
