"""The plots of a sweep: size against EER, the planned width of every layer, the sensitivity of every layer."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from device_tests.report.drawing import INK, MUTED, RULE, colour, legend, size_axis, style, svg
from device_tests.report.sweep_figures import Family, LayerFigures, Sweep, TrialList, pareto_front

# Families in the order of their colours, and how far each stands aside of the sizes that it shares with the others.
_FAMILIES: dict[Family, tuple[str, float]] = {
    "uniform": ("uniform", 1.0),
    "mixed": ("mixed", 1.03),
    "msft": ("mixed + MSFT", 1.06),
    "binary": ("1 bit", 1.0),
    "other order": ("MSFT, other orders", 1.09),
}
_LINES: tuple[Family, ...] = ("uniform", "mixed", "msft")  # families whose settings differ in size
# Beyond so many layers their names are no longer readable below an axis.
_NAMED_LAYERS = 60
_PENALTY_WIDTHS = (2, 4, 8)


def pareto_plot(sweep: Sweep, trial_list: TrialList) -> str:
    """Artifact bytes (log) against EER: a dot per seed, a marker for their mean, and the front of the means."""
    name = f"pareto-{trial_list.key}"
    with style(name):
        figure = Figure(figsize=(6.4, 5.6), layout="constrained")
        axes = figure.add_subplot()
        front = pareto_front(sweep.settings, trial_list.key)
        axes.step(
            [setting.size.artifact_bytes for setting in front],
            [100 * setting.on(trial_list.key).eer.mean for setting in front],
            where="post",
            color=RULE,
            linewidth=5,
            solid_joinstyle="round",
        )
        top = 0.0
        for setting in sweep.settings:
            _, aside = _FAMILIES.get(setting.family, ("fp32", 1.0))
            shade = _shade(setting.family)
            result = setting.on(trial_list.key)
            rates = [100 * one.evaluation.eer for one in result.seeds]
            top = max(top, *rates)
            x = setting.size.artifact_bytes * aside
            axes.plot([x] * len(rates), rates, "o", color=shade, markersize=3, alpha=0.6)
            axes.plot([x], [100 * result.eer.mean], "D", color=shade, markersize=6.5)
            if setting.family != "other order":  # they lie beside each other; the tables name them
                axes.annotate(
                    _short_label(setting.label),
                    (x, 100 * result.eer.mean),
                    xytext=(7, 3),
                    textcoords="offset points",
                    color=shade,
                    fontsize=9,
                )
        for family in _LINES:
            line = [setting for setting in sweep.settings if setting.family == family]
            axes.plot(
                [setting.size.artifact_bytes * _FAMILIES[family][1] for setting in line],
                [100 * setting.on(trial_list.key).eer.mean for setting in line],
                color=_shade(family),
                linewidth=1,
                alpha=0.7,
            )
        sizes = [setting.size.artifact_bytes for setting in sweep.settings]
        size_axis(axes, min(sizes) / 1.5, max(sizes) * 1.7)
        axes.set_ylim(0, 1.12 * top if top > 0 else 1)
        swept = {setting.family for setting in sweep.settings}
        shades = {title: _shade(key) for key, (title, _) in _FAMILIES.items() if key in swept}
        legend(axes, {"fp32": _shade("fp32")} | shades, marker="D")
        axes.set_xlabel("bytes of the artifact's tensors")
        axes.set_ylabel("EER, %")
        axes.grid(color=RULE, linewidth=0.5)
        return svg(figure, name)


def bits_plot(sweep: Sweep) -> str:
    """A panel per plan: the width of every layer of the first seed as a bar, of the other seeds as a tick."""
    plans = list(sweep.layers[0].widths)
    with style("bits"):
        figure = Figure(figsize=(11.2, 0.9 + 1.5 * len(plans)), layout="constrained")
        panels: list[Axes] = list(figure.subplots(len(plans), 1, squeeze=False, sharex=True)[:, 0])
        positions = np.arange(len(sweep.layers))
        for axes, plan in zip(panels, plans, strict=True):
            widths = np.array([layer.widths[plan] for layer in sweep.layers])
            axes.bar(positions, widths[:, 0], width=0.72, color=colour(1), alpha=0.35)
            for seed in range(1, widths.shape[1]):
                axes.plot(positions, widths[:, seed], "_", color=colour(1), markersize=9, alpha=0.8)
            axes.set_ylim(0, 8.6)
            axes.set_yticks([0, 2, 4, 6, 8])
            axes.set_title(plan, loc="left", fontweight="bold", color=INK)
            axes.grid(axis="y", color=RULE, linewidth=0.5)
        _layer_names(panels[-1], sweep.layers)
        figure.supylabel("bits", color=MUTED, fontsize=11)
        return svg(figure, "bits")


def sensitivity_plot(sweep: Sweep) -> str:
    """Above, the mean Hessian trace of every layer; below, its penalty at some widths.

    A dot per seed, a line at the geometric mean; zeros have no place on the logarithmic axes and are left out.
    """
    with style("sensitivity"):
        figure = Figure(figsize=(11.2, 6.0), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True)
        _seed_lines(above, [layer.trace for layer in sweep.layers], INK)
        for place, bits in enumerate(_PENALTY_WIDTHS):
            _seed_lines(below, [layer.penalty[bits] for layer in sweep.layers], colour(place))
        above.set_ylabel("mean Hessian trace")
        below.set_ylabel("trace × squared rounding error")
        for axes in (above, below):
            axes.set_yscale("log")
            axes.grid(axis="y", color=RULE, linewidth=0.5)
        legend(below, {f"{bits} bit": colour(place) for place, bits in enumerate(_PENALTY_WIDTHS)}, marker="D")
        _layer_names(below, sweep.layers)
        return svg(figure, "sensitivity")


def _seed_lines(axes: Axes, values: list[tuple[float, ...]], shade: str) -> None:
    table = np.array(values)
    table[table <= 0] = np.nan
    positions = np.arange(len(table))
    axes.plot(positions, np.exp(np.log(table).mean(axis=1)), color=shade, linewidth=1.4)
    for seed in table.T:
        axes.plot(positions, seed, "o", color=shade, markersize=3, alpha=0.5)


def _layer_names(axes: Axes, layers: tuple[LayerFigures, ...]) -> None:
    if len(layers) <= _NAMED_LAYERS:
        axes.set_xticks(range(len(layers)), [layer.name for layer in layers], rotation=60, ha="right", fontsize=9)
    else:
        axes.set_xlabel("layer, in the order of execution")
    axes.set_xlim(-0.8, len(layers) - 0.2)


def _shade(family: str) -> str:
    families: list[str] = list(_FAMILIES)
    return colour(families.index(family) if family in families else None)


def _short_label(label: str) -> str:
    """Without what the colour says: "mixed-4bit" -> "4", "1bit-static" -> "static"."""
    if label.startswith("1bit-"):
        return label.removeprefix("1bit-")
    return label.rpartition("-")[2].removesuffix("bit")
