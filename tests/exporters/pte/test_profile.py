from __future__ import annotations

import json
from pathlib import Path

import pytest

from exporters.pte.emit import emit_pte, emit_split_pte, weights_file_name
from exporters.pte.profile import main
from tests.exporters.pte.models import tiny_pte
from tests.factories import tiny_artifact

pytestmark = pytest.mark.slow  # torch.export takes its time


def test_every_instruction_is_timed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "m.pte"
    model.write_bytes(emit_pte(tiny_artifact(4), lowering="voxpress", max_seconds=4.0, model_input="waveform"))
    trace = tmp_path / "trace.etdp"
    assert main([str(model), "--frames", "60", "--runs", "3", "--out", str(trace)]) == 0
    rows = json.loads(capsys.readouterr().out)
    ops = [row["op"] for row in rows]
    assert ops.count("voxpress::conv2d.out") == 7
    assert {"voxpress::fbank.out", "voxpress::stats_pool.out", "the whole"} <= set(ops)
    assert all(len(row["samples_ns"]) == 3 for row in rows)
    assert trace.stat().st_size > 0


def test_a_stock_program_is_a_delegate_and_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "m.pte"
    model.write_bytes(tiny_pte(4, "stock"))
    assert main([str(model), "--frames", "60", "--runs", "1"]) == 0
    assert "XnnpackBackend" in [row["op"] for row in json.loads(capsys.readouterr().out)]


def test_weights_beside_the_program(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    program, weights = emit_split_pte(tiny_artifact(4), lowering="voxpress", max_seconds=4.0)
    model = tmp_path / "m.pte"
    model.write_bytes(program)
    assert main([str(model)]) == 2
    assert "m.pte: expected its weights in" in capsys.readouterr().err
    (tmp_path / weights_file_name(tiny_artifact(4))).write_bytes(weights)
    assert main([str(model), "--frames", "60", "--runs", "1"]) == 0
    assert "voxpress::conv2d.out" in [row["op"] for row in json.loads(capsys.readouterr().out)]


def test_what_cannot_be_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "none.pte")]) == 2
    assert "none.pte: expected a .pte file, found No such file" in capsys.readouterr().err
