"""The plots of a benchmark: file size against latency, and latency over utterance length."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from device_tests.bench.records import BenchRecord, ContenderRecord, Kind
from device_tests.report.bench_figures import timing
from device_tests.report.bench_growth import measured_lengths
from device_tests.report.drawing import RULE, colour, legend, size_axis, style, svg
from device_tests.report.table import threads_text

# Kinds in the order of their colours, with what the legend calls them.
_KINDS: dict[Kind, tuple[int | None, str]] = {
    "voxpress": (0, "VoxPress"),
    "int8": (1, "int8 peers"),
    "weight-only": (2, "weight-only peers"),
    "fp32": (None, "fp32 peers"),
}

_SHADES = {words: colour(place) for place, words in _KINDS.values()}

# How far aside a label stands, and the height of its line as a part of the axis.
_ASIDE = 1.12
_LINE = 0.026
_NEAR = 1.5  # ratio of sizes

_Point = tuple[ContenderRecord, int, float]  # with its bytes and milliseconds


def trade_plot(record: BenchRecord, threads: int) -> str:
    """Bytes (log) against median latency, a marker per contender, its name beside it."""
    name = f"trade-{threads}"
    points = [
        (contender, size, found.p50_ns / 1e6)
        for contender in record.contenders
        if (found := timing(record, contender, record.protocol.frames, threads)) is not None
        and (size := contender.file_bytes) is not None
    ]
    top = 1.12 * max((time for _, _, time in points), default=1.0)
    with style(name):
        figure = Figure(figsize=(11.2, 6.4), layout="constrained")
        axes = figure.add_subplot()
        for contender, size, time in points:
            shade = colour(_KINDS[contender.kind][0])
            axes.plot([size], [time], "s" if contender.runtime == "litert" else "o", color=shade, markersize=6)
        for column in _columns(points):
            heights = _spread([time for _, _, time in column], top)
            for (contender, size, time), height in zip(column, heights, strict=True):
                axes.annotate(
                    contender.title.removeprefix("VoxPress "),
                    (size, time),
                    xytext=(size * _ASIDE, height),
                    va="center",
                    color=colour(_KINDS[contender.kind][0]),
                    fontsize=8,
                    arrowprops={"arrowstyle": "-", "color": RULE, "linewidth": 0.8, "shrinkB": 4},
                )
        if points:
            sizes = [size for _, size, _ in points]
            size_axis(axes, min(sizes) / 1.3, max(sizes) * 2.2)
        axes.set_ylim(0, top)
        legend(axes, _SHADES)
        axes.set_xlabel("bytes of the files")
        axes.set_ylabel(f"ms for {record.protocol.frames} frames, {threads_text(threads)}")
        axes.grid(color=RULE, linewidth=0.5)
        return svg(figure, name)


def _columns(points: Sequence[_Point]) -> list[list[_Point]]:
    """Points whose labels could meet, as their sizes are near; each list by ascending time."""
    columns: list[list[_Point]] = []
    for point in sorted(points, key=lambda one: one[1]):
        if columns and point[1] < _NEAR * columns[-1][-1][1]:
            columns[-1].append(point)
        else:
            columns.append([point])
    return [sorted(column, key=lambda one: one[2]) for column in columns]


def _spread(heights: list[float], top: float) -> list[float]:
    """Heights of labels, ascending as the heights given and no nearer to each other than a line of text."""
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + top * _LINE) if placed else height)
    return placed


def growth_plot(record: BenchRecord) -> str:
    """Over utterance length, a line per contender: median latency, and its ratio to the fastest int8 peer's."""
    lengths, threads = measured_lengths(record), record.protocol.growth_threads
    with style("growth"):
        figure = Figure(figsize=(11.2, 5.6), layout="constrained")
        times, ratios = figure.subplots(1, 2)
        for contender in record.contenders:
            found = [(frames, timing(record, contender, frames, threads)) for frames in lengths]
            known = [(frames, one) for frames, one in found if one is not None]
            _line(times, contender, [(frames, one.p50_ns / 1e6) for frames, one in known])
            _line(ratios, contender, [(frames, one.to_int8.value) for frames, one in known if one.to_int8 is not None])
        times.set_yscale("log")
        times.set_ylabel(f"ms, {threads_text(threads)}")
        times.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        ratios.set_ylabel("× fastest int8 peer of that length")
        ratios.set_ylim(bottom=0)
        for axes in (times, ratios):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(FixedLocator([float(frames) for frames in lengths]))
            axes.xaxis.set_minor_locator(NullLocator())
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{round(value)}"))
            axes.tick_params(axis="x", rotation=45)
            axes.set_xlabel("frames")
            axes.grid(color=RULE, linewidth=0.5)
        legend(times, _SHADES)
        return svg(figure, "growth")


def _line(axes: Axes, contender: ContenderRecord, points: Sequence[tuple[int, float]]) -> None:
    if points:
        shade = colour(_KINDS[contender.kind][0])
        axes.plot(*zip(*points, strict=True), "-o", color=shade, markersize=3, linewidth=1, alpha=0.8)
