"""The calibration plot: how scores of either class lie, and whether log-likelihood ratios mean what they say."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from calibration.calibrate import ScoredTrials
from calibration.llr import best_rising_llrs
from calibration.record import Calibration
from device_tests.report.drawing import INK, MUTED, RULE, colour, style, svg, svg_file

_BINS = 60
_SHOWN_LLR = 12.0


def calibration_plot(scored: ScoredTrials, calibration: Calibration) -> str:
    """An SVG file of two panels.

    Left: histograms of target and non-target scores, each of area 1, with the thresholds. Right: the fitted map from
    score to log-likelihood ratio over the best rising one (pool adjacent violators), which the data themselves give: a
    good calibration lies along it.
    """
    labels = scored.labels
    with style("calibration"):
        figure = Figure(figsize=(9.6, 4.0), layout="constrained")
        left, right = figure.subplots(1, 2)
        edges = np.linspace(scored.scores.min(), scored.scores.max(), _BINS + 1)
        for place, (name, members) in enumerate((("non-target", ~labels), ("target", labels))):
            density, _ = np.histogram(scored.scores[members], edges, density=True)
            left.stairs(density, edges, color=colour(place), label=f"{name} ({int(members.sum())})", linewidth=1.4)
        top = left.get_ylim()[1]
        for point in calibration.thresholds:
            left.axvline(point.threshold, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
            left.text(
                point.threshold, top, f" {point.name}", rotation=90, va="top", ha="right", fontsize=8, color=MUTED
            )
        left.set_xlabel(f"score ({calibration.score})")
        left.set_ylabel("density")
        left.set_yticks([])
        left.legend(frameon=False, loc="upper left", fontsize=9)
        order = np.argsort(scored.scores, kind="stable")
        rising = best_rising_llrs(scored.scores, labels)[order].clip(-_SHOWN_LLR, _SHOWN_LLR)
        right.axhline(0.0, color=RULE, linewidth=0.8)
        right.step(scored.scores[order], rising, where="mid", color=colour(0), label="best rising map", linewidth=1.4)
        right.plot(edges, calibration.llr.llr(edges), color=INK, label="logistic regression", linewidth=1.4)
        right.set_ylim(-_SHOWN_LLR, _SHOWN_LLR)
        right.set_xlabel(f"score ({calibration.score})")
        right.set_ylabel("log-likelihood ratio (natural)")
        right.set_title(f"Cllr {calibration.cllr:.3f} bit, min {calibration.cllr_min:.3f}", fontsize=10, color=MUTED)
        right.legend(frameon=False, loc="upper left", fontsize=9)
        return svg_file(svg(figure, "calibration"))
