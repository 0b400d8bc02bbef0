"""Per-layer timings of our kernels on a network's own layers, beside the machine's measured roof."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import pydantic

from calibration.ranges import Mode
from device_tests.bench.process import cores_for, on_cores
from device_tests.bench.records import Layers, LayerTiming
from exporters.native import native_path
from pipeline.artifact.schema import INPUT_NAME, Artifact, StatsPoolNode, conv_out_size
from pipeline.errors import InputError, VoxPressError
from pipeline.files import first_problem

REPEATS = 15


class _Roof(pydantic.BaseModel):
    integers: bool
    macs: int
    samples_ns: tuple[int, ...]


class _Run(pydantic.BaseModel):
    isa: str
    roof: _Roof
    layers: tuple[LayerTiming, ...]


class _Output(pydantic.BaseModel):
    isas: tuple[_Run, ...]


def time_layers(header: Artifact, *, mode: Mode, bits: int, frames: int, repeats: int = REPEATS) -> Layers:
    """Time every layer of a program at one width, in the widest instruction set of this machine, on one core.

    The roof is that of the mode: multiply-adds of floats for exact, for fast of integers as its kernels multiply them.

    Raises MissingToolError if the native build has no voxpress_kernel_bench, VoxPressError with its line if it fails.
    """
    with tempfile.TemporaryDirectory(prefix="voxpress-") as name:
        program = Path(name) / "layers.txt"
        program.write_text("\n".join(layer_lines(header, frames)) + "\n", encoding="utf-8")
        command = [str(native_path("kernel_bench")), "--program", str(program), "--isa", "widest"]
        command += ["--mode", mode, "--bits", str(bits), "--frames", str(frames), "--repeats", str(repeats)]
        with on_cores(cores_for(1)):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise VoxPressError(f"{command[0]}: {done.stderr.strip() or f'ended with code {done.returncode}'}")
    try:
        (run,) = _Output.model_validate_json(done.stdout).isas
    except (pydantic.ValidationError, ValueError) as error:
        found = first_problem(error) if isinstance(error, pydantic.ValidationError) else str(error)
        raise InputError(command[0], expected="timings of one instruction set", found=found) from None
    return Layers(
        mode=mode,
        isa=run.isa,
        bits=bits,
        frames=frames,
        roof_integers=run.roof.integers,
        roof_macs=run.roof.macs,
        roof_samples_ns=run.roof.samples_ns,
        layers=run.layers,
    )


def layer_lines(header: Artifact, frames: int) -> list[str]:
    """The layers of a program for utterances of `frames` frames, as voxpress_kernel_bench reads them."""
    sizes = {INPUT_NAME: (frames, header.frontend.num_mel_bins)}
    lines = []
    for node in header.program:
        if isinstance(node, StatsPoolNode):
            sizes[node.name] = (1, 1)
            continue
        rows, columns = sizes[node.input]
        numbers: Sequence[int] = (
            *(rows, columns, node.in_channels, node.out_channels),
            *node.kernel,
            *node.stride,
            *node.padding,
            *(node.groups, int(node.relu), int(node.residual is not None)),
        )
        lines.append(" ".join([node.name, *map(str, numbers)]))
        axes = zip((rows, columns), node.kernel, node.stride, node.padding, strict=True)
        out_rows, out_columns = (conv_out_size(*axis) for axis in axes)
        sizes[node.name] = (out_rows, out_columns)
    return lines
