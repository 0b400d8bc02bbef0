"""The decision threshold of a system, and what another system decides differently at it."""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict

from pipeline.errors import InputError
from pipeline.scoring.metrics import eer


class DecisionFlips(BaseModel):
    """Trials that two systems decide differently. harmful + helpful = total.

    Harmful: the reference was right and the other is wrong (a target newly missed or a non-target newly accepted).
    Helpful: the reverse.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int
    total: int
    harmful: int
    helpful: int
    newly_missed: int
    newly_accepted_nontargets: int
    reference_threshold: float
    other_threshold: float


class FlipBin(BaseModel):
    """Flips among the trials whose reference score lies `low` to `high` from the reference's threshold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    low: float
    high: float | None  # None: no limit
    trials: int
    flips: int
    harmful: int
    helpful: int


def eer_threshold(scores: ArrayLike, labels: ArrayLike) -> float:
    """Threshold at the equal error rate, halfway between two scores: accept a trial whose score is at least that.

    scores: [trials]; labels: [trials], true for target trials. Raises InputError as `pipeline.scoring.metrics.eer`.
    """
    return eer(scores, labels).threshold


def decision_flips(
    reference_scores: ArrayLike,
    other_scores: ArrayLike,
    labels: ArrayLike,
    threshold: float,
    other_threshold: float | None = None,
) -> DecisionFlips:
    """Trials that the other system decides differently from the reference.

    All of [trials]; labels true for target trials. A system accepts a score of at least its threshold; without
    `other_threshold` both use `threshold`.

    Raises InputError if the three rows differ in length or are empty, or if a score or threshold is NaN.
    """
    reference, other = np.asarray(reference_scores, np.float64), np.asarray(other_scores, np.float64)
    target = np.asarray(labels, dtype=bool)
    if not reference.shape == other.shape == target.shape or target.ndim != 1 or not len(target):
        raise InputError(
            "scores",
            expected="as many reference scores, other scores and labels, in one row",
            found=f"{reference.shape}, {other.shape}, {target.shape}",
        )
    second = threshold if other_threshold is None else other_threshold
    if np.isnan(reference).any() or np.isnan(other).any() or np.isnan([threshold, second]).any():
        raise InputError("scores", expected="scores and thresholds that are numbers", found="NaN")
    was, now = reference >= threshold, other >= second
    flipped = was != now
    harmful = flipped & (was == target)
    return DecisionFlips(
        trials=len(target),
        total=int(flipped.sum()),
        harmful=int(harmful.sum()),
        helpful=int((flipped & ~harmful).sum()),
        newly_missed=int((harmful & target).sum()),
        newly_accepted_nontargets=int((harmful & ~target).sum()),
        reference_threshold=float(threshold),
        other_threshold=float(second),
    )


def flips_by_distance(
    reference_scores: ArrayLike,
    other_scores: ArrayLike,
    labels: ArrayLike,
    thresholds: tuple[float, float],
    edges: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0),
) -> list[FlipBin]:
    """`decision_flips` broken down by how far the reference's score was from its threshold: |score - threshold|.

    thresholds: the reference's and the other's. edges: rising distances in the unit of the reference's scores (natural
    units of log-likelihood ratios, where a calibration gives them); a bin holds its lower edge, the last has no end.
    Raises InputError as `decision_flips`.
    """
    threshold, other_threshold = thresholds
    decision_flips(reference_scores, other_scores, labels, threshold, other_threshold)  # for its checks
    reference, other = np.asarray(reference_scores, np.float64), np.asarray(other_scores, np.float64)
    target = np.asarray(labels, dtype=bool)
    was, now = reference >= threshold, other >= other_threshold
    distance = np.abs(reference - threshold)
    bins = []
    for low, high in itertools.pairwise((*edges, np.inf)):
        inside = (distance >= low) & (distance < high)
        flipped = inside & (was != now)
        harmful = int((flipped & (was == target)).sum())
        bins.append(
            FlipBin(
                low=low,
                high=None if np.isinf(high) else high,
                trials=int(inside.sum()),
                flips=int(flipped.sum()),
                harmful=harmful,
                helpful=int(flipped.sum()) - harmful,
            )
        )
    return bins
