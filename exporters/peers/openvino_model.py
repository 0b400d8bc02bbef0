"""The network as OpenVINO's intermediate representation, from ONNX: fp32, or int8 from ONNX Runtime's QDQ form."""

from __future__ import annotations

from pathlib import Path

import openvino

from exporters.peers.request import PeerRequest


def convert_openvino(request: PeerRequest, onnx: Path) -> list[Path]:
    """Write .xml and .bin of an ONNX file, weights in the precision they have there; returns both, the .xml first."""
    model = openvino.convert_model(str(onnx))
    path = request.folder / "model.xml"
    openvino.save_model(model, str(path), compress_to_fp16=False)
    return [path, path.with_suffix(".bin")]
