"""Cycles of the inner products of our ARM kernels, estimated by llvm-mca on what the cross-compiler makes of them.

The very commands that `make aarch64` compiles the kernels with are run once more for assembly, the innermost loop
of each algorithm that multiplies most is taken out, and llvm-mca puts its iterations through a core's
scheduling model: no caches, no branches, so a bound on speed and no measurement. LLVM has no model of its own for
many cores and uses that of another one: which it is shows in the names of the units that the analyser reports.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from device_tests.bench.records import ArmCycles, ArmLoop, CoreCycles
from device_tests.drive.build import AARCH64_FOLDER
from pipeline.errors import InputError, MissingToolError, VoxPressError

CORES = ("cortex-a55", "cortex-a76", "exynos-m5", "tsv110")
ANALYSER, COMPILER = "llvm-mca", "aarch64-linux-gnu-g++"
_ITERATIONS = 100
_COMPILE_WITHIN_SECONDS = 600.0

# Sources with the inner products of an instruction set; the last is half precision, which no kernel uses.
SOURCES: Mapping[str, str] = {
    "neondot": "conv_u8/conv2d_u8_neondot.cc",
    "neon, bytes": "conv_u8/conv2d_u8_neon.cc",
    "neon, fp32": "conv/conv2d_f32_neon.cc",
    "fp16, not in use": "bench/half_product_neonfp16.cc",
}
# Multiply-adds of one instruction by its name and, where lanes may have several sizes, those it is given.
_PRODUCTS = {"sdot": 16, "smull": 8, "smull2": 8, "smlal": 8, "smlal2": 8, "fmla .4s": 4, "fmla .8h": 8}
_LEAST_SHARE = 0.4  # of multiplying instructions in an inner product; transforms and packing have fewer

_LABEL = re.compile(r"([A-Za-z_.][\w.$]*):")
_LOCAL_LABEL = re.compile(r"\.L\d+")
_BRANCH = re.compile(r"(?:b\.?\w*|cbn?z|tbn?z)\t(?:.*, ?)?(\.L\d+)")
_CYCLES = re.compile(r"^Total Cycles:\s+(\d+)$", re.MULTILINE)
_UNIT = re.compile(r"^\[\d+(?:\.\d+)?\]\s+- (\w+)$", re.MULTILINE)


@dataclass(frozen=True)
class Loop:
    """An innermost loop: the function it lies in, as the linker names it, and its instructions, branch included."""

    function: str
    instructions: tuple[str, ...]

    @property
    def macs(self) -> int:
        """Multiply-adds of one iteration."""
        return sum(map(_products, self.instructions))

    @property
    def multiplying(self) -> float:
        """The part of its instructions that multiply."""
        return sum(_products(one) > 0 for one in self.instructions) / len(self.instructions)

    @property
    def algorithm(self) -> str:
        """What it is the inner product of."""
        found = re.search(r"F([24])E|2F([24])", self.function)
        size = None if found is None else found[1] or found[2]
        return "direct" if size is None else f"F({size}x{size})"


def estimate_arm_cycles(cores: tuple[str, ...] = CORES, build: Path = AARCH64_FOLDER / "native") -> ArmCycles:
    """Cycles of the inner products of all ARM kernels on each core.

    Raises MissingToolError, naming it, if a tool or the configured cross build is missing.
    """
    for tool, package in ((COMPILER, "g++-aarch64-linux-gnu"), (ANALYSER, "llvm")):
        if shutil.which(tool) is None:
            raise MissingToolError(f"{tool}: expected the program of Debian's {package}, found none")
    loops = []
    for isa, source in SOURCES.items():
        for loop in best_loops(innermost_loops(compile_to_assembly(source, build))):
            cycles = tuple(analyse(loop, core) for core in cores)
            loops.append(
                ArmLoop(
                    isa=isa,
                    algorithm=loop.algorithm,
                    source=source,
                    instructions=len(loop.instructions),
                    macs=loop.macs,
                    cores=cycles,
                )
            )
    return ArmCycles(compiler=_version_of(COMPILER), analyser=_version_of(ANALYSER), loops=tuple(loops))


def compile_to_assembly(source: str, build: Path) -> str:
    """Assembly of a source of the kernel core, by the build's own command.

    Raises MissingToolError if the build is not configured, VoxPressError with the compiler's last line.
    """
    database = build / "compile_commands.json"
    if not database.is_file():
        raise MissingToolError(f"{database}: expected the build for the device, found none; run `make aarch64`")
    entries = [one for one in json.loads(database.read_text(encoding="utf-8")) if one["file"].endswith(f"/{source}")]
    if not entries:
        raise InputError(database, expected=f"how {source} is compiled", found="no such file in it")
    words = shlex.split(entries[0]["command"])
    kept = words[: words.index("-o")]  # the output and the source are all that stands behind
    command = [*kept, "-g0", "-S", "-o", "-", entries[0]["file"]]
    done = subprocess.run(
        command,
        cwd=entries[0]["directory"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_COMPILE_WITHIN_SECONDS,
    )
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"the compiler ended with code {done.returncode}"]
        raise VoxPressError(f"{source}: {said[-1]}")
    return done.stdout


def innermost_loops(assembly: str) -> Iterator[Loop]:
    """Runs of instructions from a label to a branch back to it, with no other label between."""
    function, label, body = "", None, list[str]()
    for line in assembly.splitlines():
        named = _LABEL.match(line)
        if named is not None:
            is_local = _LOCAL_LABEL.fullmatch(named[1]) is not None
            label, body = (named[1] if is_local else None), []
            function = named[1] if not named[1].startswith(".") else function
            continue
        words = line.strip()
        if not line.startswith("\t") or not words or words.startswith((".", "//")):
            continue
        body.append(words)
        target = _BRANCH.match(words)
        if target is not None and target[1] == label:
            yield Loop(function, tuple(body))
            label = None


def best_loops(loops: Iterator[Loop]) -> list[Loop]:
    """Of each algorithm the inner product with the most multiply-adds: the one for as many rows as fit."""
    best: dict[str, Loop] = {}
    for loop in loops:
        found = best.get(loop.algorithm)
        if loop.multiplying >= _LEAST_SHARE and (found is None or loop.macs > found.macs):
            best[loop.algorithm] = loop
    return [best[name] for name in sorted(best)]


def analyse(loop: Loop, core: str) -> CoreCycles:
    """Cycles of an iteration on a core. Raises VoxPressError with the analyser's line if it cannot tell."""
    # The branch back is left out: the analyser knows no addresses, and the iterations follow one another anyway.
    text = "\n".join(loop.instructions[:-1]) + "\n"
    command = [ANALYSER, "-mtriple=aarch64-linux-gnu", f"-mcpu={core}", "-mattr=+dotprod,+fullfp16"]
    command.append(f"-iterations={_ITERATIONS}")
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
    cycles, units = _CYCLES.search(done.stdout), _UNIT.findall(done.stdout)
    if done.returncode != 0 or cycles is None or not units:
        raise VoxPressError(f"{ANALYSER} -mcpu={core}: {' '.join(done.stderr.split())[:200] or 'no figures'}")
    model = model_of(units)
    return CoreCycles(core=core, model=model, own_model=is_own_model(core, model), cycles=int(cycles[1]) / _ITERATIONS)


def model_of(units: list[str]) -> str:
    """The scheduling model's name, with which the names of all its units begin: A57 of A57UnitB, M5 of M5PipeF0."""
    return re.sub(r"(Unit|Pipe|IP|P\d).*", "", units[0])


def is_own_model(core: str, model: str) -> bool:
    """Whether a model is that of the core, by the core's number: a55 of cortex-a55 is in CortexA55, a76 not in A57."""
    return core.rpartition("-")[2].lower() in model.lower()


def _products(instruction: str) -> int:
    name, _, operands = instruction.partition("\t")
    lanes = re.search(r"v\d+(\.\w+)", operands)
    return _PRODUCTS.get(name, _PRODUCTS.get(f"{name} {lanes[1]}" if lanes is not None else name, 0))


def _version_of(program: str) -> str:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    return next(line.strip() for line in said.splitlines() if re.search(r"\d+\.\d+", line))
