"""Runs over time: one SQLite file, a row for each model file of each run, and what got worse between versions.

A result is compared with the last one before it that it can be compared with: error rates with those on the same
trials, latency ratios with those of the same protocol, and only where both timings are valid.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from rich.table import Table

from device_tests.gates import Verdicts
from device_tests.report.figures import Report
from pipeline.errors import InputError

_VERSION = 2

_SCHEMA = """
CREATE TABLE IF NOT EXISTS results (
  run TEXT NOT NULL,              -- what run.json says it is: device, start, bundle
  started_at TEXT NOT NULL,
  device TEXT NOT NULL,
  device_class TEXT NOT NULL,
  bundle TEXT NOT NULL,
  version TEXT NOT NULL,
  file TEXT NOT NULL,
  label TEXT NOT NULL,
  format TEXT NOT NULL,
  lowering TEXT NOT NULL,
  sha256 TEXT NOT NULL,
  eer REAL NOT NULL,
  eer_low REAL NOT NULL,
  eer_high REAL NOT NULL,
  min_dcf REAL NOT NULL,
  file_bytes INTEGER NOT NULL,
  p50_ns INTEGER,                 -- NULL where timings mean nothing
  latency_ratio REAL,
  ratio_low REAL,
  ratio_high REAL,
  peak_bytes INTEGER NOT NULL,
  failed_gates INTEGER NOT NULL,  -- but that of validity, which is the machine's business
  trials TEXT NOT NULL,           -- which trials, and how far utterances were cut
  protocol TEXT NOT NULL,         -- what a latency ratio hangs on besides
  timings_valid INTEGER NOT NULL, -- 0: the gate of validity failed, for it or its control, or timings mean nothing
  PRIMARY KEY (run, file)
)
"""

# Version 1 did not say what a result compares with, so that its results compare with no later ones.
_FROM_VERSION_1 = """
BEGIN;
ALTER TABLE results ADD COLUMN trials TEXT NOT NULL DEFAULT '';
ALTER TABLE results ADD COLUMN protocol TEXT NOT NULL DEFAULT '';
ALTER TABLE results ADD COLUMN timings_valid INTEGER NOT NULL DEFAULT 0;
PRAGMA user_version = 2;
COMMIT;
"""


class Regression(BaseModel):
    """A figure that is worse than that of the version before."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: str
    bundle: str
    file: str
    figure: str
    before_version: str
    version: str
    before: float
    now: float
    why: str

    def line(self) -> str:
        """On one line."""
        return (
            f"{self.device}: {self.file}: {self.figure} went from {_figure(self.before)} in {self.before_version} to "
            f"{_figure(self.now)} in {self.version}: {self.why}"
        )


class TrendRow(BaseModel):
    """One stored result as `voxpress device trend --json` shows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    started_at: str
    device: str
    bundle: str
    version: str
    file: str
    eer: float
    eer_low: float
    eer_high: float
    file_bytes: int
    latency_ratio: float | None
    ratio_low: float | None
    ratio_high: float | None
    failed_gates: int
    trials: str
    protocol: str
    timings_valid: bool


class Trend(BaseModel):
    """Results in the order they were made, and what is worse in one than in the one before that it compares with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: tuple[TrendRow, ...]
    regressions: tuple[Regression, ...]


def check(store: Path) -> None:
    """Raise InputError if there is something at `store` that results cannot be added to."""
    if store.exists():
        with _opened(store):
            pass


def append(store: Path, report: Report, verdicts: Verdicts) -> None:
    """Add a run's results; a run that is there already is replaced. Raises InputError if `store` is no such file."""
    bundle = report.bundle
    name, version = (bundle.name, bundle.version) if bundle is not None else (report.title, "0.0.0")
    started = report.started_at.isoformat()
    how = report.protocol
    trials = f"{report.trials_sha256} {how.crop_seconds or 'whole'}"
    protocol = f"threads {how.threads}, frames {how.speed_frames}, low memory {how.low_memory}"
    shaken = {result.subject for result in verdicts.failed if result.gate == "validity"}
    without_control = {model.format for model in report.models if model.is_control and model.file in shaken}
    with _opened(store) as database:
        for model in report.models:
            timed = report.latency_valid
            failed = {result.gate for result in verdicts.failed if result.subject == model.file}
            database.execute(
                f"INSERT OR REPLACE INTO results VALUES ({','.join('?' * 25)})",
                (
                    f"{report.device} {started} {name} {version}",
                    started,
                    report.device,
                    report.device_class,
                    name,
                    version,
                    model.file,
                    model.bits,
                    model.format,
                    model.lowering,
                    model.sha256,
                    model.device.eer,
                    model.device.eer_interval.low,
                    model.device.eer_interval.high,
                    model.device.min_dcf,
                    model.file_bytes,
                    model.latency.p50_ns if timed else None,
                    model.latency.ratio if timed else None,
                    model.latency.ratio_low if timed else None,
                    model.latency.ratio_high if timed else None,
                    model.memory.peak_bytes,
                    len(failed - {"validity"}),
                    trials,
                    protocol,
                    timed and model.file not in shaken and model.format not in without_control,
                ),
            )


def read_trend(store: Path, *, bundle: str | None = None, device: str | None = None) -> Trend:
    """Stored results, of one bundle or device if asked for. Raises InputError if there is no such store."""
    if not store.is_file():
        raise InputError(store, expected="a history of device runs (--history)", found="no such file")
    columns = ", ".join(TrendRow.model_fields)
    with _opened(store) as database:
        found = database.execute(
            f"SELECT {columns} FROM results WHERE (?1 IS NULL OR bundle = ?1) AND (?2 IS NULL OR device = ?2) "
            "ORDER BY device, bundle, file, started_at",
            (bundle, device),
        ).fetchall()
    rows = [TrendRow.model_validate(dict(zip(TrendRow.model_fields, values, strict=True))) for values in found]
    regressions: list[Regression] = []
    for _, group in itertools.groupby(rows, key=lambda row: (row.device, row.bundle, row.file)):
        earlier: list[TrendRow] = []
        for row in group:
            regressions += _regressions(earlier, row)
            earlier.append(row)
    return Trend(rows=tuple(rows), regressions=tuple(regressions))


def trend_tables(trend: Trend) -> list[Table]:
    """The trend for a terminal."""
    table = Table("device", "bundle", "version", "file", "measured", "EER %", "95 %", "bytes", "× control", "failed")
    for row in trend.rows:
        table.add_row(
            row.device,
            row.bundle,
            row.version,
            row.file,
            row.started_at[:16].replace("T", " "),
            f"{100 * row.eer:.2f}",
            f"{100 * row.eer_low:.2f}–{100 * row.eer_high:.2f}",
            f"{row.file_bytes:,}",
            "–" if row.latency_ratio is None else f"{row.latency_ratio:.3f}{'' if row.timings_valid else ' invalid'}",
            str(row.failed_gates),
        )
    if not trend.regressions:
        return [table]
    worse = Table("regression of", "device", "file", "from", "to", "before", "now", "why")
    for one in trend.regressions:
        figures = (_figure(one.before), _figure(one.now))
        worse.add_row(one.figure, one.device, one.file, one.before_version, one.version, *figures, one.why)
    return [table, worse]


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _regressions(earlier: Sequence[TrendRow], now: TrendRow) -> Iterator[Regression]:
    def worse(figure: str, before: TrendRow, old: float, new: float, why: str) -> Regression:
        return Regression(
            device=now.device,
            bundle=now.bundle,
            file=now.file,
            figure=figure,
            before_version=before.version,
            version=now.version,
            before=old,
            now=new,
            why=why,
        )

    def last(like: Callable[[TrendRow], bool]) -> TrendRow | None:
        return next((row for row in reversed(earlier) if like(row)), None)

    timed = last(lambda row: row.timings_valid and row.protocol == now.protocol) if now.timings_valid else None
    # Ratios spread; they are worse only where their ranges over rounds no longer meet.
    if timed and now.ratio_low is not None and timed.ratio_high is not None and now.ratio_low > timed.ratio_high:
        old, new = timed.latency_ratio or 0.0, now.latency_ratio or 0.0
        yield worse("latency ratio", timed, old, new, "ranges over rounds do not meet")
    if earlier and now.file_bytes > earlier[-1].file_bytes:
        yield worse("file bytes", earlier[-1], earlier[-1].file_bytes, now.file_bytes, "larger")
    scored = last(lambda row: row.trials == now.trials)
    # Two networks on the same trials: not the paired interval, which a store of figures cannot give.
    if scored and now.eer > scored.eer_high:
        yield worse("EER", scored, scored.eer, now.eer, "above the interval of the version before")
    if scored and now.failed_gates > scored.failed_gates:
        yield worse("failed gates", scored, scored.failed_gates, now.failed_gates, "more gates fail")


@contextmanager
def _opened(store: Path) -> Iterator[sqlite3.Connection]:
    store.parent.mkdir(parents=True, exist_ok=True)
    try:
        with closing(sqlite3.connect(store, timeout=30)) as database, database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            if version == 1:
                database.executescript(_FROM_VERSION_1)
            elif version not in (0, _VERSION):
                raise InputError(store, expected=f"a history of version {_VERSION}", found=f"version {version}")
            database.execute(_SCHEMA)
            database.execute(f"PRAGMA user_version = {_VERSION}")
            yield database
    except sqlite3.Error as error:
        raise InputError(store, expected="a history of device runs", found=str(error)) from None
