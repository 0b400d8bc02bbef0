"""The plots of a device report: size against EER, detection error trade-off, latency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter
from scipy.stats import norm

from device_tests.records import ModelFormat, RunRecord
from device_tests.report.drawing import INK, MUTED, PAPER, RULE, colour, size_axis, style, svg
from device_tests.report.figures import ModelFigures, Report
from device_tests.report.table import milliseconds
from pipeline.scoring.metrics import DetCurve

Float64 = npt.NDArray[np.float64]

_DET_TICKS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
_MARKERS: dict[ModelFormat, str] = {"pte": "o", "tflite": "s"}


@dataclass(frozen=True)
class DetSeries:
    """One system's curve: its label, its place among the widths (None: the fp32 reference), its EER."""

    label: str
    place: int | None
    eer: float
    curve: DetCurve


def widths(models: Sequence[ModelFigures]) -> list[str]:
    """The bit widths that get a colour, in the order of the run; fp32 is drawn in ink."""
    return list(dict.fromkeys(model.bits for model in models if model.bits != "fp32"))


def det_plot(series: Sequence[DetSeries]) -> str:
    """Detection error trade-off on normal-deviate axes, one curve per system, labels in the order of the EERs."""
    resolvable = min(_smallest_step(one.curve) for one in series)
    low = float(np.clip(max(min(one.eer for one in series) / 8, resolvable / 2), 0.0005, 0.02))
    high = 0.5
    span = norm.ppf([low, high])
    middle = float(norm.ppf(np.clip(np.mean([one.eer for one in series]), low, high)))
    # Labels stand in the corner that the curves leave free, the lowest EER nearest to the origin.
    in_corner_of_origin = (middle - span[0]) / (span[1] - span[0]) > 0.4
    with style("det"):
        figure = Figure(figsize=(6.4, 5.6), layout="constrained")
        axes = figure.add_subplot()
        axes.plot(span, span, color=RULE, linewidth=1)
        ordered = sorted(series, key=lambda one: -one.eer)
        for row, one in enumerate(ordered):
            shade = colour(one.place)
            x, y = (norm.ppf(np.clip(p, low / 10, 1 - 1e-6)) for p in (one.curve.p_false_alarm, one.curve.p_miss))
            dashes = "--" if one.place is None else "-"
            axes.plot(x, y, color=shade, linewidth=1.6, linestyle=dashes, solid_joinstyle="round")
            at = float(norm.ppf(max(one.eer, low)))
            axes.plot([at], [at], "o", color=shade, markersize=4)
            axes.annotate(
                f"{one.label} · {100 * one.eer:.2f} %",
                xy=(at, at),
                xycoords="data",
                xytext=(0.03, 0.04 + 0.062 * (len(ordered) - 1 - row))
                if in_corner_of_origin
                else (0.97, 0.94 - 0.062 * row),
                textcoords="axes fraction",
                color=shade,
                ha="left" if in_corner_of_origin else "right",
                fontweight="bold",
                arrowprops={
                    "arrowstyle": "-",
                    "color": shade,
                    "linewidth": 0.6,
                    "alpha": 0.45,
                    "shrinkB": 3,
                    "relpos": (1, 0.5) if in_corner_of_origin else (0, 0.5),
                },
            )
        ticks = [tick for tick in _DET_TICKS if low <= tick <= high]
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(FixedLocator(norm.ppf(ticks).tolist()))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * norm.cdf(value):.3g}"))
        axes.set_xlim(*span)
        axes.set_ylim(*span)
        axes.set_xlabel("false alarms, % of non-target trials")
        axes.set_ylabel("misses, % of target trials")
        axes.grid(color=RULE, linewidth=0.5)
        return svg(figure, "det")


def size_plot(report: Report) -> str:
    """File size (log) against EER with its bootstrap interval; circles .pte, squares .tflite."""
    order = widths(report.models)
    with style("size"):
        figure = Figure(figsize=(6.4, 5.6), layout="constrained")
        axes = figure.add_subplot()
        axes.axhline(100 * report.reference.eer, color=MUTED, linewidth=1, linestyle="--")
        labelled: set[str] = set()
        top = 100 * report.reference.eer_interval.high
        for model in report.models:
            shade = colour(order.index(model.bits) if model.bits in order else None)
            rate, interval = 100 * model.device.eer, model.device.eer_interval
            # Twins lie on one another: the second format's interval is drawn a little aside, its size is not changed.
            aside = 1.0 if model.format == "pte" else 1.035
            bar = [[max(0.0, rate - 100 * interval.low)], [max(0.0, 100 * interval.high - rate)]]
            axes.errorbar(
                [model.file_bytes * aside],
                [rate],
                yerr=bar,
                color=shade,
                elinewidth=1.1,
                capsize=3,
                marker=_MARKERS[model.format],
                markersize=6.5,
                markerfacecolor=shade if model.format == "pte" else PAPER,
                linestyle="none",
            )
            top = max(top, 100 * interval.high)
            if model.bits not in labelled:
                labelled.add(model.bits)
                axes.annotate(
                    model.bits,
                    (model.file_bytes, 100 * interval.high),
                    xytext=(0, 6),
                    textcoords="offset points",
                    ha="center",
                    color=shade,
                    fontweight="bold",
                )
        sizes = [model.file_bytes for model in report.models]
        size_axis(axes, min(sizes) / 1.6, max(sizes) * 1.6)
        axes.set_ylim(0, 1.15 * top if top > 0 else 1)
        axes.annotate(
            "fp32 reference",
            (0.01, 100 * report.reference.eer),
            xycoords=("axes fraction", "data"),
            xytext=(0, -4),
            textcoords="offset points",
            va="top",
            color=MUTED,
        )
        axes.set_xlabel("file size")
        axes.set_ylabel("EER, %, with its interval")
        axes.grid(color=RULE, linewidth=0.5)
        axes.text(0.01, 0.985, "● .pte   □ .tflite", transform=axes.transAxes, va="top", color=MUTED)
        return svg(figure, "size")


def latency_plot(report: Report, run: RunRecord) -> str:
    """Median latency per file as a bar, every timed run as a tick, p90 as a diamond, and the ratio to the control."""
    order = widths(report.models)
    samples = {model.file: np.array(model.latency_ns) / 1e6 for model in run.models}
    formats: list[ModelFormat] = list(dict.fromkeys(model.format for model in report.models))
    groups = [[model for model in report.models if model.format == one] for one in formats]
    with style("latency"):
        figure = Figure(figsize=(11.2, 0.9 + 0.42 * max(map(len, groups))), layout="constrained")
        panels: list[Axes] = list(figure.subplots(1, len(groups), squeeze=False)[0])
        for axes, model_format, group in zip(panels, formats, groups, strict=True):
            _latency_panel(axes, group, order, samples, report.protocol.speed_frames)
            axes.set_title(f".{model_format}", loc="left", fontweight="bold", color=INK)
        return svg(figure, "latency")


def _latency_panel(
    axes: Axes, group: Sequence[ModelFigures], order: Sequence[str], samples: dict[str, Float64], frames: int
) -> None:
    for row, model in enumerate(group):
        shade = colour(order.index(model.bits) if model.bits in order else None)
        p50, p90 = model.latency.p50_ns / 1e6, model.latency.p90_ns / 1e6
        axes.barh(row, p50, height=0.56, color=shade, alpha=0.22)
        axes.plot([p50, p50], [row - 0.28, row + 0.28], color=shade, linewidth=2.2)
        values = samples[model.file]
        axes.plot(values, np.full(len(values), row), "|", color=shade, markersize=9, alpha=0.5, markeredgewidth=0.8)
        axes.plot([p90], [row], "D", color=shade, markersize=4)
        words = f"{milliseconds(model.latency.p50_ns)} ms"
        if model.is_control:
            words += " · control"
        elif model.latency.ratio is not None:
            words += f" · {model.latency.ratio:.2f}×"
        axes.annotate(
            words,
            (max(p90, float(values.max())), row),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=INK,
        )
    widest = max(float(samples[model.file].max()) for model in group)
    axes.set_xlim(0, 1.55 * widest)
    axes.set_yticks(range(len(group)), [f"{model.bits} {_ops(model)}" for model in group])
    axes.invert_yaxis()
    axes.set_xlabel(f"ms for {frames} frames")
    axes.grid(axis="x", color=RULE, linewidth=0.5)
    axes.tick_params(axis="y", length=0)


def _ops(model: ModelFigures) -> str:
    return "fast" if model.mode == "fast" else model.lowering


def _smallest_step(curve: DetCurve) -> float:
    steps = [values[values > 0].min() for values in (curve.p_miss, curve.p_false_alarm)]
    return float(min(steps))
