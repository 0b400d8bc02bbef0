"""The network as ONNX, from which ONNX Runtime, OpenVINO and MNN take it, and ONNX Runtime's int8 form of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from exporters.peers.request import Floats, PeerRequest
from exporters.pte.emit import StockNetwork, frame_range
from pipeline.artifact.schema import INPUT_NAME
from pipeline.files import write_atomically

# The oldest that torch's exporter writes; every converter here reads it.
OPSET = 18
OUTPUT_NAME = "embedding"
FLOAT_FILE = "model.onnx"
INT8_FILE = "model-int8.onnx"

# Where the multiplications are. Pooling stays in fp32, as its sums of squares do not fit 8 bits.
_QUANTIZED_OPS = ("Conv", "Gemm", "Add", "Relu")


def export_onnx(request: PeerRequest) -> Path:
    """Write the fp32 network, features [1, frames, mel] -> embedding [1, E], frames dynamic; returns the file."""
    limits = frame_range(request.artifact.header.frontend, request.max_seconds)
    example = torch.zeros(1, limits.maximum, request.artifact.header.frontend.num_mel_bins)
    frames = torch.export.Dim("frames", min=limits.minimum, max=limits.maximum)
    with torch.no_grad():
        program = torch.onnx.export(
            StockNetwork(request.artifact).eval(),
            (example,),
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
            opset_version=OPSET,
            dynamic_shapes=({1: frames},),
            dynamo=True,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    path = request.folder / FLOAT_FILE
    write_atomically(path, program.model_proto.SerializeToString())
    return path


def quantize_onnx(request: PeerRequest) -> Path:
    """Write the int8 network in QDQ form: uint8 activations by min-max over `calibration`, int8 weights per channel."""
    prepared = request.folder / "prepared.onnx"
    # Symbolic shape inference does not know every op and adds nothing that quantization needs.
    quant_pre_process(str(export_onnx(request)), str(prepared), skip_symbolic_shape=True)
    path = request.folder / INT8_FILE
    quantize_static(
        str(prepared),
        str(path),
        _Crops(request.calibration),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=list(_QUANTIZED_OPS),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return path


class _Crops(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, crops: Any) -> None:
        self._crops: Iterator[Floats] = iter(crops)

    def get_next(self) -> dict[str, Floats] | None:
        crop = next(self._crops, None)
        return None if crop is None else {INPUT_NAME: crop[None]}
