from __future__ import annotations

import json
from pathlib import Path

import pytest

from device_tests.gates import DEFAULT_GATES, Verdicts, judge, read_gates
from device_tests.report.build import build_report
from device_tests.report.figures import Report
from device_tests.report.matrix import build_matrix, matrix_tables, terminal_tables
from tests.device_tests.report.run_factory import make_run

Run = tuple[Report, Verdicts]


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    """Two devices with the same files; on the second, timings mean nothing, and a result is missing."""
    made = make_run(tmp_path / "run", bits=("fp32", "4bit"))
    inputs = (made.run, made.folder, made.reference, made.artifacts, made.trials, tmp_path / "out")
    report = build_report(*inputs, title="t", speakers=made.speakers)
    other = report.model_copy(
        update={"device": "<phone>", "device_class": "emulator", "latency_valid": False, "missing": ("4bit.pte: gone",)}
    )
    limits = read_gates(DEFAULT_GATES, "host").model_copy(update={"kernels": ("portable",)})
    return [(one, judge(one, limits)) for one in (report, other)]


def test_every_file_on_every_device_has_a_cell(runs: list[Run], tmp_path: Path) -> None:
    matrix = build_matrix(runs, tmp_path / "matrix")
    assert len(matrix.cells) == 8
    assert [cell.latency_ratio is None for cell in matrix.cells] == [False] * 4 + [True] * 4
    assert {cell.failed for cell in matrix.cells if cell.device == "host"} == {()}
    assert {cell.failed for cell in matrix.cells if cell.device != "host"} == {("complete",)}
    (table,) = matrix_tables(matrix)
    assert table.rows[0][-1] == "passed"
    assert table.rows[-1][-1] == "complete (incomplete)"
    assert len(terminal_tables(matrix)) == 1
    assert json.loads((tmp_path / "matrix" / "matrix.json").read_text()) == json.loads(matrix.model_dump_json())


def test_the_page_is_self_contained_and_escaped(runs: list[Run], tmp_path: Path) -> None:
    build_matrix(runs, tmp_path / "matrix")
    page = (tmp_path / "matrix" / "matrix.html").read_text()
    assert page.count("<svg") == 2
    assert "<phone>" not in page
    assert "&lt;phone&gt;: failed: run: complete: expected all results, found 4bit.pte: gone" in page
    for link in ("http://", "https://", "src=", "@import"):
        assert link not in page
    assert "- &lt;phone&gt;: failed: run: complete" in (tmp_path / "matrix" / "matrix.md").read_text()
