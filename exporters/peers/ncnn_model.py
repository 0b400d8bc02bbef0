"""The network for ncnn, by pnnx: fp32, for one utterance length."""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from exporters.peers.program import run_program
from exporters.peers.request import PeerRequest
from exporters.pte.emit import StockNetwork
from pipeline.artifact.schema import STATS_POOL_EPSILON


def convert_ncnn(request: PeerRequest) -> list[Path]:
    """Write the network as ncnn's .param and .bin for `frames` frames; returns both, the .param first.

    Frames enter as a constant, the T / (T - 1) of the deviation.
    """
    network = _OpsThatNcnnHas(request.artifact).eval()
    mel = request.artifact.header.frontend.num_mel_bins
    with torch.no_grad(), tempfile.TemporaryDirectory(dir=request.folder) as name:
        traced = torch.jit.trace(network, torch.zeros(1, request.frames, mel))  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(Path(name) / "model.pt"))
        # pnnx writes beside its input, and its intermediate forms too.
        run_program("pnnx", ["model.pt", f"inputshape=[1,{request.frames},{mel}]", "fp16=0"], folder=Path(name))
        files = []
        for suffix in ("param", "bin"):
            made = Path(name) / f"model.ncnn.{suffix}"
            if not made.is_file():
                raise RuntimeError(f"pnnx wrote no {made.name}")
            files.append(made.rename(request.folder / f"model-{request.frames}.{suffix}"))
    return files


class _OpsThatNcnnHas(StockNetwork):
    def stats_pool(self, x: Tensor) -> Tensor:
        """As in the base class, without a variance op and without tensors of more than three axes."""
        frames = x.shape[2]
        mean = x.mean(dim=2, keepdim=True)
        centred = x - mean
        variance = (centred * centred).mean(dim=2, keepdim=True) * (frames / (frames - 1))
        both = torch.cat([mean, (variance + STATS_POOL_EPSILON).sqrt()], dim=2)  # [1, C, 2, mel]
        return both.permute(0, 2, 3, 1).flatten(1)[:, :, None, None]
