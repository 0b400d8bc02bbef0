"""Writes a sweep's report: figures as JSON, tables as Markdown, one self-contained page, and the plots as files."""

from __future__ import annotations

from pathlib import Path

from device_tests.report.drawing import svg_file
from device_tests.report.page import render
from device_tests.report.sweep_figures import Sweep
from device_tests.report.sweep_plots import bits_plot, pareto_plot, sensitivity_plot
from device_tests.report.sweep_tables import circumstances, sweep_markdown, sweep_tables
from pipeline.files import read_json, write_atomically

SWEEP_FILE = "sweep.json"


def write_sweep(sweep: Sweep, out: Path) -> None:
    """Write `sweep.json`, `.md` and `.html`, and the plots: `pareto-<list>.svg` and, if there are plans, `bits.svg` and
    `sensitivity.svg`.
    """
    pareto = [(one, pareto_plot(sweep, one)) for one in sweep.trial_lists]
    by_layer = {"bits": bits_plot(sweep), "sensitivity": sensitivity_plot(sweep)} if sweep.layers else {}
    plots = {f"pareto-{one.key}": plot for one, plot in pareto} | by_layer
    page = render(
        "sweep.html.j2",
        title=sweep.title,
        sweep=sweep,
        tables=sweep_tables(sweep),
        circumstances=circumstances(sweep),
        pareto=[(one.name, plot) for one, plot in pareto],
        by_layer=by_layer,
    )
    for name, plot in plots.items():
        write_atomically(out / f"{name}.svg", svg_file(plot))
    write_atomically(out / "sweep.html", page)
    write_atomically(out / "sweep.md", sweep_markdown(sweep))
    write_atomically(out / SWEEP_FILE, sweep.model_dump_json(indent=1) + "\n")


def read_sweep(folder: Path) -> Sweep:
    """The `sweep.json` of a folder. Raises InputError if it is missing or malformed."""
    return read_json(folder / SWEEP_FILE, Sweep, what="a sweep's figures")
