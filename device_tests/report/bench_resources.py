"""A benchmark's tables of what a contender costs beside time for an inference: load, memory, weights."""

from __future__ import annotations

from device_tests.bench.records import BenchRecord
from device_tests.report.bench_figures import memory, readiness, weights
from device_tests.report.table import NONE, Table, milliseconds, threads_text


def resource_tables(record: BenchRecord) -> list[Table]:
    """Load, and memory at every number of threads."""
    return [load_table(record), *(memory_table(record, threads) for threads in record.protocol.threads)]


def load_table(record: BenchRecord) -> Table:
    """Load and first inference of every contender, at the first number of threads."""
    frames, threads = record.protocol.frames, record.protocol.threads[0]
    rows = []
    for contender in record.contenders:
        found = readiness(contender, frames, threads)
        if found is not None:
            times = (found.load_ns, found.first_ns, found.ready_ns)
            cells = (*(milliseconds(round(time)) for time in times), f"{found.inferences:.2f}", str(found.processes))
            rows.append((contender.title, *cells))
    return Table(
        f"Load, {threads_text(threads)}",
        ("contender", "load ms", "first ms", "ready ms", "ready, inferences", "processes"),
        tuple(rows),
        "Load: file to a model that can be run; first: the first inference, in which some runtimes, ExecuTorch with "
        "our ops among them, still prepare weights; ready: both, until the first embedding is there, also as a "
        "multiple of the median inference. The runtime itself is loaded before.",
    )


def memory_table(record: BenchRecord, threads: int) -> Table:
    """Bytes of files, processes, and what our ops hold."""
    rows = []
    for contender in record.contenders:
        figures = memory(contender, record.protocol.frames, threads)
        held = weights(contender, record.protocol.frames, threads)
        if figures is not None:
            grown = (figures.load_growth_bytes, figures.run_growth_bytes, figures.peak_growth_bytes)
            counts = (contender.file_bytes or 0, *grown, figures.resident_bytes)
            ours = (NONE,) * 2 if held is None else (f"{held.kept_bytes:,}", f"{held.scratch_bytes:,}")
            rows.append((contender.title, *(f"{count:,}" for count in counts), *ours))
    return Table(
        f"Memory, {threads_text(threads)}",
        (
            *("contender", "file bytes", "growth: load", "growth: run", "growth: peak", "resident"),
            *("expanded weights", "scratch"),
        ),
        tuple(rows),
        "Bytes. Growth of resident memory from just before the model is loaded, the runtime being loaded already: the "
        "model's own, with its activations and the pages of its file that were read. Resident is the whole process, "
        "Python included where the runtime is driven from it. Expanded weights and scratch: what our ops count "
        "themselves; in low memory a layer's weights are expanded into scratch, so that expanded weights and scratch "
        "are all that weights take beside the file.",
    )
