"""The plots of a benchmark: file size against latency, and latency over utterance length."""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from device_tests.bench.records import BenchRecord, Kind
from device_tests.report.bench_figures import timing
from device_tests.report.drawing import RULE, colour, size_axis, style, svg

# Kinds in the order of their colours, with what the legend calls them.
_KINDS: dict[Kind, tuple[int | None, str]] = {
    "voxpress": (0, "VoxPress"),
    "int8": (1, "int8 peers"),
    "weight-only": (2, "weight-only peers"),
    "fp32": (None, "fp32 peers"),
}


def trade_plot(record: BenchRecord, threads: int) -> str:
    """Bytes (log) against median latency, a dot per contender."""
    name = f"trade-{threads}"
    with style(name):
        figure = Figure(figsize=(6.4, 5.6), layout="constrained")
        axes = figure.add_subplot()
        sizes, times = [], []
        for contender in record.contenders:
            found, size = timing(record, contender, record.protocol.frames, threads), contender.file_bytes
            if found is None or size is None:
                continue
            sizes.append(size)
            times.append(found.p50_ns / 1e6)
            shade = colour(_KINDS[contender.kind][0])
            axes.plot([size], [times[-1]], "s" if contender.runtime == "litert" else "o", color=shade, markersize=6)
            axes.annotate(
                contender.title.removeprefix("VoxPress "),
                (size, times[-1]),
                xytext=(6, 3),
                textcoords="offset points",
                color=shade,
                fontsize=7,
            )
        if sizes:
            size_axis(axes, min(sizes) / 1.6, max(sizes) * 3.5)
            axes.set_ylim(0, 1.12 * max(times))
        _legend(axes)
        axes.set_xlabel("bytes of the files")
        axes.set_ylabel(
            f"ms for {record.protocol.frames} frames, {'1 thread' if threads == 1 else f'{threads} threads'}"
        )
        axes.grid(color=RULE, linewidth=0.5)
        return svg(figure, name)


def growth_plot(record: BenchRecord) -> str:
    """Median latency over utterance length, both logarithmic, a line per contender."""
    lengths = sorted({record.protocol.frames, *record.protocol.growth_frames})
    with style("growth"):
        figure = Figure(figsize=(6.4, 5.6), layout="constrained")
        axes = figure.add_subplot()
        for contender in record.contenders:
            found = [(frames, timing(record, contender, frames, record.protocol.growth_threads)) for frames in lengths]
            line = [(frames, one.p50_ns / 1e6) for frames, one in found if one is not None]
            if line:
                shade = colour(_KINDS[contender.kind][0])
                axes.plot(*zip(*line, strict=True), "-o", color=shade, markersize=3, linewidth=1, alpha=0.8)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(FixedLocator([float(frames) for frames in lengths]))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(value)}"))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        _legend(axes)
        axes.set_xlabel("frames")
        axes.set_ylabel("ms")
        axes.grid(color=RULE, linewidth=0.5)
        return svg(figure, "growth")


def _legend(axes: Axes) -> None:
    handles = [
        Line2D([], [], marker="o", linestyle="none", color=colour(place), label=words)
        for place, words in _KINDS.values()
    ]
    axes.legend(
        handles=handles,
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=len(handles),
        frameon=False,
        labelcolor="linecolor",
        handletextpad=0.1,
        columnspacing=1.2,
        borderaxespad=0.2,
    )
