"""What the ExecuTorch tests run: tiny files, made once, and a random artifact of the size that matters."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from exporters.pte.emit import Lowering, emit_pte
from pipeline.artifact.decode import decode
from pipeline.artifact.schema import Artifact, Conv2dNode
from pipeline.artifact.store import LoadedArtifact
from pipeline.features.spec import FrontEndSpec
from pipeline.models.network import lower
from pipeline.models.registry import build_model
from pipeline.models.spec import ModelSpec
from tests.factories import noise_program, random_layer, tiny_artifact

Floats = npt.NDArray[np.float32]

MAX_SECONDS = 4.0
MIN_FRAMES, MAX_FRAMES = 28, 398
LENGTHS = (MIN_FRAMES, 98, 200, 301, MAX_FRAMES)


@functools.cache
def tiny_pte(bits: int, lowering: Lowering = "voxpress", *, depthwise: bool = False) -> bytes:
    return emit_pte(tiny_artifact(bits, depthwise=depthwise), lowering=lowering, max_seconds=MAX_SECONDS)


@functools.cache
def fast_pte() -> bytes:
    """The tiny artifact of 4 bits in mode fast."""
    artifact = tiny_artifact(4)
    return emit_pte(artifact, lowering="voxpress", max_seconds=MAX_SECONDS, fast=noise_program(artifact))


def utterance(frames: int) -> Floats:
    return np.random.default_rng(frames).normal(size=(frames, 80)).astype(np.float32)


def reference(bits: int, features: Floats, *, depthwise: bool = False) -> Floats:
    """Embedding of the tiny artifact by `decode`, the reference of every runtime."""
    network = decode(tiny_artifact(bits, depthwise=depthwise))
    return np.asarray(network(torch.from_numpy(features)[None])[0].numpy())


def relative_error(found: Floats, expected: Floats) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def resnet34_artifact(bits: Any) -> LoadedArtifact:
    """ResNet34 with every layer random and of `bits` bits."""
    program = tuple(
        node.model_copy(update={"bits": bits}) if isinstance(node, Conv2dNode) else node
        for node in lower(build_model(ModelSpec()).eval()).nodes
    )
    header = Artifact(
        name=f"resnet34-{bits}bit",
        architecture="resnet34",
        embedding_dim=256,
        frontend=FrontEndSpec(),
        program=program,
        created_by="tests",
        source_sha256="0" * 64,
    )
    rng = np.random.default_rng(0)
    return LoadedArtifact(header, {node.name: random_layer(node, rng) for node in header.layers})
