"""ExecuTorch files without our ops: fp32 on XNNPACK, and int8 by PT2E."""

from __future__ import annotations

import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
    XNNPACKQuantizer,
    get_symmetric_quantization_config,
)
from executorch.exir import ExecutorchBackendConfig, to_edge_transform_and_lower
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from exporters.peers.request import PeerRequest
from exporters.pte.emit import StockNetwork, emit_pte, frame_range


def float_pte(request: PeerRequest) -> bytes:
    """The network in torch's own ops in fp32, on the XNNPACK delegate."""
    return emit_pte(request.artifact, lowering="stock", max_seconds=request.max_seconds)


def int8_pte(request: PeerRequest) -> bytes:
    """The network in int8 by PT2E, on the XNNPACK delegate: static activations, symmetric weights per channel.

    Features in and embedding out stay fp32, and so does pooling. It answers `min_frames` and `max_frames` as our own
    files do.
    """
    limits = frame_range(request.artifact.header.frontend, request.max_seconds)
    example = (torch.zeros(1, limits.maximum, request.artifact.header.frontend.num_mel_bins),)
    lengths = ({1: torch.export.Dim("frames", min=limits.minimum, max=limits.maximum)},)
    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    with torch.no_grad():
        network = StockNetwork(request.artifact).eval()
        graph = torch.export.export(network, example, dynamic_shapes=lengths, strict=True).module()
        prepared = prepare_pt2e(graph, quantizer)
        for crop in request.calibration:
            prepared(torch.from_numpy(crop)[None])
        converted = torch.export.export(convert_pt2e(prepared), example, dynamic_shapes=lengths, strict=True)
    answers = {"min_frames": limits.minimum, "max_frames": limits.maximum}
    edge = to_edge_transform_and_lower(converted, partitioner=[XnnpackPartitioner()], constant_methods=answers)
    return bytes(edge.to_executorch(ExecutorchBackendConfig(constant_tensor_alignment=64)).buffer)
