from __future__ import annotations

import io
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from rich.console import Console

from device_tests.gates import GateResult, Verdicts
from device_tests.history import append, check, read_trend, trend_tables
from device_tests.records import BundleIdentity
from device_tests.report.build import build_report
from device_tests.report.figures import Report
from pipeline.errors import InputError
from tests.device_tests.report.run_factory import make_run

NONE = Verdicts(gates="g", results=())


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    folder = tmp_path_factory.mktemp("run")
    made = make_run(folder / "run", bits=("fp32", "4bit"), formats=("pte",))
    return build_report(made.run, made.folder, made.reference, made.artifacts, made.trials, folder / "out", title="t")


def version(report: Report, number: str, days: int, **fields: object) -> Report:
    models = tuple(model.model_copy(update=fields) if model.file == "4bit.pte" else model for model in report.models)
    bundle = BundleIdentity(name="speaker", version=number, manifest_sha256="0" * 64)
    started = report.started_at + timedelta(days=days)
    return report.model_copy(update={"bundle": bundle, "started_at": started, "models": models})


def test_versions_follow_one_another_and_a_run_counts_once(tmp_path: Path, report: Report) -> None:
    store = tmp_path / "deep" / "history.sqlite"
    for number, days in (("1.0.0", 0), ("1.1.0", 1), ("1.1.0", 1)):
        append(store, version(report, number, days), NONE)
    trend = read_trend(store, bundle="speaker", device="host")
    assert [(row.version, row.file) for row in trend.rows if row.file == "4bit.pte"] == [
        ("1.0.0", "4bit.pte"),
        ("1.1.0", "4bit.pte"),
    ]
    assert trend.regressions == ()
    assert read_trend(store, bundle="other").rows == ()


def test_regressions_are_flagged(tmp_path: Path, report: Report) -> None:
    store = tmp_path / "history.sqlite"
    model = next(one for one in report.models if one.file == "4bit.pte")
    latency = model.latency
    assert latency.ratio is not None
    assert latency.ratio_high is not None
    slow = latency.model_copy(
        update={
            "ratio": 2 * latency.ratio_high,
            "ratio_low": 1.9 * latency.ratio_high,
            "ratio_high": 2.1 * latency.ratio_high,
        }
    )
    wrong = model.device.model_copy(update={"eer": 0.9})
    append(store, version(report, "1.0.0", 0), NONE)
    append(store, version(report, "1.1.0", 1, latency=slow, device=wrong, file_bytes=model.file_bytes + 1), NONE)
    found = {one.figure: one for one in read_trend(store).regressions}
    assert set(found) == {"latency ratio", "EER", "file bytes"}
    assert (found["EER"].before_version, found["EER"].version) == ("1.0.0", "1.1.0")
    assert "4bit.pte" in found["EER"].line()
    assert f"{model.file_bytes + 1:,} in 1.1.0" in found["file bytes"].line()


def test_only_what_compares_is_compared(tmp_path: Path, report: Report) -> None:
    store = tmp_path / "history.sqlite"
    model = next(one for one in report.models if one.file == "4bit.pte")
    assert model.latency.ratio_high is not None
    ratios = dict.fromkeys(("ratio", "ratio_low", "ratio_high"), 3 * model.latency.ratio_high)
    slow = model.latency.model_copy(update=ratios)
    wrong = model.device.model_copy(update={"eer": 0.9})
    worse = version(report, "1.1.0", 1, latency=slow, device=wrong)
    protocol = report.protocol.model_copy(update={"threads": 2})
    elsewhere = worse.model_copy(update={"trials_sha256": "other trials", "protocol": protocol})
    append(store, version(report, "1.0.0", 0), NONE)
    append(store, elsewhere, NONE)
    assert read_trend(store).regressions == ()

    shaken = GateResult(gate="validity", subject="4bit.pte", verdict="failed", limit="steady timings", found="others")
    third = worse.model_copy(update={"started_at": worse.started_at + timedelta(days=1)})
    flipped = shaken.model_copy(update={"gate": "decision flips"})
    append(store, third, Verdicts(gates="g", results=(shaken, flipped)))
    trend = read_trend(store)
    # What lies between and does not compare is passed over; timings that are not valid are shown, and not compared.
    flagged = {(one.figure, one.before_version) for one in trend.regressions}
    assert flagged == {("EER", "1.0.0"), ("failed gates", "1.0.0")}
    assert {(one.before, one.now) for one in trend.regressions if one.figure == "failed gates"} == {(0, 1)}
    unsteady = shaken.model_copy(update={"subject": "fp32.pte"})  # the control of both
    fourth = worse.model_copy(update={"started_at": worse.started_at + timedelta(days=2)})
    append(store, fourth, Verdicts(gates="g", results=(unsteady,)))
    assert [row.timings_valid for row in read_trend(store).rows if row.file == "4bit.pte"] == [True, True, False, False]
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(*trend_tables(trend))
    assert f"{ratios['ratio']:.3f} invalid" in console.export_text()


def test_timings_that_mean_nothing_are_not_kept(tmp_path: Path, report: Report) -> None:
    store = tmp_path / "history.sqlite"
    append(store, version(report, "1.0.0", 0).model_copy(update={"latency_valid": False}), NONE)
    assert {row.latency_ratio for row in read_trend(store).rows} == {None}


def test_a_store_of_version_1_is_gone_on_with(tmp_path: Path, report: Report) -> None:
    store = tmp_path / "history.sqlite"
    append(store, version(report, "1.0.0", 0), NONE)
    with closing(sqlite3.connect(store)) as database, database:
        for column in ("trials", "protocol", "timings_valid"):
            database.execute(f"ALTER TABLE results DROP COLUMN {column}")
        database.execute("PRAGMA user_version = 1")
    append(store, version(report, "1.1.0", 1), NONE)
    rows = [row for row in read_trend(store).rows if row.file == "4bit.pte"]
    assert [(row.version, row.timings_valid) for row in rows] == [("1.0.0", False), ("1.1.0", True)]
    with closing(sqlite3.connect(store)) as database, database:
        database.execute("PRAGMA user_version = 3")
    with pytest.raises(InputError, match="expected a history of version 2, found version 3"):
        check(store)


def test_a_store_that_is_none(tmp_path: Path, report: Report) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_trend(tmp_path / "none.sqlite")
    (tmp_path / "bad.sqlite").write_bytes(b"this is not a database at all, but a text" * 30)
    with pytest.raises(InputError, match=r"bad\.sqlite: expected a history"):
        read_trend(tmp_path / "bad.sqlite")
    with pytest.raises(InputError, match=r"bad\.sqlite: expected a history"):
        check(tmp_path / "bad.sqlite")
