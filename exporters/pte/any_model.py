"""Runs a .pte on ExecuTorch's Python runtime, with or without our ops: a program of its own, as a file may crash it.

    python -m exporters.pte.any_model LIBRARY [MODEL INPUTS OUTPUTS]...

LIBRARY: path of our op library, or `-`. INPUTS: .npz of float32 arrays, each run in turn. OUTPUTS: .npz of the outputs
by the same names. Exit code 2 and one line on stderr if the runtime refuses the model.
"""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

import numpy as np


def main(arguments: list[str]) -> int:
    """The command line of this program."""
    library, *jobs = arguments
    if library != "-":
        # Before the runtime loads a program: its one registry of ops is asked then.
        ctypes.CDLL(library, mode=ctypes.RTLD_GLOBAL)
    import torch
    from executorch.runtime import Runtime, Verification

    for model, source, target in zip(jobs[::3], jobs[1::3], jobs[2::3], strict=True):
        outputs = {}
        try:
            program = Runtime.get().load_program(model, verification=Verification.InternalConsistency)
            if "weights_file" in program.method_names:
                (name,) = program.load_method("weights_file").execute([])
                weights = Path(model).parent / Path(name).name
                program = Runtime.get().load_program(
                    model, verification=Verification.InternalConsistency, data_path=weights
                )
            method = program.load_method("forward")
            if method is None:
                raise RuntimeError("the program has no method forward")
            with np.load(source) as stored:
                for name in stored.files:
                    (value,) = method.execute([torch.from_numpy(stored[name])])
                    outputs[name] = value.numpy().copy()
        except (RuntimeError, ValueError) as error:
            print(" ".join(str(error).split()), file=sys.stderr)
            return 2
        np.savez(target, allow_pickle=False, **outputs)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
