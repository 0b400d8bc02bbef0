"""A benchmark's tables of growth with the length of utterances."""

from __future__ import annotations

from collections.abc import Callable

from device_tests.bench.records import BenchRecord
from device_tests.report.bench_figures import Ratio, Timing, fastest, timing
from device_tests.report.table import NONE, Table, milliseconds, threads_text


def measured_lengths(record: BenchRecord) -> list[int]:
    """All lengths, in frames, ascending."""
    return sorted({record.protocol.frames, *record.protocol.growth_frames})


def growth_tables(record: BenchRecord) -> list[Table]:
    """Times, and ratios to the fastest peers, over utterance lengths; none if only one length was measured."""
    if len(measured_lengths(record)) < 2:
        return []
    return [_times_table(record), _ratios_table(record)]


def _rows(record: BenchRecord, cell: Callable[[Timing], str]) -> tuple[tuple[str, ...], ...]:
    """A row for every contender that was timed at some length: its title and a cell for each length."""
    lengths, threads = measured_lengths(record), record.protocol.growth_threads
    rows = []
    for contender in record.contenders:
        found = [timing(record, contender, frames, threads) for frames in lengths]
        if any(found):
            rows.append((contender.title, *(NONE if one is None else cell(one) for one in found)))
    return tuple(rows)


def _times_table(record: BenchRecord) -> Table:
    lengths, threads = measured_lengths(record), record.protocol.growth_threads
    return Table(
        f"Growth with length, {threads_text(threads)}",
        ("contender", *(f"{frames} frames, ms" for frames in lengths)),
        _rows(record, lambda one: milliseconds(round(one.p50_ns))),
        f"Medians. Lengths other than {record.protocol.frames} frames: {record.protocol.growth_rounds} rounds of "
        f"{record.protocol.growth_runs} timed run(s); every length in processes of its own.",
    )


def _ratios_table(record: BenchRecord) -> Table:
    lengths, threads = measured_lengths(record), record.protocol.growth_threads
    peers = [
        f"{frames} frames: {' and '.join(best.title for best in both if best is not None) or 'none measured'}"
        for frames in lengths
        for both in [[fastest(record, kind, frames, threads) for kind in ("fp32", "int8")]]
    ]
    return Table(
        f"Growth: ratios to the fastest peers, {threads_text(threads)}",
        ("contender", *(f"{frames} frames" for frames in lengths)),
        _rows(record, lambda one: _cell(one.to_fp32, one.to_int8)),
        f"Times the fastest fp32 peer / times the fastest int8 peer of that length. {'; '.join(peers)}.",
    )


def _cell(to_fp32: Ratio | None, to_int8: Ratio | None) -> str:
    return " / ".join(NONE if one is None else f"{one.value:.2f}" for one in (to_fp32, to_int8))
