"""The rows of a benchmark: our own files in every width, mode and format, and the peers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from calibration.ranges import Mode
from device_tests.bench.records import Kind
from exporters.exported import Format
from exporters.peers.catalogue import Peer
from pipeline.errors import InputError


@dataclass(frozen=True)
class BenchMode:
    """One way of running our files: the arithmetic they are exported for, and whether weights stay packed."""

    mode: Mode
    low_memory: bool = False

    @property
    def name(self) -> str:
        """What it is called in options and rows."""
        return f"{self.mode}-low-memory" if self.low_memory else self.mode


MODES = (BenchMode("exact"), BenchMode("exact", True), BenchMode("fast"), BenchMode("fast", True))
FORMATS: tuple[Format, ...] = ("pte", "tflite")

_RUNTIMES: dict[Format, str] = {"pte": "executorch", "tflite": "litert"}


@dataclass(frozen=True)
class Contender:
    """One row: `peer` if it is one, else our file of a width, mode and format."""

    name: str
    title: str
    kind: Kind
    runtime: str
    peer: Peer | None = None
    bits: str | None = None
    mode: BenchMode | None = None
    format: Format | None = None

    @property
    def low_memory(self) -> bool:
        """Whether its process keeps weights packed."""
        return self.mode is not None and self.mode.low_memory


def our_contenders(bits: Sequence[str], modes: Sequence[BenchMode], formats: Sequence[Format]) -> list[Contender]:
    """Our files of every combination, widths first; `bits` are labels as artifacts have them, "4bit"."""
    return [
        Contender(
            name=f"voxpress-{width}-{mode.name}.{one}",
            title=f"VoxPress .{one} {width} {mode.mode}{', low memory' if mode.low_memory else ''}",
            kind="voxpress",
            runtime=_RUNTIMES[one],
            bits=width,
            mode=mode,
            format=one,
        )
        for width in bits
        for mode in modes
        for one in formats
    ]


def peer_contenders(peers: Sequence[Peer]) -> list[Contender]:
    """The peers as contenders."""
    return [Contender(peer.name, peer.title, peer.kind, peer.runtime, peer=peer) for peer in peers]


def choose_modes(words: str) -> tuple[BenchMode, ...]:
    """Modes of a comma-separated list, or "all". Raises InputError for a word that is none."""
    names = [mode.name for mode in MODES]
    if words == "all":
        return MODES
    for word in words.split(","):
        if word not in names:
            raise InputError("--modes", expected=f"some of all, {', '.join(names)}", found=repr(word))
    return tuple(mode for mode in MODES if mode.name in words.split(","))


def choose_formats(words: str) -> tuple[Format, ...]:
    """Formats of a comma-separated list. Raises InputError for a word that is none."""
    for word in words.split(","):
        if word not in FORMATS:
            raise InputError("--formats", expected=f"some of {', '.join(FORMATS)}", found=repr(word))
    return tuple(one for one in FORMATS if one in words.split(","))


def parse_numbers(option: str, words: str, *, low: int, high: int) -> tuple[int, ...]:
    """Different whole numbers of a comma-separated list, in its order. Raises InputError naming the option."""
    numbers = []
    for word in words.split(","):
        if not word.strip().isdecimal() or not low <= int(word) <= high or int(word) in numbers:
            raise InputError(option, expected=f"different numbers from {low} to {high}, like 1,2", found=repr(words))
        numbers.append(int(word))
    return tuple(numbers)


def parse_seconds(option: str, words: str) -> tuple[float, ...]:
    """Different lengths in seconds, ascending. Raises InputError naming the option."""
    try:
        lengths = tuple(float(word) for word in words.split(","))
    except ValueError:
        lengths = ()
    if not lengths or len(set(lengths)) != len(lengths) or not all(0 < length <= 600 for length in lengths):
        raise InputError(option, expected="none, or different lengths of up to 600 s, like 1,2,5", found=repr(words))
    return tuple(sorted(lengths))
