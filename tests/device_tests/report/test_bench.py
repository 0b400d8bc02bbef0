from __future__ import annotations

import io
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.dom import minidom

import pytest
from rich.console import Console

from device_tests.bench.records import (
    BenchProtocol,
    BenchRecord,
    ContenderRecord,
    KernelsHold,
    Layers,
    LayerTiming,
    Measured,
    Memory,
    ModelFileRecord,
    Start,
    read_bench,
)
from device_tests.drive.environment import host_environment
from device_tests.report.bench import write_bench_report
from device_tests.report.bench_figures import (
    WeightFigures,
    fastest,
    memory,
    readiness,
    reasons,
    roof_fraction,
    speed_up,
    timing,
    weights,
)
from device_tests.report.bench_tables import bench_summary, bench_tables, bench_terminal
from pipeline.errors import InputError

MS = 1_000_000


def _start() -> Start:
    return Start(
        engine="x",
        runtime_version="1",
        threads=1,
        kernels=(),
        delegates=(),
        load_ns=7 * MS,
        first_ns=9 * MS,
        resident_before_bytes=100,
        resident_after_load_bytes=160,
        resident_after_first_bytes=190,
    )


def _measured(frames: int, threads: int, rounds: list[list[float]], failure: str | None = None) -> Measured:
    return Measured(
        frames=frames,
        threads=threads,
        starts=(_start(), _start()),  # one of an interrupted process, whose end is not known
        memory=(
            Memory(
                resident_bytes=200,
                peak_bytes=260,
                kernels_hold=KernelsHold(weight_bytes=40, scratch_bytes=7),
                kernels=("conv2d_f32_panel_14x32_avx512",),
            ),
        ),
        rounds=tuple(tuple(round(value * MS) for value in turn) for turn in rounds),
        failure=failure,
    )


def _contender(
    name: str, kind: Any, size: int, measured: list[Measured], failure: str | None = None
) -> ContenderRecord:
    files = () if failure else (ModelFileRecord(name=f"{name}.bin", bytes=size, sha256="a" * 64),)
    cosines = {} if failure else {"u": 0.998, "v": 0.996}
    return ContenderRecord(
        name=name,
        title=name.upper(),
        kind=kind,
        runtime="litert",
        files=files,
        cosines=cosines,
        measured=tuple(measured),
        failure=failure,
    )


def _record(**changes: Any) -> BenchRecord:
    # The machine slows down by half in the second round: ratios within rounds do not see it.
    contenders = (
        _contender(
            "ours", "voxpress", 25, [_measured(200, 1, [[10, 10], [15, 15]]), _measured(200, 2, [[6, 6], [9, 9]])]
        ),
        _contender("f-slow", "fp32", 110, [_measured(200, 1, [[60, 60], [90, 90]]), _measured(200, 2, [[40, 40]] * 2)]),
        _contender("f-fast", "fp32", 100, [_measured(200, 1, [[40, 40], [60, 60]]), _measured(200, 2, [[50, 50]] * 2)]),
        _contender(
            "i-one", "int8", 30, [_measured(200, 1, [[20, 20], [30, 30]]), _measured(200, 2, [[15, 15]], "fell")]
        ),
        _contender("w-four", "weight-only", 12, [_measured(200, 1, [[4, 4], [4, 4]]), _measured(200, 2, [[4, 4]] * 2)]),
        _contender("gone", "fp32", 1, [], "not installed: gone"),
    )
    layers = Layers(
        mode="exact",
        isa="avx512",
        bits=4,
        frames=200,
        roof_macs=1000,
        roof_samples_ns=(10, 10, 30),
        layers=(LayerTiming(name="conv1", kernel="k_avx512", macs=500, packed_bytes=1, samples_ns=(10, 20, 10)),),
    )
    values: dict[str, Any] = {
        "model": "net",
        "weights": "random, seed 0",
        "audio": "synthetic voices",
        "started_at": datetime(2026, 1, 2, tzinfo=UTC),
        "environment": host_environment(),
        "protocol": BenchProtocol(runs=2, rounds=2),
        "features_sha256": "b" * 64,
        "contenders": contenders,
        "layers": (layers,),
        "notes": ("the <machine> was busy",),
    }
    return BenchRecord(**{**values, **changes})


def test_ratios_are_those_of_turns_in_one_round() -> None:
    record = _record()
    ours = record.contenders[0]
    assert fastest(record, "fp32", 200, 1).name == "f-fast"
    assert fastest(record, "fp32", 200, 2).name == "f-slow"
    found = timing(record, ours, 200, 1)
    assert (found.p50_ns, found.least_ns, found.runs) == (12.5 * MS, 10 * MS, 4)
    # 10/40 in one round and 15/60 in the other: the drift is gone.
    assert (found.to_fp32.peer, found.to_fp32.value) == ("F-FAST", 0.25)
    assert (found.to_fp32.low, found.to_fp32.high) == (0.25, 0.25)
    assert found.to_int8.value == 0.5
    assert speed_up(ours, 200, 2) == pytest.approx(10 / 6)
    assert speed_up(record.contenders[2], 200, 2) == pytest.approx((40 / 50 + 60 / 50) / 2)


def test_a_weight_only_peer_is_no_int8_peer_and_a_failed_one_no_measure() -> None:
    record = _record()
    assert fastest(record, "int8", 200, 1).name == "i-one"
    # On two threads the only int8 peer failed, so there is no such ratio.
    assert fastest(record, "int8", 200, 2) is None
    assert timing(record, record.contenders[0], 200, 2).to_int8 is None
    assert timing(record, record.contenders[3], 200, 2) is None
    assert timing(record, record.contenders[5], 200, 1) is None
    assert reasons(record) == [("GONE", "not installed: gone"), ("I-ONE, 200 frames, 2 threads", "fell")]


def test_memory_grows_from_before_the_model_is_loaded() -> None:
    found = memory(_record().contenders[0], 200, 1)
    assert (found.load_growth_bytes, found.run_growth_bytes, found.peak_growth_bytes) == (60, 100, 160)


def test_ready_is_load_and_first_inference_and_counts_in_inferences() -> None:
    found = readiness(_record().contenders[0], 200, 1)
    assert (found.load_ns, found.first_ns, found.ready_ns, found.processes) == (7 * MS, 9 * MS, 16 * MS, 2)
    assert found.inferences == 16 / 12.5
    (table,) = [table for table in bench_tables(_record()) if table.title == "Load, 1 thread"]
    assert table.rows[0] == ("OURS", "7.00", "9.00", "16.00", "1.28", "2")
    assert "GONE" not in {row[0] for row in table.rows}


def test_weights_in_memory_are_counted_for_our_own_files_only() -> None:
    record = _record()
    assert weights(record.contenders[0], 200, 1) == WeightFigures(kept_bytes=40, scratch_bytes=7)
    assert weights(record.contenders[1], 200, 1) is None
    one, two = [table for table in bench_tables(record) if table.title.startswith("Memory")]
    assert one.rows[0] == ("OURS", "25", "60", "100", "160", "200", "40", "7")
    assert one.rows[1][-2:] == ("–", "–")
    assert "I-ONE" not in {row[0] for row in two.rows}  # it failed there


def test_fraction_of_the_roof() -> None:
    layers = _record().layers[0]
    assert roof_fraction(layers, layers.layers[0]) == pytest.approx((500 / 10) / (1000 / 10))


def test_summary_has_every_contender() -> None:
    table = bench_summary(_record())
    assert [row[0] for row in table.rows] == ["OURS", "F-SLOW", "F-FAST", "I-ONE", "W-FOUR", "GONE"]
    assert table.rows[0] == ("OURS", "25", "0.250", "0.99700", "12.50", "0.25", "0.50", "7.50", "0.19", "–")
    assert set(table.rows[5][1:]) == {"–"}
    assert "1 thread: F-FAST and I-ONE; 2 threads: F-SLOW" in table.caption


def test_report_is_whole_and_self_contained(tmp_path: Path) -> None:
    record = _record()
    write_bench_report(record, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "bench.html",
        "bench.md",
        "trade-1.svg",
        "trade-2.svg",
    ]
    page, text = (tmp_path / "bench.html").read_text(), (tmp_path / "bench.md").read_text()
    assert not re.findall(r'(?:src|href)="(?!#)', page)
    assert "&lt;machine&gt;" in page
    for table in bench_tables(record):
        assert table.title in page
        assert f"## {table.title}" in text
        assert all(len(row) == len(table.columns) for row in table.rows)
    for plot in tmp_path.glob("*.svg"):
        assert minidom.parse(str(plot)).documentElement.tagName == "svg"
    console = Console(file=io.StringIO(), width=200)
    for table in bench_terminal(record):
        console.print(table)
    assert "not installed: gone" in console.file.getvalue()


def test_growth_is_a_table_and_a_plot(tmp_path: Path) -> None:
    record = _record()
    grown = tuple(
        one.model_copy(update={"measured": (*one.measured, _measured(98, 1, [[5], [5], [5]]))})
        if one.failure is None
        else one
        for one in record.contenders
    )
    protocol = record.protocol.model_copy(update={"growth_frames": (98,)})
    record = _record(contenders=grown, protocol=protocol)
    write_bench_report(record, tmp_path)
    assert (tmp_path / "growth.svg").is_file()
    times, ratios = [table for table in bench_tables(record) if table.title.startswith("Growth")]
    assert times.columns == ("contender", "98 frames, ms", "200 frames, ms")
    assert times.rows[0] == ("OURS", "5.00", "12.50")
    # At 98 frames all are as fast as each other.
    assert ratios.rows[0] == ("OURS", "1.00 / 1.00", "0.25 / 0.50")
    assert "200 frames: F-FAST and I-ONE" in ratios.caption


def test_record_is_read_back_and_checked(tmp_path: Path) -> None:
    record = _record()
    (tmp_path / "bench.json").write_text(record.model_dump_json())
    assert read_bench(tmp_path) == record
    (tmp_path / "bench.json").write_text(record.model_dump_json().replace('"runs":2', '"runs":3'))
    with pytest.raises(InputError, match=r"bench\.json: .*has not the rounds that the protocol says"):
        read_bench(tmp_path)
    with pytest.raises(ValueError, match="listed twice"):
        _record(contenders=record.contenders[:1] * 2)
