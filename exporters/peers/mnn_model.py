"""The network for MNN, by mnnconvert from ONNX: fp32, and with weights of 4 bits."""

from __future__ import annotations

from pathlib import Path

from exporters.peers.onnx_model import export_onnx
from exporters.peers.program import run_program
from exporters.peers.request import PeerRequest


def convert_mnn(request: PeerRequest, *, weight_bits: int | None = None) -> Path:
    """Write the network as .mnn; with `weight_bits`, weights are stored in so many bits and expanded by MNN."""
    path = request.folder / "model.mnn"
    words = ["-f", "ONNX", "--modelFile", str(export_onnx(request)), "--MNNModel", str(path), "--bizCode", "voxpress"]
    if weight_bits is not None:
        words += ["--weightQuantBits", str(weight_bits)]
    said = run_program("mnnconvert", words, folder=request.folder)
    # It ends with 0 even when it fails.
    if not path.is_file():
        raise RuntimeError(f"mnnconvert wrote no file: {said}")
    return path
