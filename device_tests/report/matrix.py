"""Many runs on one page: devices down, model files across, a cell for what matters of each."""

from __future__ import annotations

import html
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from pydantic import BaseModel, ConfigDict
from rich.table import Table as RichTable

from device_tests.gates import Verdicts
from device_tests.report.drawing import MUTED, RULE, colour, style, svg
from device_tests.report.figures import ModelFigures, Report
from device_tests.report.junit import junit_xml
from device_tests.report.page import render
from device_tests.report.table import NONE, Table, markdown_table, terminal_table
from pipeline.files import write_atomically

MATRIX_FILE = "matrix.json"


class Cell(BaseModel):
    """One model file on one device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    device_class: str
    bundle: str
    file: str
    label: str
    format: str
    eer: float
    eer_difference: float | None
    relative_error: float | None
    file_bytes: int
    latency_ratio: float | None
    peak_bytes: int
    failed: tuple[str, ...]
    complete: bool


class Matrix(BaseModel):
    """All cells (`matrix.json`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cells: tuple[Cell, ...]


Runs = Sequence[tuple[Report, Verdicts]]


def build_matrix(runs: Runs, out: Path) -> Matrix:
    """Write `matrix.html`, `matrix.md`, `matrix.json` and `junit.xml` of some runs into `out`."""
    matrix = Matrix(cells=tuple(_cell(report, model, verdicts) for report, verdicts in runs for model in report.models))
    tables = matrix_tables(matrix)
    page = render(
        "matrix.html.j2",
        title="Devices and bundles",
        tables=tables,
        failures=_failures(runs),
        plots=[_plot(matrix, "eer"), _plot(matrix, "latency_ratio")],
    )
    write_atomically(out / "matrix.html", page)
    write_atomically(out / "matrix.md", _markdown(tables, _failures(runs)))
    write_atomically(out / "junit.xml", junit_xml(runs))
    write_atomically(out / MATRIX_FILE, matrix.model_dump_json(indent=1) + "\n")
    return matrix


def matrix_tables(matrix: Matrix) -> list[Table]:
    """One table for each bundle: a row for each device and file."""
    tables = []
    for bundle in dict.fromkeys(cell.bundle for cell in matrix.cells):
        cells = [cell for cell in matrix.cells if cell.bundle == bundle]
        tables.append(
            Table(
                bundle,
                ("device", "file", "EER %", "Δ to artifact", "max rel. error", "bytes", "× control", "gates"),
                tuple(_row(cell) for cell in cells),
                "Δ: EER of the device minus that of the decoded artifact, in points. × control: time to the fp32 "
                "control of the same run; – where timings mean nothing.",
                left=2,
            )
        )
    return tables


def terminal_tables(matrix: Matrix) -> list[RichTable]:
    """The same for a terminal."""
    return [terminal_table(source) for source in matrix_tables(matrix)]


def _cell(report: Report, model: ModelFigures, verdicts: Verdicts) -> Cell:
    bundle = report.bundle
    parity, difference = model.artifact_parity, model.to_artifact
    return Cell(
        device=report.device,
        device_class=report.device_class,
        bundle=f"{bundle.name} {bundle.version}" if bundle is not None else report.title,
        file=model.file,
        label=model.bits,
        format=model.format,
        eer=model.device.eer,
        eer_difference=None if difference is None else difference.eer,
        relative_error=None if parity is None else parity.max_relative_error,
        file_bytes=model.file_bytes,
        latency_ratio=model.latency.ratio if report.latency_valid else None,
        peak_bytes=model.memory.peak_bytes,
        failed=tuple(result.gate for result in verdicts.failed if result.subject in (model.file, "run")),
        complete=not report.missing,
    )


def _row(cell: Cell) -> tuple[str, ...]:
    verdict = ", ".join(cell.failed) or "passed"
    return (
        cell.device,
        cell.file,
        f"{100 * cell.eer:.2f}",
        NONE if cell.eer_difference is None else f"{100 * cell.eer_difference:+.2f}",
        NONE if cell.relative_error is None else f"{cell.relative_error:.1e}",
        f"{cell.file_bytes:,}",
        NONE if cell.latency_ratio is None else f"{cell.latency_ratio:.2f}",
        verdict if cell.complete else f"{verdict} (incomplete)",
    )


def _plot(matrix: Matrix, figure_name: str) -> str:
    """A dot for each device and file; the same file keeps its row and the same device its colour."""
    files = list(dict.fromkeys(cell.file for cell in matrix.cells))
    devices = list(dict.fromkeys(cell.device for cell in matrix.cells))
    name = f"matrix-{figure_name}".replace("_", "-")
    with style(name):
        figure = Figure(figsize=(11.2, 1.2 + 0.34 * len(files)), layout="constrained")
        axes = figure.add_subplot()
        for cell in matrix.cells:
            value = cell.eer * 100 if figure_name == "eer" else cell.latency_ratio
            if value is None:
                continue
            place = devices.index(cell.device)
            row = files.index(cell.file) + 0.12 * (place - (len(devices) - 1) / 2)
            marker = "x" if cell.failed else "o"
            axes.plot([value], [row], marker, color=colour(place), markersize=7)
        for place, device in enumerate(devices):
            axes.plot([], [], "o", color=colour(place), label=device)
        axes.legend(loc="upper right", frameon=False, labelcolor="linecolor")
        axes.set_yticks(range(len(files)), files)
        axes.set_ylim(len(files) - 0.5, -0.5)
        axes.set_xlim(left=0)
        axes.set_xlabel("EER, %" if figure_name == "eer" else "time, to the fp32 control of the same run")
        axes.grid(axis="x", color=RULE, linewidth=0.5)
        axes.tick_params(axis="y", length=0, colors=MUTED)
        return svg(figure, name)


def _failures(runs: Runs) -> list[str]:
    return [f"{report.device}: {result.line()}" for report, verdicts in runs for result in verdicts.failed]


def _markdown(tables: Sequence[Table], failures: Sequence[str]) -> str:
    lines = ["# Devices and bundles", "", "## Failed gates", ""]
    lines += [f"- {html.escape(line, quote=False)}" for line in failures] or ["- none"]
    for table in tables:
        lines += markdown_table(table)
    return "\n".join(lines) + "\n"


__all__ = ["MATRIX_FILE", "Cell", "Matrix", "build_matrix", "matrix_tables", "terminal_tables"]
