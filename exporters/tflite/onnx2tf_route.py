"""The long way to a stock .tflite: torch -> ONNX -> onnx2tf -> TFLite, for the fp32 and int8 controls.

    python -m exporters.tflite.onnx2tf_route ARTIFACT --frames 200 --out model.tflite

The file takes one length, `--frames`; the fallback of `voxpress export --fallback` takes any, and is the one to ship.
The int8 control of `voxpress export --int8` comes the same way (`exporters/int8_control.py`).
onnx2tf takes a [1, T, mel] input for channels-first and transposes it unless told to keep it (-kat): then the
conversion fails, or succeeds with a network that is another. Its own check has passed such files, so the embeddings are
compared with the reference network's here, and a file beyond 1e-4 relative on noise is not written.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from exporters.exported import TOLERANCE, Agreement
from exporters.pte.emit import StockNetwork
from exporters.tflite.emit import OUTPUT_NAME
from exporters.tflite.int8 import quantized
from exporters.verify import agreement
from pipeline.artifact.decode import decode
from pipeline.artifact.schema import INPUT_NAME
from pipeline.artifact.store import LoadedArtifact, read_artifact
from pipeline.errors import InputError, VerificationError, VoxPressError
from pipeline.features.fbank import min_frames
from pipeline.files import write_atomically

Floats = npt.NDArray[np.float32]

OPSET = 18


def convert(
    artifact: LoadedArtifact, frames: int, *, keep_input: bool = True, calibration: Sequence[Floats] = ()
) -> bytes:
    """The network in stock ops, features [1, frames, mel] -> embedding [1, E], as onnx2tf makes it; unchecked.

    fp32, or, with calibration crops [frames, mel], int8 as `exporters.tflite.int8` makes it.
    keep_input: tell onnx2tf not to transpose the input (-kat). Raises VoxPressError if it cannot convert.
    """
    import onnx2tf

    example = torch.zeros(1, frames, artifact.header.frontend.num_mel_bins)
    with tempfile.TemporaryDirectory(prefix="voxpress-") as name:
        source, out = (Path(name) / one for one in ("model.onnx", "converted"))
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
                return _int8(out, calibration) if calibration else (out / "model_float32.tflite").read_bytes()
        except (Exception, SystemExit) as error:  # the converter's errors are of every kind, and it may exit
            first = str(error).strip().splitlines()[:1] or [type(error).__name__]
            raise VoxPressError(f"{artifact.header.name}: onnx2tf could not convert it: {first[0]}") from None


def check(data: bytes, artifact: LoadedArtifact, utterances: Sequence[Floats]) -> Agreement | None:
    """How far a file's embeddings are from the reference network's on features [frames, mel], all of one length.

    None if the file's input is not [1, frames, mel].
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data)
    interpreter.allocate_tensors()
    source, target = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    reference, pairs = decode(artifact), []
    for features in utterances:
        if tuple(source["shape"]) != (1, *features.shape) or source["dtype"] is not np.float32:
            return None
        interpreter.set_tensor(source["index"], features[None])
        interpreter.invoke()
        with torch.inference_mode():
            wanted = reference(torch.from_numpy(features)[None])[0].numpy()
        pairs.append((interpreter.get_tensor(target["index"])[0], wanted))
    return agreement(pairs)


def noise(artifact: LoadedArtifact, frames: int) -> Floats:
    """Seeded noise [frames, mel] that an fp32 file is checked on."""
    mel = artifact.header.frontend.num_mel_bins
    found: Floats = np.random.default_rng(0).normal(0, 2, (frames, mel)).astype(np.float32)
    return found


def _int8(saved_model: Path, calibration: Sequence[Floats]) -> bytes:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    return quantized(converter, lambda: ({INPUT_NAME: crop[None]} for crop in calibration))


def export(artifact_folder: Path, frames: int, out: Path) -> Agreement:
    """Convert in fp32, check and write; returns what was found.

    Raises InputError for a length shorter than the front end's shortest, VerificationError, and writes nothing, if the
    file is not the network.
    """
    artifact = read_artifact(artifact_folder)
    check_length(artifact, frames)
    data = convert(artifact, frames)
    found = check(data, artifact, [noise(artifact, frames)])
    if found is None:
        raise VerificationError(f"{out}: expected an input float32 [1, {frames}, mel], found another")
    if not found.max_relative_error <= TOLERANCE:
        what = f"embeddings within {TOLERANCE:g} of the reference's at {frames} frames"
        raise VerificationError(f"{out}: expected {what}, found {found.max_relative_error:.3g}")
    write_atomically(out, data)
    return found


def check_length(artifact: LoadedArtifact, frames: int) -> None:
    """Raise InputError for a length shorter than the front end's shortest."""
    shortest = min_frames(artifact.header.frontend)
    if frames < shortest:
        raise InputError("--frames", expected=f"at least {shortest}", found=str(frames))


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
        found = export(options.artifact, options.frames, options.out)
    except VoxPressError as problem:
        print(f"voxpress: {problem}", file=sys.stderr)
        return problem.exit_code
    print(
        f"{options.out}  {options.out.stat().st_size} bytes  max relative error {found.max_relative_error:.2g}  "
        f"cosine {found.cosine_mean:.5f}, least {found.cosine_min:.5f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
