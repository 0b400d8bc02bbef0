"""The algorithm of each layer in mode `fast`, chosen by measured error where the fastest one costs too much accuracy.

Winograd's algorithm saves multiplications and rounds more. Embeddings of calibration utterances are compared with those
of decode(artifact). As long as they are near enough with the kernels' own choice for every layer, that is taken. Else
layers go to Winograd's algorithm one after the other, those first that cost least for what they save, as far as the
bounds allow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict

from calibration.ranges import ActivationRanges
from exporters.exported import Agreement
from exporters.fast import Algorithm, FastProgram, fast_program
from exporters.tflite.emit import emit_tflite
from exporters.tflite.run import TfliteRunner
from exporters.verify import LEAST_COSINE, LEAST_MEAN_COSINE, agreement, native_chatter_held_back
from pipeline.artifact.decode import decode
from pipeline.artifact.size import layer_macs
from pipeline.artifact.store import LoadedArtifact
from pipeline.progress import Task

Floats = npt.NDArray[np.float32]

# Utterances of at most so many frames are enough to tell layers apart, and every layer is measured on all of them.
UTTERANCES, FRAMES = 8, 300

# From the slowest to the fastest, with the products each needs for one of the direct algorithm. What the kernels choose
# by themselves is at best F(4x4).
_PRODUCTS = {Algorithm.DIRECT: 1.0, Algorithm.WINOGRAD2: 16 / 36, Algorithm.AUTO: 36 / 144}
_ORDER = list(_PRODUCTS)


class AlgorithmChoice(BaseModel):
    """What was chosen, and what it cost: agreement with decode(artifact) under the kernels' choice and this one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    algorithms: dict[str, str]  # of layers whose algorithm is not left to the kernels
    kernels_choice: Agreement
    chosen: Agreement


def choose_algorithms(
    artifact: LoadedArtifact,
    rounded: LoadedArtifact,
    ranges: ActivationRanges,
    utterances: Mapping[str, Floats],
    task: Task,
) -> tuple[FastProgram, AlgorithmChoice]:
    """Mode `fast` of an artifact with an algorithm for each layer, measured on the first 300 frames of 8 utterances.

    rounded: the artifact with the palettes that files of mode fast have.
    Bounds are those of `exporters.verify`: every cosine at least 0.99, their mean at least 0.999. If no choice meets
    them, all layers are direct.
    """
    measure = _Measure(artifact, rounded, utterances)
    free = fast_program(artifact.header, ranges)
    kernels_choice = measure(free)
    if _near_enough(kernels_choice):
        return free, AlgorithmChoice(algorithms={}, kernels_choice=kernels_choice, chosen=kernels_choice)
    layers = [node.name for node in artifact.header.layers if free.may_use_winograd(node)]
    direct = dict.fromkeys(layers, Algorithm.DIRECT)
    base = 1 - measure(fast_program(artifact.header, ranges, direct)).cosine_mean
    macs = layer_macs(artifact.header.program, frames=FRAMES, num_mel_bins=artifact.header.frontend.num_mel_bins)
    moves = []
    for name in layers:
        task.note(f"measuring {name}")
        for algorithm in _ORDER[1:]:
            alone = measure(fast_program(artifact.header, ranges, {**direct, name: algorithm}))
            saved = macs[name] * (1 - _PRODUCTS[algorithm])
            moves.append((max(0.0, 1 - alone.cosine_mean - base) / saved, name, algorithm))
    chosen = _most_moves(artifact, ranges, direct, [(name, algorithm) for _, name, algorithm in sorted(moves)], measure)
    program = fast_program(artifact.header, ranges, chosen)
    names = {name: algorithm.name.lower() for name, algorithm in chosen.items()}
    return program, AlgorithmChoice(algorithms=names, kernels_choice=kernels_choice, chosen=measure(program))


class _Measure:
    """Agreement of a program's embeddings with decode(artifact) on some utterances."""

    def __init__(self, artifact: LoadedArtifact, rounded: LoadedArtifact, utterances: Mapping[str, Floats]) -> None:
        self._rounded = rounded
        self._inputs = [features[:FRAMES] for features in islice(utterances.values(), UTTERANCES)]
        reference = decode(artifact)
        with torch.inference_mode():
            self._wanted = [reference(torch.from_numpy(x)[None])[0].numpy() for x in self._inputs]

    def __call__(self, program: FastProgram) -> Agreement:
        with native_chatter_held_back():
            runner = TfliteRunner(emit_tflite(self._rounded, lowering="voxpress", fast=program))
        return agreement([(runner.embed(x), w) for x, w in zip(self._inputs, self._wanted, strict=True)])


def _near_enough(found: Agreement) -> bool:
    return found.cosine_min >= LEAST_COSINE and found.cosine_mean >= LEAST_MEAN_COSINE


def _most_moves(
    artifact: LoadedArtifact,
    ranges: ActivationRanges,
    direct: Mapping[str, Algorithm],
    moves: Sequence[tuple[str, Algorithm]],
    measure: _Measure,
) -> dict[str, Algorithm]:
    """All layers direct but for as many of the moves, from the first on, as stay within the bounds."""

    def after(count: int) -> dict[str, Algorithm]:
        algorithms = dict(direct)
        for name, algorithm in moves[:count]:
            algorithms[name] = max(algorithms[name], algorithm, key=_ORDER.index)
        return {name: algorithm for name, algorithm in algorithms.items() if algorithm != Algorithm.AUTO}

    low, high = 0, len(moves)
    while low < high:
        middle = (low + high + 1) // 2
        if _near_enough(measure(fast_program(artifact.header, ranges, after(middle)))):
            low = middle
        else:
            high = middle - 1
    return after(low)
