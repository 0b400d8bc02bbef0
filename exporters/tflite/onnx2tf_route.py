"""The long way to a stock .tflite: torch -> ONNX -> onnx2tf -> TFLite, for comparison with what is written directly.

    python -m exporters.tflite.onnx2tf_route ARTIFACT --frames 200 --out model.tflite

The file takes one length, `--frames`; the fallback of `voxpress export --fallback` takes any, and is the one to ship.
onnx2tf takes a [1, T, mel] input for channels-first and transposes it unless told to keep it (-kat): then the
conversion fails, or succeeds with a network that is another. Its own check has passed such files, so the embeddings are
compared with the reference network's here, and a file beyond 1e-4 relative is not written.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from exporters.exported import TOLERANCE
from exporters.pte.emit import StockNetwork
from exporters.tflite.emit import OUTPUT_NAME
from pipeline.artifact.decode import decode
from pipeline.artifact.schema import INPUT_NAME
from pipeline.artifact.store import LoadedArtifact, read_artifact
from pipeline.errors import InputError, VerificationError, VoxPressError
from pipeline.features.fbank import min_frames
from pipeline.files import write_atomically

Floats = npt.NDArray[np.float32]

OPSET = 18


def convert(artifact: LoadedArtifact, frames: int, *, keep_input: bool = True) -> bytes:
    """The network in stock fp32 ops, features [1, frames, mel] -> embedding [1, E], as onnx2tf makes it; unchecked.

    keep_input: tell onnx2tf not to transpose the input (-kat). Raises VoxPressError if it cannot convert.
    """
    import onnx2tf

    example = torch.zeros(1, frames, artifact.header.frontend.num_mel_bins)
    with tempfile.TemporaryDirectory(prefix="voxpress-") as name:
        source, out = Path(name) / "model.onnx", Path(name) / "converted"
        with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            program = torch.onnx.export(
                StockNetwork(artifact).eval(),
                (example,),
                input_names=[INPUT_NAME],
                output_names=[OUTPUT_NAME],
                opset_version=OPSET,
                dynamo=True,
                verbose=False,
            )
        if program is None:
            raise VoxPressError(f"{artifact.header.name}: expected an ONNX program from torch, found none")
        source.write_bytes(program.model_proto.SerializeToString())
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                onnx2tf.convert(
                    input_onnx_file_path=str(source),
                    output_folder_path=str(out),
                    keep_shape_absolutely_input_names=[INPUT_NAME] if keep_input else None,
                    copy_onnx_input_output_names_to_tflite=True,
                    non_verbose=True,
                )
            return (out / "model_float32.tflite").read_bytes()
        except (Exception, SystemExit) as error:  # the converter's errors are of every kind, and it may exit
            first = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise VoxPressError(f"{artifact.header.name}: onnx2tf could not convert it: {first[0]}") from None


def largest_error(data: bytes, artifact: LoadedArtifact, frames: int) -> float:
    """Relative error max|e - r| / max|r| of a file's embedding to the reference network's, on seeded noise.

    Infinite if the file's input is not [1, frames, mel].
    """
    from ai_edge_litert.interpreter import Interpreter

    mel = artifact.header.frontend.num_mel_bins
    features: Floats = np.random.default_rng(0).normal(0, 2, (1, frames, mel)).astype(np.float32)
    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    source = interpreter.get_input_details()[0]
    if tuple(source["shape"]) != features.shape:
        return float("inf")
    interpreter.set_tensor(source["index"], features)
    interpreter.invoke()
    found = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    with torch.inference_mode():
        wanted = decode(artifact)(torch.from_numpy(features)).numpy()
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def export(artifact_folder: Path, frames: int, out: Path) -> float:
    """Convert, check and write; returns the relative error.

    Raises InputError for a length shorter than the front end's shortest, VerificationError, and writes nothing, if the
    file is not the network.
    """
    artifact = read_artifact(artifact_folder)
    shortest = min_frames(artifact.header.frontend)
    if frames < shortest:
        raise InputError("--frames", expected=f"at least {shortest}", found=str(frames))
    data = convert(artifact, frames)
    error = largest_error(data, artifact, frames)
    if not error <= TOLERANCE:
        what = f"embeddings within {TOLERANCE:g} of the reference's at {frames} frames"
        raise VerificationError(f"{out}: expected {what}, found {error:.3g}")
    write_atomically(out, data)
    return error


def main(arguments: list[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        prog="onnx2tf_route",
        description="A stock .tflite by way of ONNX and onnx2tf, checked against the reference network.",
        epilog="Example: python -m exporters.tflite.onnx2tf_route out/demo/uniform/4bit --frames 200 --out m.tflite",
    )
    parser.add_argument("artifact", type=Path)
    parser.add_argument("--frames", type=int, default=200, help="the one length that the file takes")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    try:
        error = export(options.artifact, options.frames, options.out)
    except VoxPressError as problem:
        print(f"voxpress: {problem}", file=sys.stderr)
        return problem.exit_code
    print(f"{options.out}  {options.out.stat().st_size} bytes  max relative error {error:.2g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
