"""What a benchmark's samples say: medians, ratios to the fastest peers, memory, growth, fractions of the roof."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import numpy as np

from device_tests.bench.records import BenchRecord, ContenderRecord, Kind, Layers, LayerTiming, Measured


@dataclass(frozen=True)
class Ratio:
    """A contender's time as a multiple of a peer's: the median over rounds, and its range.

    In each round both have had a turn within seconds of each other: ratio_r = median(turn_r) / median(peer's turn_r).
    """

    peer: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Timing:
    """Times of one contender at one length and number of threads, in nanoseconds."""

    p50_ns: float
    p90_ns: float
    least_ns: int
    runs: int
    to_fp32: Ratio | None
    to_int8: Ratio | None


@dataclass(frozen=True)
class Readiness:
    """From a file to the first embedding: medians over processes; `inferences`: as multiples of a median inference."""

    load_ns: float
    first_ns: float
    ready_ns: float
    inferences: float
    processes: int


@dataclass(frozen=True)
class WeightFigures:
    """Bytes that our ops hold beside the packed weights of the file, by their own count; medians over processes."""

    kept_bytes: int
    scratch_bytes: int

    @property
    def beside_file_bytes(self) -> int:
        """All of it."""
        return self.kept_bytes + self.scratch_bytes


@dataclass(frozen=True)
class MemoryFigures:
    """Bytes of a contender's process, medians over its processes; growth counts from before the model is loaded."""

    load_growth_bytes: int
    run_growth_bytes: int
    peak_growth_bytes: int
    resident_bytes: int


def measured_well(contender: ContenderRecord, frames: int, threads: int) -> Measured | None:
    """What was measured of a contender to the end, else None."""
    found = contender.at(frames, threads)
    return found if found is not None and found.failure is None and found.rounds else None


def fastest(record: BenchRecord, kind: Kind, frames: int, threads: int) -> ContenderRecord | None:
    """The contender of a kind with the least median time; None if none of them was measured."""
    times = {
        contender.name: float(np.median(found.samples_ns))
        for contender in record.contenders
        if contender.kind == kind and (found := measured_well(contender, frames, threads)) is not None
    }
    if not times:
        return None
    best = min(times, key=lambda name: times[name])
    return next(contender for contender in record.contenders if contender.name == best)


def ratio(mine: Measured, peer: ContenderRecord | None, frames: int, threads: int) -> Ratio | None:
    """Ratio of a contender's time to a peer's over the rounds of one benchmark; None without such a peer."""
    theirs = None if peer is None else measured_well(peer, frames, threads)
    if peer is None or theirs is None or len(theirs.rounds) != len(mine.rounds):
        return None
    values = [median(a) / median(b) for a, b in zip(mine.rounds, theirs.rounds, strict=True)]
    return Ratio(peer.title, median(values), min(values), max(values))


def timing(record: BenchRecord, contender: ContenderRecord, frames: int, threads: int) -> Timing | None:
    """Times and ratios of a contender; None if it was not measured there."""
    found = measured_well(contender, frames, threads)
    if found is None:
        return None
    samples = np.array(found.samples_ns)
    return Timing(
        p50_ns=float(np.median(samples)),
        p90_ns=float(np.quantile(samples, 0.9)),
        least_ns=int(samples.min()),
        runs=len(samples),
        to_fp32=ratio(found, fastest(record, "fp32", frames, threads), frames, threads),
        to_int8=ratio(found, fastest(record, "int8", frames, threads), frames, threads),
    )


def speed_up(contender: ContenderRecord, frames: int, threads: int) -> float | None:
    """How many times as fast as on one thread: the median over rounds; None unless both were measured."""
    one, many = measured_well(contender, frames, 1), measured_well(contender, frames, threads)
    if one is None or many is None or len(one.rounds) != len(many.rounds):
        return None
    return median(median(a) / median(b) for a, b in zip(one.rounds, many.rounds, strict=True))


def memory(contender: ContenderRecord, frames: int, threads: int) -> MemoryFigures | None:
    """Memory of a contender's processes; None if it was not measured."""
    found = measured_well(contender, frames, threads)
    # An interrupted process has a start and no end: the last starts are those whose ends are known.
    if found is None or not found.memory:
        return None
    pairs = list(zip(found.starts[-len(found.memory) :], found.memory, strict=True))
    return MemoryFigures(
        load_growth_bytes=round(median(s.resident_after_load_bytes - s.resident_before_bytes for s, _ in pairs)),
        run_growth_bytes=round(median(m.resident_bytes - s.resident_before_bytes for s, m in pairs)),
        peak_growth_bytes=round(median(m.peak_bytes - s.resident_before_bytes for s, m in pairs)),
        resident_bytes=round(median(m.resident_bytes for _, m in pairs)),
    )


def weights(contender: ContenderRecord, frames: int, threads: int) -> WeightFigures | None:
    """Weights of our own files in memory; None for peers, and for what was not measured."""
    found = measured_well(contender, frames, threads)
    counts = [] if found is None or contender.kind != "voxpress" else [one.kernels_hold for one in found.memory]
    known = [one for one in counts if one is not None]
    if not known:
        return None
    return WeightFigures(
        kept_bytes=round(median(one.weight_bytes for one in known)),
        scratch_bytes=round(median(one.scratch_bytes for one in known)),
    )


def readiness(contender: ContenderRecord, frames: int, threads: int) -> Readiness | None:
    """How long a contender takes until its first embedding is there; None if it was not measured."""
    found = measured_well(contender, frames, threads)
    if found is None or not found.starts:
        return None
    ready_ns = median(start.load_ns + start.first_ns for start in found.starts)
    return Readiness(
        load_ns=median(start.load_ns for start in found.starts),
        first_ns=median(start.first_ns for start in found.starts),
        ready_ns=ready_ns,
        inferences=ready_ns / median(found.samples_ns),
        processes=len(found.starts),
    )


def smallest_fp32_bytes(record: BenchRecord) -> int | None:
    """Bytes of the smallest fp32 peer's files: what sizes are held against."""
    sizes = [contender.file_bytes for contender in record.contenders if contender.kind == "fp32"]
    return min((size for size in sizes if size is not None), default=None)


def roof_fraction(layers: Layers, layer: LayerTiming) -> float:
    """Multiply-adds of a direct convolution per time, over those of the roof: above 1 where fewer are needed."""
    roof = layers.roof_macs / median(layers.roof_samples_ns)
    return layer.macs / median(layer.samples_ns) / roof


def reasons(record: BenchRecord) -> list[tuple[str, str]]:
    """Why contenders, or some of their measurements, are missing: title and reason."""
    found = [(contender.title, contender.failure) for contender in record.contenders if contender.failure is not None]
    for contender in record.contenders:
        for one in contender.measured:
            if one.failure is not None:
                threads = "1 thread" if one.threads == 1 else f"{one.threads} threads"
                found.append((f"{contender.title}, {one.frames} frames, {threads}", one.failure))
    return found
