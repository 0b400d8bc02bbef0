"""One-dimensional k-means: the palette of a layer.

Minimises sum_w (w - C[nearest(w)])^2 over K = 2^bits centroids. In one dimension the clusters are intervals of the
sorted weights, so an iteration needs K binary searches and prefix sums only, however large the layer is.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.errors import InputError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

MAX_ITERATIONS = 200
MAX_OPTIMAL_CENTROIDS = 32  # above, the dynamic program costs more time than it saves error
_BINS = 384


def fit_palette(weights: Floats, bits: int, *, start: Floats | None = None, iterations: int = MAX_ITERATIONS) -> Floats:
    """Sorted palette, float32 [2^bits], of `weights` (any shape) by Lloyd's iteration.

    It starts from `start`, or else keeps the best of deterministic starts: centroids at equal quantiles, at equal steps
    between the extremes, and, up to 32 centroids, the optimum over histogram bins (Lloyd's iteration alone can end far
    above the minimum when centroids are few). An emptied cluster is re-seeded at the weight that is farthest from its
    centroid. With fewer distinct weights than centroids, the surplus entries repeat the largest.

    Raises InputError for a width outside 1..8, and for weights that are empty or not finite.
    """
    if not 1 <= bits <= 8:
        raise InputError("bits", expected="a width from 1 to 8", found=str(bits))
    ordered = np.sort(weights.astype(np.float64), axis=None)
    if ordered.size == 0 or not np.isfinite(ordered[[0, -1]]).all():
        raise InputError("weights of a layer", expected="finite values", found="none, NaN or infinity")
    count = 1 << bits
    distinct = np.unique(ordered)
    if distinct.size <= count:
        return np.concatenate([distinct, np.full(count - distinct.size, distinct[-1])]).astype(np.float32)
    if start is not None:
        return _lloyd(ordered, np.sort(start.astype(np.float64)), iterations)[0].astype(np.float32)
    starts = [
        np.quantile(ordered, (np.arange(count) + 0.5) / count),
        ordered[0] + (ordered[-1] - ordered[0]) * (np.arange(count) + 0.5) / count,
    ]
    if count <= MAX_OPTIMAL_CENTROIDS:
        starts.append(_optimum_over_bins(ordered, count))
    fits = [_lloyd(ordered, centroids, iterations) for centroids in starts]
    return min(fits, key=lambda fit: fit[1])[0].astype(np.float32)


def encode(weights: Floats, palette: Floats) -> npt.NDArray[np.uint8]:
    """Index of the nearest entry of a sorted palette for every weight, uint8 in the shape of `weights`."""
    return np.searchsorted(_midpoints(palette), weights.astype(np.float64)).astype(np.uint8)


def decode(codes: npt.NDArray[np.uint8], palette: Floats) -> Floats:
    """palette[codes]."""
    return palette[codes]


def _midpoints(palette: npt.NDArray[np.floating]) -> Doubles:
    centroids = palette.astype(np.float64)
    return (centroids[1:] + centroids[:-1]) / 2


def _optimum_over_bins(ordered: Doubles, count: int) -> Doubles:
    """Centroids of the best `count` clusters made of whole bins, by dynamic programming.

    cost(i, j) = sum w^2 - (sum w)^2 / n over the bins i..j-1; D_k[j] = min_i D_{k-1}[i] + cost(i, j). Half of the bins
    hold equally many weights, the others are equally wide, so that neither the middle nor the tails are coarse.
    """
    cuts = np.unique(
        np.concatenate(
            [
                np.linspace(0, ordered.size, _BINS // 2 + 1).astype(np.int64),
                np.searchsorted(ordered, np.linspace(ordered[0], ordered[-1], _BINS // 2 + 1)[1:-1]),
            ]
        )
    )
    ends = [np.concatenate([[0.0], np.cumsum(power)])[cuts] for power in (ordered, np.square(ordered))]
    sizes, sums, squares = (np.subtract.outer(end, end).T for end in (cuts, *ends))
    cost = np.where(sizes > 0, squares - np.square(sums) / np.maximum(sizes, 1), np.inf)
    np.fill_diagonal(cost, 0.0)
    best, choices = cost[0], []
    for _ in range(count - 1):
        totals = best[:, None] + cost
        choices.append(totals.argmin(axis=0))
        best = totals.min(axis=0)
    edges = [cuts.size - 1]
    for choice in reversed(choices):
        edges.append(int(choice[edges[-1]]))
    bounds = cuts[[0, *reversed(edges)]]
    prefix = np.concatenate([[0.0], np.cumsum(ordered)])
    filled = np.diff(bounds) > 0
    means = np.diff(prefix[bounds])[filled] / np.diff(bounds)[filled]
    # Empty clusters arise only when there are fewer bins than centroids; Lloyd's iteration re-seeds the surplus.
    return np.concatenate([means, np.full(count - means.size, means[-1])])


def _lloyd(ordered: Doubles, centroids: Doubles, iterations: int) -> tuple[Doubles, float]:
    """Refined centroids and their sum of squared errors."""
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(iterations):
        edges = np.concatenate([[0], np.searchsorted(ordered, _midpoints(centroids)), [ordered.size]])
        sizes = np.diff(edges)
        means = np.diff(sums[edges]) / np.maximum(sizes, 1)
        empty = np.flatnonzero(sizes == 0)
        if empty.size:
            errors = np.abs(ordered - np.repeat(centroids, sizes))
            means[empty] = ordered[np.argsort(errors, kind="stable")[-empty.size :]]
            means.sort()
        if np.array_equal(means, centroids):
            break
        centroids = means
    nearest = centroids[np.searchsorted(_midpoints(centroids), ordered)]
    return centroids, float(np.square(ordered - nearest).sum())
