"""A benchmark's tables, as text: one source for the page, the Markdown file and the terminal."""

from __future__ import annotations

from statistics import median

import numpy as np
from rich.table import Table as RichTable

from device_tests.bench.records import ArmCycles, BenchRecord, ContenderRecord, Layers
from device_tests.report.bench_figures import (
    Ratio,
    fastest,
    reasons,
    roof_fraction,
    smallest_fp32_bytes,
    speed_up,
    timing,
)
from device_tests.report.bench_growth import growth_tables
from device_tests.report.bench_resources import resource_tables
from device_tests.report.table import NONE, Table, markdown_document, milliseconds, terminal_table, threads_text


def bench_summary(record: BenchRecord) -> Table:
    """Bytes, accuracy and speed of every contender on one line each."""
    protocol = record.protocol
    columns = ["contender", "bytes", "× fp32", "cosine"]
    for threads in protocol.threads:
        columns += [f"ms, {threads_text(threads)}", "× fp32 peer", "× int8 peer"]
    rows = []
    for contender in record.contenders:
        cells = [contender.title, *_size_cells(record, contender), _cosine(contender, 5)]
        for threads in protocol.threads:
            found = timing(record, contender, protocol.frames, threads)
            cells += (
                [NONE] * 3
                if found is None
                else [milliseconds(round(found.p50_ns)), _value(found.to_fp32), _value(found.to_int8)]
            )
        rows.append(tuple(cells))
    return Table("Summary", tuple(columns), tuple(rows), f"{_fastest_text(record)} {_protocol_text(record)}")


def missing_table(record: BenchRecord) -> Table | None:
    """Why some contenders have no figures; None if all have."""
    rows = tuple(reasons(record))
    if not rows:
        return None
    return Table("Not measured", ("contender", "reason"), rows, "Everything else of the same run is whole.", left=3)


def bench_latency(record: BenchRecord, threads: int) -> Table:
    """Quantiles, and both ratios with their ranges over rounds, at one number of threads."""
    rows = []
    for contender in record.contenders:
        found = timing(record, contender, record.protocol.frames, threads)
        if found is None:
            continue
        gain = speed_up(contender, record.protocol.frames, threads)
        rows.append(
            (
                contender.title,
                milliseconds(round(found.p50_ns)),
                milliseconds(round(found.p90_ns)),
                milliseconds(found.least_ns),
                *_range_cells(found.to_fp32),
                *_range_cells(found.to_int8),
                NONE if threads == 1 or gain is None else f"{gain:.2f}",
                str(found.runs),
            )
        )
    columns = ("contender", "p50 ms", "p90", "least", "× fp32 peer", "over rounds", "× int8 peer", "over rounds")
    return Table(
        f"Latency, {threads_text(threads)}",
        (*columns, "× faster than 1 thread", "runs"),
        tuple(rows),
        "Each ratio is the median over rounds of the ratio of the medians of both turns in that round, which were "
        "seconds apart; beside it the least and the largest of the rounds.",
    )


def bench_accuracy(record: BenchRecord) -> Table:
    """Cosines to the reference embedding."""
    rows = tuple(
        (
            contender.title,
            f"{float(np.mean(list(contender.cosines.values()))):.6f}",
            f"{min(contender.cosines.values()):.6f}",
            str(len(contender.cosines)),
        )
        for contender in record.contenders
        if contender.cosines
    )
    return Table(
        "Agreement with the fp32 network",
        ("contender", "cosine, mean", "least", "crops"),
        rows,
        f"Cosine of embeddings to those of the reference ({record.weights}, fp32 in torch) on crops of "
        f"{record.protocol.frames} frames of {record.audio}. Random weights lose more by quantization than trained "
        "ones.",
    )


def layer_table(layers: Layers) -> Table:
    """Every layer of our kernels with its fraction of the machine's roof."""
    total = sum(median(layer.samples_ns) for layer in layers.layers)
    roof = layers.roof_macs / median(layers.roof_samples_ns)
    return Table(
        f"Layers, {layers.mode}, {layers.bits} bit, {layers.isa}",
        ("layer", "kernel", "10^6 MACs", "µs", "% of time", "× roof"),
        tuple(
            (
                layer.name,
                layer.kernel,
                f"{layer.macs / 1e6:.1f}",
                f"{median(layer.samples_ns) / 1e3:.0f}",
                f"{100 * median(layer.samples_ns) / total:.1f}",
                f"{roof_fraction(layers, layer):.2f}",
            )
            for layer in layers.layers
        ),
        f"Medians of {len(layers.roof_samples_ns)} repeats of CPU time at {layers.frames} frames, one thread, each "
        f"layer alone on packed weights; {total / 1e6:.1f} ms in all. Roof: {roof:.1f} multiply-adds of "
        f"{'integers' if layers.roof_integers else 'floats'} per ns, measured in registers before each repeat. Above 1 "
        "where a layer needs fewer multiplications than a direct convolution.",
        left=2,
    )


def arm_table(arm: ArmCycles) -> Table:
    """Estimated cycles of the inner products of ARM kernels."""
    cores = {one.core: one for loop in arm.loops for one in loop.cores}
    shared = [f"{one.core} (that of {one.model})" for one in cores.values() if not one.own_model]
    fallbacks = f" LLVM has no model of its own for {', '.join(shared)}." if shared else ""
    rows = []
    for loop in arm.loops:
        cells = [f"{one.cycles:.1f}, {loop.macs / one.cycles:.1f}" for one in loop.cores]
        rows.append((loop.isa, loop.algorithm, str(loop.instructions), str(loop.macs), *cells))
    return Table(
        "Inner products on ARM, by llvm-mca",
        (
            *("instruction set", "algorithm", "instructions", "MACs"),
            *(f"{name}: cycles, MACs per cycle" for name in cores),
        ),
        tuple(rows),
        f"Of one iteration of the loop that multiplies most, as {arm.compiler} makes it with the "
        f"build's own options; {arm.analyser}. Bounds by a scheduling model, without caches: no measurement."
        f"{fallbacks} Winograd's multiply-adds are those in the transformed domain, 36/144 of a direct convolution's "
        "in F(4x4), 16/36 in F(2x2).",
        left=2,
    )


def bench_provenance(record: BenchRecord) -> Table:
    """Which runtime ran what."""
    rows = []
    for contender in record.contenders:
        starts = [start for one in contender.measured for start in one.starts]
        memories = [end for one in contender.measured for end in one.memory]
        rows.append(
            (
                contender.title,
                ", ".join(sorted({f"{start.engine} {start.runtime_version}" for start in starts})) or NONE,
                ", ".join(sorted({name for end in memories for name in end.kernels})) or "none",
                ", ".join(sorted({name for start in starts for name in start.delegates})) or "none",
                ", ".join(f"{file.name} {file.sha256[:12]}" for file in contender.files) or NONE,
            )
        )
    return Table(
        "What ran",
        ("contender", "runtime", "VoxPress kernels", "delegates", "files and their sha256"),
        tuple(rows),
        "Kernels as the process names them after running.",
        left=5,
    )


def bench_tables(record: BenchRecord) -> list[Table]:
    """All tables, the summary first."""
    tables = [
        bench_summary(record),
        missing_table(record),
        *(bench_latency(record, threads) for threads in record.protocol.threads),
        *resource_tables(record),
        bench_accuracy(record),
        *growth_tables(record),
        *(layer_table(layers) for layers in record.layers),
        None if record.arm is None else arm_table(record.arm),
        bench_provenance(record),
    ]
    return [table for table in tables if table is not None]


def bench_circumstances(record: BenchRecord) -> tuple[tuple[str, str], ...]:
    """The machine and the run, as pairs of name and value."""
    environment = record.environment
    clock = f"{environment.clock_hz / 1e9:.2f} GHz" if environment.clock_hz else "not readable"
    return (
        ("model", f"{record.model}, weights: {record.weights}"),
        ("crops", record.audio),
        ("measured", record.started_at.strftime("%Y-%m-%d %H:%M UTC")),
        ("system", f"{environment.os}, kernel {environment.kernel}"),
        ("processor", f"{environment.cpu_model}, {environment.cores} cores"),
        ("clock", f"{clock}, governor {environment.governor or 'not readable'}"),
        ("load at start", NONE if environment.load_average is None else f"{environment.load_average:.2f}"),
        ("protocol", _protocol_text(record)),
        ("software", f"VoxPress {environment.voxpress}, Python {environment.python}"),
        ("packages", ", ".join(f"{name} {version}" for name, version in sorted(environment.packages.items()))),
        ("processor's features", " ".join(environment.cpu_features) or "not readable"),
    )


def bench_title(record: BenchRecord) -> str:
    """A heading."""
    return f"{record.model} against its peers, {record.protocol.frames} frames"


def bench_markdown(record: BenchRecord) -> str:
    """The whole benchmark in Markdown."""
    return markdown_document(bench_title(record), bench_circumstances(record), record.notes, bench_tables(record))


def bench_terminal(record: BenchRecord) -> list[RichTable]:
    """Summary, what is missing, load, memory and growth for a terminal."""
    shown = [bench_summary(record), missing_table(record), *resource_tables(record), *growth_tables(record)]
    return [
        terminal_table(source, caption=source.caption, wrap_words=source.left > 1)
        for source in shown
        if source is not None
    ]


def _size_cells(record: BenchRecord, contender: ContenderRecord) -> tuple[str, str]:
    whole, mine = smallest_fp32_bytes(record), contender.file_bytes
    if mine is None:
        return (NONE, NONE)
    return (f"{mine:,}", NONE if whole is None else f"{mine / whole:.3f}")


def _cosine(contender: ContenderRecord, digits: int) -> str:
    return f"{float(np.mean(list(contender.cosines.values()))):.{digits}f}" if contender.cosines else NONE


def _value(ratio: Ratio | None) -> str:
    return NONE if ratio is None else f"{ratio.value:.2f}"


def _range_cells(ratio: Ratio | None) -> tuple[str, str]:
    return (NONE, NONE) if ratio is None else (f"{ratio.value:.3f}", f"{ratio.low:.3f}–{ratio.high:.3f}")


def _fastest_text(record: BenchRecord) -> str:
    words = []
    for threads in record.protocol.threads:
        names = [fastest(record, kind, record.protocol.frames, threads) for kind in ("fp32", "int8")]
        titles = " and ".join(peer.title for peer in names if peer is not None)
        words.append(f"{threads_text(threads)}: {titles or 'none measured'}")
    return f"Fastest fp32 and int8 peers: {'; '.join(words)}. Bytes against the smallest fp32 peer's."


def _protocol_text(record: BenchRecord) -> str:
    protocol = record.protocol
    return (
        f"{protocol.starts} × {protocol.rounds} rounds over all contenders in drawn order, seed {protocol.seed}, each "
        f"turn {protocol.warmup} + {protocol.runs} runs of {protocol.frames} frames, as many cores as threads."
    )
