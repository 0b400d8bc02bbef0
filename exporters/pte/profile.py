"""Where a .pte spends its time, by ExecuTorch's own event tracer.

    python -m exporters.pte.profile MODEL --frames 200 --runs 10 [--out trace.etdp]

Prints JSON: nanoseconds of every instruction of the program, in order, and of the whole. `--out` keeps the ETDump for
ExecuTorch's Inspector.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from exporters.manifest import MANIFEST_KEY, parse_manifest
from exporters.native import native_chatter_held_back
from exporters.pte.run import PteRunner, runtime
from pipeline.errors import InputError, VoxPressError
from pipeline.features.fbank import samples_of
from pipeline.files import write_atomically

# The runtime's own events, one for each instruction of a program; what kernels add inside of them is left out.
_INSTRUCTIONS = ("OPERATOR_CALL", "DELEGATE_CALL")
_WHOLE = "Method::execute"


def profile(model: Path, *, frames: int, runs: int, out: Path | None = None) -> list[dict[str, Any]]:
    """Nanoseconds of every run of every instruction, in order, and of the whole; one run before them does not count.

    On noise of so many frames. Writes the ETDump to `out` if given. Raises InputError naming the file if it cannot be
    loaded or does not take that length.
    """
    from executorch.devtools import Inspector

    with tempfile.TemporaryDirectory(prefix="voxpress-") as name:
        trace = Path(name) / "trace.etdp"
        try:
            data, weights = model.read_bytes(), PteRunner(model).weights
            program = runtime().load_program(data, enable_etdump=True, data_path=weights)
            forward = program.load_method("forward")
            noise = _noise(program, forward, model, frames)
            for _ in range(runs + 1):
                forward.execute([noise])
            program.write_etdump_result_to_file(str(trace), str(Path(name) / "debug.bin"))
        except OSError as error:
            raise InputError(model, expected="a .pte file", found=error.strerror or str(error)) from None
        except (RuntimeError, ValueError) as error:
            raise InputError(model, expected=f"a .pte that runs {frames} frames", found=str(error)) from None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no values of tensors were recorded, nor are they wanted
            blocks = Inspector(etdump_path=str(trace)).event_blocks
        if out is not None:
            write_atomically(out, trace.read_bytes())
    ops = _instruction_names(data)
    # The Inspector puts runs whose events differ, as the first's may, into blocks of their own. It gives milliseconds.
    samples: dict[int, list[int]] = defaultdict(list)
    for event in (event for block in blocks if block.name == "Execute" for event in block.events):
        if event.perf_data is not None and event.name in (*_INSTRUCTIONS, _WHOLE):
            place = len(ops) if event.name == _WHOLE else event._instruction_id
            samples[place] += [round(1e6 * value) for value in event.perf_data.raw]
    # What came before was the warm-up, and the call that read the manifest.
    return [
        {"op": [*ops, "the whole"][place], "median_ns": int(np.median(values[-runs:])), "samples_ns": values[-runs:]}
        for place, values in sorted(samples.items())
        if len(values) > runs
    ]


def _instruction_names(data: bytes) -> list[str]:
    from executorch.exir._serialize._program import deserialize_pte_binary

    plan = next(plan for plan in deserialize_pte_binary(data).program.execution_plan if plan.name == "forward")
    names = []
    for instruction in (instruction for chain in plan.chains for instruction in chain.instructions):
        call = instruction.instr_args
        if type(call).__name__ == "KernelCall":
            operator = plan.operators[call.op_index]
            names.append(f"{operator.name}.{operator.overload}")
        elif type(call).__name__ == "DelegateCall":
            names.append(plan.delegates[call.delegate_index].id)
        else:
            names.append(type(call).__name__)
    return names


def _noise(program: Any, forward: Any, model: Path, frames: int) -> torch.Tensor:
    sizes = forward.metadata.input_tensor_meta(0).sizes()
    rows = frames
    if len(sizes) == 2:
        (text,) = program.load_method(MANIFEST_KEY).execute([])
        rows = samples_of(frames, parse_manifest(text, model).frontend)
    return torch.randn(1, rows, *sizes[2:], generator=torch.Generator().manual_seed(0))


def main(arguments: list[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        prog="profile",
        description="Nanoseconds of every instruction of a .pte, as JSON.",
        epilog="Example: python -m exporters.pte.profile models/resnet34-4bit.pte --frames 200",
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    try:
        with native_chatter_held_back():
            found = profile(options.model, frames=options.frames, runs=max(1, options.runs), out=options.out)
    except VoxPressError as error:
        print(f"voxpress: {error}", file=sys.stderr)
        return error.exit_code
    json.dump(found, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
