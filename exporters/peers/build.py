"""Builds one peer's files; a program too, so that what a converter prints, keeps in memory or dies of stays apart.

    python -m exporters.peers.build PEER --artifact DIR --calibration FILE --out DIR --frames N --max-seconds S

`--calibration` is a safetensors file of float32 [frames, mel] by utterance. The names of the files that were written
are in `OUT/files.json`, the one to be loaded first. What is wrong is one line on stderr and exit code 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

from safetensors.numpy import load_file

from exporters.peers.catalogue import INSTALL_HINT, Peer, peer_named
from exporters.peers.request import PeerRequest
from pipeline.artifact.store import read_artifact
from pipeline.errors import MissingToolError, VoxPressError
from pipeline.files import write_atomically

FILES_LIST = "files.json"


def build_peer(peer: Peer, request: PeerRequest) -> list[Path]:
    """Write a peer's files into `request.folder` and return those it needs to run, the one to be loaded first.

    Raises MissingToolError, saying how to install them, if packages are missing; otherwise what its converter raises.
    """
    missing = peer.missing_packages()
    if missing:
        raise MissingToolError(f"{', '.join(missing)} not installed: {INSTALL_HINT}")
    return _BUILDERS[peer.name](request)


def main(arguments: list[str] | None = None) -> int:
    """The command line of this module; returns the exit code."""
    parser = argparse.ArgumentParser(prog="build", description="Build a peer's files.")
    parser.add_argument("peer")
    parser.add_argument("--artifact", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--frames", type=int, required=True)
    parser.add_argument("--max-seconds", type=float, required=True)
    options = parser.parse_args(arguments)
    try:
        calibration = load_file(options.calibration)
        request = PeerRequest(
            artifact=read_artifact(options.artifact),
            calibration=[calibration[name] for name in sorted(calibration)],
            folder=options.out,
            frames=options.frames,
            max_seconds=options.max_seconds,
        )
        files = build_peer(peer_named(options.peer), request)
    except VoxPressError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return error.exit_code
    except Exception as error:  # whatever a converter raises is the reason why there is no such peer
        print(" ".join(f"{type(error).__name__}: {error}".split())[:400], file=sys.stderr)
        return VoxPressError.exit_code
    write_atomically(options.out / FILES_LIST, json.dumps([path.name for path in files]) + "\n")
    return 0


def _executorch(request: PeerRequest, *, numbers: Literal["fp32", "int8"]) -> list[Path]:
    from exporters.peers.executorch_model import float_pte, int8_pte

    return [_written(request, "model.pte", (float_pte if numbers == "fp32" else int8_pte)(request))]


def _litert(request: PeerRequest, *, numbers: Literal["fp32", "dynamic", "int8"]) -> list[Path]:
    from exporters.peers.tensorflow_model import convert_tflite

    return [_written(request, "model.tflite", convert_tflite(request, numbers))]


def _onnxruntime(request: PeerRequest, *, numbers: Literal["fp32", "int8"]) -> list[Path]:
    from exporters.peers.onnx_model import export_onnx, quantize_onnx

    return [(export_onnx if numbers == "fp32" else quantize_onnx)(request)]


def _openvino(request: PeerRequest, *, numbers: Literal["fp32", "int8"]) -> list[Path]:
    from exporters.peers.openvino_model import convert_openvino

    return convert_openvino(request, _onnxruntime(request, numbers=numbers)[0])


def _ncnn(request: PeerRequest) -> list[Path]:
    from exporters.peers.ncnn_model import convert_ncnn

    return convert_ncnn(request)


def _mnn(request: PeerRequest, *, weight_bits: int | None) -> list[Path]:
    from exporters.peers.mnn_model import convert_mnn

    return [convert_mnn(request, weight_bits=weight_bits)]


def _written(request: PeerRequest, name: str, data: bytes) -> Path:
    write_atomically(request.folder / name, data)
    return request.folder / name


_BUILDERS: Mapping[str, Callable[[PeerRequest], list[Path]]] = {
    "executorch-fp32": lambda request: _executorch(request, numbers="fp32"),
    "executorch-int8": lambda request: _executorch(request, numbers="int8"),
    "litert-fp32": lambda request: _litert(request, numbers="fp32"),
    "litert-dynamic": lambda request: _litert(request, numbers="dynamic"),
    "litert-int8": lambda request: _litert(request, numbers="int8"),
    "onnxruntime-fp32": lambda request: _onnxruntime(request, numbers="fp32"),
    "onnxruntime-int8": lambda request: _onnxruntime(request, numbers="int8"),
    "openvino-fp32": lambda request: _openvino(request, numbers="fp32"),
    "openvino-int8": lambda request: _openvino(request, numbers="int8"),
    "ncnn-fp32": _ncnn,
    "mnn-fp32": lambda request: _mnn(request, weight_bits=None),
    "mnn-4bit": lambda request: _mnn(request, weight_bits=4),
}


if __name__ == "__main__":
    sys.exit(main())
