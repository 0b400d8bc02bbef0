"""The runtimes and number formats that users could pick instead of ours, and what each needs to be installed.

Every peer is built from the same float weights by its own public tools; `exporters.peers.build` does it, this module
only names them and imports nothing of theirs.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

from pipeline.errors import InputError

PeerRuntime = Literal["executorch", "litert", "onnxruntime", "openvino", "ncnn", "mnn"]
PeerKind = Literal["fp32", "int8", "weight-only"]

# What the extra `peers` brings; the rest comes with VoxPress itself.
INSTALL_HINT = "pip install --editable '.[peers]'"


@dataclass(frozen=True)
class Peer:
    """One row of a comparison.

    kind: "fp32", "int8" (8-bit weights and activations, static or made at run time) or "weight-only" (low-bit weights
    in the file, fp32 activations). `packages` are the distributions that build and run it.
    """

    name: str
    title: str
    runtime: PeerRuntime
    kind: PeerKind
    packages: tuple[str, ...]
    fixed_length: bool = False  # its converter takes one utterance length; a file is made for each

    def missing_packages(self) -> tuple[str, ...]:
        """Those of its packages that are not installed."""
        return tuple(package for package in self.packages if not installed(package))


_ONNX = ("onnx", "onnxscript", "onnxruntime")

PEERS = (
    Peer("executorch-fp32", "ExecuTorch XNNPACK fp32", "executorch", "fp32", ("executorch",)),
    Peer("executorch-int8", "ExecuTorch XNNPACK int8 (PT2E)", "executorch", "int8", ("executorch", "torchao")),
    Peer("litert-fp32", "LiteRT fp32", "litert", "fp32", ("tensorflow", "ai-edge-litert")),
    Peer("litert-dynamic", "LiteRT dynamic-range int8", "litert", "int8", ("tensorflow", "ai-edge-litert")),
    Peer("litert-int8", "LiteRT full int8", "litert", "int8", ("tensorflow", "ai-edge-litert")),
    Peer("onnxruntime-fp32", "ONNX Runtime fp32", "onnxruntime", "fp32", _ONNX),
    Peer("onnxruntime-int8", "ONNX Runtime int8 (QDQ)", "onnxruntime", "int8", _ONNX),
    Peer("openvino-fp32", "OpenVINO fp32", "openvino", "fp32", (*_ONNX, "openvino")),
    Peer("openvino-int8", "OpenVINO int8 (QDQ)", "openvino", "int8", (*_ONNX, "openvino")),
    Peer("ncnn-fp32", "ncnn fp32", "ncnn", "fp32", ("ncnn", "pnnx"), fixed_length=True),
    Peer("mnn-fp32", "MNN fp32", "mnn", "fp32", (*_ONNX, "MNN")),
    Peer("mnn-4bit", "MNN 4-bit weight-only", "mnn", "weight-only", (*_ONNX, "MNN")),
)


def peer_named(name: str) -> Peer:
    """A peer by its name. Raises InputError for a name that is none."""
    found = next((peer for peer in PEERS if peer.name == name), None)
    if found is None:
        raise InputError("peer", expected=f"one of {', '.join(peer.name for peer in PEERS)}", found=name)
    return found


def choose_peers(words: str) -> tuple[Peer, ...]:
    """Peers of a comma-separated list: "all", "none", runtimes ("ncnn") and single peers ("litert-int8").

    Raises InputError for a word that is none of these.
    """
    if words == "none":
        return ()
    chosen = set()
    for word in words.split(","):
        matches = {peer.name for peer in PEERS if word in ("all", peer.runtime, peer.name)}
        if not matches:
            known = ["all", "none", *dict.fromkeys(peer.runtime for peer in PEERS), *(peer.name for peer in PEERS)]
            raise InputError("--peers", expected=f"some of {', '.join(known)}", found=repr(word))
        chosen |= matches
    return tuple(peer for peer in PEERS if peer.name in chosen)


def installed(package: str) -> bool:
    """Whether a distribution is there."""
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
