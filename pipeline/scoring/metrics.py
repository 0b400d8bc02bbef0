"""Error rates of a verification system: EER, minDCF, DET curve, and how far to trust them.

Throughout, a trial is accepted if its score is at least the threshold. The operating points of n scores with m distinct
values are the m + 1 ways to cut them: below all, between neighbours, above all. Equal scores are never separated.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.errors import InputError

Metric = Literal["eer", "min_dcf"]
Float64 = NDArray[np.float64]

# A resample's weights, sums and rates take some ten arrays of this many numbers at a time: below 200 MB.
_BLOCK = 2_000_000


@dataclass(frozen=True)
class Eer:
    """Equal error rate (0..1) and a threshold at it."""

    rate: float
    threshold: float


@dataclass(frozen=True)
class DetCurve:
    """Operating points by rising threshold: P(miss) rises from 0 to 1, P(false alarm) falls from 1 to 0; all [points].

    A threshold lies halfway between two neighbouring scores; the first is the lowest score, the last is infinite.
    """

    thresholds: Float64
    p_miss: Float64
    p_false_alarm: Float64


@dataclass(frozen=True)
class DetectionCost:
    """Weights of the detection cost: prior of a target trial and cost of either error."""

    p_target: float = 0.01
    c_miss: float = 1.0
    c_false_alarm: float = 1.0


@dataclass(frozen=True)
class Resampling:
    """How a bootstrap interval is made: number of resamples, seed, and the probability that the interval covers."""

    draws: int = 1000
    seed: int = 0
    level: float = 0.95


@dataclass(frozen=True)
class Interval:
    """A percentile bootstrap interval; `unit` is what was resampled, `draws` how many resamples had both classes."""

    low: float
    high: float
    draws: int
    unit: Literal["speakers", "trials"]


VOXCELEB_COST = DetectionCost()
DEFAULT_RESAMPLING = Resampling()


def eer(scores: ArrayLike, labels: ArrayLike) -> Eer:
    """Equal error rate: where P(miss) and P(false alarm) cross, linearly interpolated between operating points.

    scores: [trials]; labels: [trials], true for target trials. Interpolation takes part only where target and
    non-target trials tie at the crossing; else the crossing lies on a step. Rising maps of the scores do not change the
    rate. The threshold is that of the operating point nearer to the crossing, so it lies halfway between two scores and
    tiny changes of a score do not flip a decision.

    Raises InputError if there are no trials, trials of one class only, or scores that are not finite.
    """
    ordered = OrderedScores.of(scores, labels)
    missed, accepted = ordered.errors(np.ones((1, ordered.trials)))
    imbalance = np.abs(missed * accepted[:, :1] - accepted * missed[:, -1:])[0]
    nearest = int(imbalance.argmin())
    return Eer(float(_eer_of(missed, accepted)[0]), float(ordered.thresholds()[nearest]))


def min_dcf(scores: ArrayLike, labels: ArrayLike, cost: DetectionCost = VOXCELEB_COST) -> float:
    """Minimum over thresholds of the detection cost, normalised by that of the better blind decision (so at most 1).

    dcf = (c_miss p_target P(miss) + c_fa (1 - p_target) P(fa)) / min(c_miss p_target, c_fa (1 - p_target)).

    scores: [trials]; labels: [trials], true for target trials. Raises InputError as `eer`, and for a prior outside
    (0, 1) or a cost that is not positive.
    """
    ordered = OrderedScores.of(scores, labels)
    missed, accepted = ordered.errors(np.ones((1, ordered.trials)))
    return float(_min_dcf_of(missed, accepted, cost)[0])


def det_curve(scores: ArrayLike, labels: ArrayLike) -> DetCurve:
    """All operating points. scores: [trials]; labels: [trials], true for target trials. Raises InputError as `eer`."""
    ordered = OrderedScores.of(scores, labels)
    missed, accepted = ordered.errors(np.ones((1, ordered.trials)))
    return DetCurve(ordered.thresholds(), missed[0] / missed[0, -1], accepted[0] / accepted[0, 0])


def bootstrap_interval(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    metric: Metric = "eer",
    speakers: Sequence[tuple[str, str]] | None = None,
    resampling: Resampling = DEFAULT_RESAMPLING,
    cost: DetectionCost = VOXCELEB_COST,
) -> Interval:
    """Percentile bootstrap interval of a metric.

    With `speakers` (the enrolment's and the test's speaker of every trial) speakers are drawn with replacement, since
    trials that share a speaker are not independent: a trial counts as often as its speaker was drawn, or the product
    for two speakers. Without, target and non-target trials are drawn with replacement, each class by itself, which
    understates the uncertainty. Resamples without target or without non-target trials are left out.

    Raises InputError as `eer`, and if no resample has both classes.
    """
    values = bootstrap_values(scores, labels, metric=metric, speakers=speakers, resampling=resampling, cost=cost)
    return percentile_interval(values, unit=resampled_unit(speakers), level=resampling.level)


def bootstrap_values(
    scores: ArrayLike,
    labels: ArrayLike,
    *,
    metric: Metric = "eer",
    speakers: Sequence[tuple[str, str]] | None = None,
    resampling: Resampling = DEFAULT_RESAMPLING,
    cost: DetectionCost = VOXCELEB_COST,
) -> Float64:
    """The metric on every resample of `bootstrap_interval`: [draws], fewer where a resample lacks a class.

    The resamples depend on labels, speakers and resampling alone: values of two systems on the same trials belong
    together one by one, so that their differences, or means over many systems, are of the same resampled trials.

    Raises InputError as `bootstrap_interval`.
    """
    ordered = OrderedScores.of(scores, labels)
    values = [
        _metric_of(metric, *ordered.errors(weights[:, ordered.order]), cost)
        for weights in resample_weights(ordered.labels, speakers, resampling)
    ]
    return np.concatenate(values)


def paired_bootstrap_difference(
    scores: ArrayLike,
    other_scores: ArrayLike,
    labels: ArrayLike,
    *,
    metric: Metric = "eer",
    speakers: Sequence[tuple[str, str]] | None = None,
    resampling: Resampling = DEFAULT_RESAMPLING,
    cost: DetectionCost = VOXCELEB_COST,
) -> Interval:
    """Percentile bootstrap interval of metric(other_scores) - metric(scores), both on the same resampled trials.

    An interval that does not hold 0 says that the two systems differ. See `bootstrap_interval` for the rest.
    """
    first, second = (
        bootstrap_values(one, labels, metric=metric, speakers=speakers, resampling=resampling, cost=cost)
        for one in (scores, other_scores)
    )
    return percentile_interval(second - first, unit=resampled_unit(speakers), level=resampling.level)


def percentile_interval(values: Float64, *, unit: Literal["speakers", "trials"], level: float) -> Interval:
    """The interval between the quantiles (1 - level) / 2 and (1 + level) / 2 of bootstrap values [draws].

    Raises InputError if there are none: no resample had both classes.
    """
    if not len(values):
        raise InputError("bootstrap", expected="resamples with target and non-target trials", found="none")
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(float(low), float(high), len(values), unit)


@dataclass(frozen=True)
class OrderedScores:
    """Checked scores in rising order: what every figure here is computed from.

    Raises InputError if there are no trials, trials of one class only, or scores that are not finite.
    """

    labels: NDArray[np.bool_]  # in the caller's order
    order: NDArray[np.intp]  # indices that sort the trials by score
    distinct: Float64  # [m] distinct scores, rising
    ends: NDArray[np.intp]  # [m] in sorted order, the last trial of every distinct score

    @classmethod
    def of(cls, scores: ArrayLike, labels: ArrayLike) -> OrderedScores:
        """Check and sort scores [trials] with labels [trials], true for target trials."""
        values = np.asarray(scores, dtype=np.float64)
        raw_classes = np.asarray(labels)
        if values.ndim != 1 or raw_classes.shape != values.shape:
            raise InputError(
                "scores", expected="as many scores as labels, in one row", found=f"{values.shape}, {raw_classes.shape}"
            )
        if not len(values):
            raise InputError("scores", expected="at least one target and one non-target trial", found="no trials")
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            raise InputError("scores", expected="finite scores", found=f"{bad} NaN or infinite of {len(values)}")
        if not np.isin(raw_classes, (0, 1)).all():
            raise InputError("labels", expected="0 or 1 (non-target or target)", found="other values")
        classes = raw_classes.astype(bool)
        if classes.all() or not classes.any():
            kind = "target" if classes.all() else "non-target"
            raise InputError("scores", expected="target and non-target trials", found=f"{len(values)} {kind} trials")
        order = np.argsort(values, kind="stable")
        ordered = values[order]
        ends = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
        return cls(classes, order, ordered[ends], ends)

    @property
    def trials(self) -> int:
        """Number of trials."""
        return len(self.labels)

    def thresholds(self) -> Float64:
        """[m + 1] thresholds of the operating points."""
        low, high = self.distinct[:-1], self.distinct[1:]
        middle = low / 2 + high / 2  # (low + high) / 2 could overflow
        middle = np.where(middle > low, middle, high)  # neighbouring floats have nothing between them
        return np.concatenate([self.distinct[:1], middle, [np.inf]])

    def errors(self, weights: Float64) -> tuple[Float64, Float64]:
        """Weight of the missed target and of the accepted non-target trials at every operating point.

        weights: [resamples, trials] in sorted order -> two arrays [resamples, m + 1]. With whole-number weights the
        sums are exact.
        """
        target = self.labels[self.order]
        below = np.zeros((2, len(weights), len(self.distinct) + 1))
        below[0, :, 1:] = np.cumsum(weights * target, axis=1)[:, self.ends]
        below[1, :, 1:] = np.cumsum(weights * ~target, axis=1)[:, self.ends]
        return below[0], below[1, :, -1:] - below[1]


def _metric_of(metric: Metric, missed: Float64, accepted: Float64, cost: DetectionCost) -> Float64:
    return _eer_of(missed, accepted) if metric == "eer" else _min_dcf_of(missed, accepted, cost)


def _eer_of(missed: Float64, accepted: Float64) -> Float64:
    """[resamples] equal error rates from the errors at every operating point [resamples, points]."""
    targets, nontargets = missed[:, -1], accepted[:, 0]
    # P(miss) - P(false alarm) times both totals: of whole numbers, so that equality is exact.
    imbalance = missed * nontargets[:, None] - accepted * targets[:, None]
    after = np.argmax(imbalance >= 0, axis=1)  # never 0: there all is accepted
    rows = np.arange(len(missed))
    low, high = imbalance[rows, after - 1], imbalance[rows, after]
    share = -low / (high - low)
    miss_low, miss_high = missed[rows, after - 1], missed[rows, after]
    crossing: Float64 = (miss_low + share * (miss_high - miss_low)) / targets
    return crossing


def _min_dcf_of(missed: Float64, accepted: Float64, cost: DetectionCost) -> Float64:
    """[resamples] normalised minimum costs from the errors at every operating point [resamples, points]."""
    if not (0 < cost.p_target < 1 and cost.c_miss > 0 and cost.c_false_alarm > 0):
        raise InputError("detection cost", expected="a prior within (0, 1) and costs above 0", found=str(cost))
    miss, false_alarm = cost.c_miss * cost.p_target, cost.c_false_alarm * (1 - cost.p_target)
    costs = miss * missed / missed[:, -1:] + false_alarm * accepted / accepted[:, :1]
    lowest: Float64 = costs.min(axis=1) / min(miss, false_alarm)
    return lowest


def resample_weights(
    labels: NDArray[np.bool_], speakers: Sequence[tuple[str, str]] | None, resampling: Resampling
) -> Iterator[Float64]:
    """How often each trial counts in each resample: blocks of [resamples, trials], those with one class left out.

    labels: [trials]; see `bootstrap_interval` for what is drawn. The weights are in the order of the labels.
    """
    if resampling.draws < 1 or not 0 < resampling.level < 1:
        raise InputError("bootstrap", expected="draws >= 1 and a level within (0, 1)", found=str(resampling))
    rng = np.random.default_rng(resampling.seed)
    rows = max(1, _BLOCK // len(labels))
    blocks = [min(rows, resampling.draws - done) for done in range(0, resampling.draws, rows)]
    if speakers is None:
        for block in blocks:
            weights = np.empty((block, len(labels)))
            for members in (np.flatnonzero(labels), np.flatnonzero(~labels)):
                weights[:, members] = _drawn_counts(block, len(members), rng)
            yield weights
        return
    if len(speakers) != len(labels):
        raise InputError("speakers", expected=f"a pair for each of {len(labels)} trials", found=f"{len(speakers)}")
    names, flat = np.unique(np.asarray(speakers, dtype=str), return_inverse=True)
    enrolled, tested = flat.reshape(len(labels), 2).T
    for block in blocks:
        counts = _drawn_counts(block, len(names), rng)
        weights = np.where(enrolled == tested, counts[:, enrolled], counts[:, enrolled] * counts[:, tested])
        both = (weights[:, labels].sum(axis=1) > 0) & (weights[:, ~labels].sum(axis=1) > 0)
        yield weights[both]


def _drawn_counts(rows: int, items: int, rng: np.random.Generator) -> Float64:
    """[rows, items]: how often each item comes up when as many are drawn with replacement."""
    drawn = rng.integers(0, items, (rows, items)) + items * np.arange(rows)[:, None]
    return np.bincount(drawn.ravel(), minlength=rows * items).reshape(rows, items).astype(np.float64)


def resampled_unit(speakers: Sequence[tuple[str, str]] | None) -> Literal["speakers", "trials"]:
    """What `resample_weights` draws."""
    return "trials" if speakers is None else "speakers"
