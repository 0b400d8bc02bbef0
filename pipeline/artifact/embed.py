"""Embeddings by a torch network: the reference side of every comparison."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from pipeline.progress import Progress

Floats = npt.NDArray[np.float32]


def embed(network: nn.Module, features: Mapping[str, Floats], progress: Progress, label: str) -> dict[str, Floats]:
    """Embeddings [E] of features [frames, mel] by utterance: whole utterances, one at a time, fp32 on the CPU."""
    embeddings = {}
    with torch.inference_mode(), progress.task(label, len(features)) as task:
        for utterance, frames in features.items():
            embeddings[utterance] = network(torch.from_numpy(frames)[None])[0].numpy().copy()
            task.advance()
    return embeddings
