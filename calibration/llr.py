"""From scores to log-likelihood ratios, and what such ratios are worth.

llr(s) = slope * s + intercept, in natural units: log P(s | target) / P(s | non-target), whatever the share of target
trials. An application with prior p accepts if llr >= -log(p / (1 - p)). The two numbers are found by logistic
regression (N. Brümmer and J. du Preez, "Application-independent evaluation of speaker detection", Computer Speech and
Language 20, 2006).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict
from scipy.optimize import isotonic_regression, minimize
from scipy.special import expit

from pipeline.errors import InputError

Float64 = NDArray[np.float64]


class LlrMap(BaseModel):
    """llr(s) = slope * s + intercept, in natural units."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    slope: float
    intercept: float

    def llr(self, scores: ArrayLike) -> Float64:
        """Log-likelihood ratios of scores, both [trials]."""
        return self.slope * np.asarray(scores, np.float64) + self.intercept


def fit_llr(scores: ArrayLike, labels: ArrayLike) -> LlrMap:
    """The map with the least cross entropy, target and non-target trials weighing one half each.

    scores: [trials]; labels: [trials], true for target trials. Labels are softened to (n + 1) / (n + 2) and 1 / (n + 2)
    (J. Platt, "Probabilistic outputs for support vector machines", 1999), n the trials of the class: the solution stays
    finite where the classes do not overlap, and many trials outweigh it.

    Raises InputError if a class is missing, scores are not finite or all equal, or targets do not score higher.
    """
    values, target = _checked(scores, labels)
    centre, scale = float(values.mean()), float(values.std())
    if scale <= 1e-12 * max(1.0, abs(centre)):
        raise InputError("scores", expected="scores that differ", found="all the same")
    x = (values - centre) / scale
    targets, nontargets = int(target.sum()), int((~target).sum())
    soft = np.where(target, (targets + 1) / (targets + 2), 1 / (nontargets + 2))
    weight = np.where(target, 0.5 / targets, 0.5 / nontargets)

    def loss(parameters: Float64) -> tuple[float, Float64]:
        logit = parameters[0] * x + parameters[1]
        # -soft log p - (1 - soft) log(1 - p) with p = expit(logit)
        value = float((weight * (np.logaddexp(0.0, logit) - soft * logit)).sum())
        slope = weight * (expit(logit) - soft)
        return value, np.array([(slope * x).sum(), slope.sum()])

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, method="BFGS", options={"gtol": 1e-9})
    slope = float(found.x[0]) / scale
    if not slope > 0:
        raise InputError("scores", expected="target trials that score higher", found="scores that fall with likelihood")
    return LlrMap(slope=slope, intercept=float(found.x[1]) - slope * centre)


def cllr(llrs: ArrayLike, labels: ArrayLike) -> float:
    """Cost of log-likelihood ratios, in bits: 0 is perfect, 1 is that of knowing nothing.

    (mean over targets of log2(1 + exp(-llr)) + mean over non-targets of log2(1 + exp(llr))) / 2.

    llrs: [trials], natural units. Raises InputError if a class is missing or a ratio is NaN.
    """
    values, target = _checked(llrs, labels)
    bits = cllr_terms(values, target)
    return float((bits[target].mean() + bits[~target].mean()) / 2)


def cllr_terms(llrs: Float64, target: NDArray[np.bool_]) -> Float64:
    """What each trial adds to its class's mean in `cllr`, in bits: [trials]."""
    terms: Float64 = np.logaddexp(0.0, np.where(target, -llrs, llrs)) / np.log(2)
    return terms


def min_cllr(scores: ArrayLike, labels: ArrayLike) -> float:
    """Cllr after the best rising map there is (pool adjacent violators): what calibration cannot mend, in bits.

    Raises InputError as `cllr`.
    """
    return cllr(best_rising_llrs(scores, labels), labels)


def best_rising_llrs(scores: ArrayLike, labels: ArrayLike) -> Float64:
    """The llr of each score by the best rising map: [trials]; infinite where the classes are apart.

    Raises InputError as `cllr`.
    """
    values, target = _checked(scores, labels)
    weight = np.where(target, 0.5 / target.sum(), 0.5 / (~target).sum())
    _, place = np.unique(values, return_inverse=True)
    mass = np.bincount(place, weights=weight)
    share = np.bincount(place, weights=weight * target) / mass
    posterior = isotonic_regression(share, weights=mass).x.clip(0.0, 1.0)
    # Sums of many small weights leave 1 - 1e-16 where the classes are apart.
    posterior = np.where(posterior > 1 - 1e-12, 1.0, np.where(posterior < 1e-12, 0.0, posterior))
    with np.errstate(divide="ignore"):
        llrs = np.log(posterior) - np.log1p(-posterior)
    rising: Float64 = llrs[place]
    return rising


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[Float64, NDArray[np.bool_]]:
    values, target = np.asarray(scores, np.float64), np.asarray(labels, bool)
    if values.shape != target.shape or values.ndim != 1:
        raise InputError("scores", expected="as many scores as labels", found=f"{values.shape}, {target.shape}")
    if not target.any() or target.all():
        raise InputError("scores", expected="target and non-target trials", found=f"{len(values)} of one class")
    if np.isnan(values).any():
        raise InputError("scores", expected="scores that are numbers", found="NaN")
    return values, target
