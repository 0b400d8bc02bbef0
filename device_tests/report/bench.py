"""Writes a benchmark's report beside its record: tables as Markdown, one self-contained page, and the plots."""

from __future__ import annotations

from pathlib import Path

from device_tests.bench.records import BenchRecord
from device_tests.report.bench_plots import growth_plot, trade_plot
from device_tests.report.bench_tables import bench_circumstances, bench_markdown, bench_tables, bench_title
from device_tests.report.drawing import svg_file
from device_tests.report.page import render
from pipeline.files import write_atomically


def write_bench_report(record: BenchRecord, out: Path) -> None:
    """Write `bench.md`, `bench.html`, and the plots: `trade-<threads>.svg` and, of several lengths, `growth.svg`."""
    plots = {f"trade-{threads}": trade_plot(record, threads) for threads in record.protocol.threads}
    if record.protocol.growth_frames:
        plots["growth"] = growth_plot(record)
    tables = bench_tables(record)
    page = render(
        "bench.html.j2",
        title=bench_title(record),
        record=record,
        tables=tables,
        circumstances=bench_circumstances(record),
        trade=[plots[f"trade-{threads}"] for threads in record.protocol.threads],
        growth=plots.get("growth"),
    )
    for name, plot in plots.items():
        write_atomically(out / f"{name}.svg", svg_file(plot))
    write_atomically(out / "bench.html", page)
    write_atomically(out / "bench.md", bench_markdown(record))
