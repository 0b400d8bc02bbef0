"""Runs a .tflite in whichever TFLite Python runtime is asked for: a program of its own, with no import of VoxPress.

    python any_runtime.py MODULE DELEGATE THREADS [MODEL INPUTS OUTPUTS]...

MODULE: `ai_edge_litert.interpreter`, `tensorflow.lite.python.interpreter` or `tflite_runtime.interpreter`.
DELEGATE: path of the external delegate, or `-`. INPUTS: .npz of float32 arrays, each run in turn by one interpreter,
resized in between. OUTPUTS: .npz of the outputs by the same names. Old runtimes need an old NumPy, hence the process of
its own.
Exit code 2 and one line on stderr if the runtime refuses the model.
"""

import importlib
import os
import sys
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def run(module: str, model: str, delegate: str, inputs: Any, threads: int) -> Any:
    """Outputs by name of the inputs by name."""
    runtime = importlib.import_module(module)
    delegates = [] if delegate == "-" else [runtime.load_delegate(delegate)]
    interpreter = runtime.Interpreter(model_path=model, experimental_delegates=delegates, num_threads=threads)
    source = interpreter.get_input_details()[0]["index"]
    target = interpreter.get_output_details()[0]["index"]
    outputs = {}
    for name, value in inputs.items():
        interpreter.resize_tensor_input(source, value.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(source, value)
        interpreter.invoke()
        outputs[name] = np.array(interpreter.get_tensor(target))
    return outputs


def main(arguments: Any) -> int:
    """The command line of this program."""
    module, delegate, threads, *jobs = arguments
    for model, source, target in zip(jobs[::3], jobs[1::3], jobs[2::3]):  # noqa: B905 - old Pythons have no strict
        with np.load(source) as stored:
            inputs = {name: stored[name] for name in stored.files}
        try:
            outputs = run(module, model, delegate, inputs, int(threads))
        except (ValueError, RuntimeError, ImportError, OSError) as error:
            print(" ".join(str(error).split()), file=sys.stderr)
            return 2
        np.savez(target, **outputs)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
