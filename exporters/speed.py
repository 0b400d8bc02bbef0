"""Times a pressed ResNet34 in both formats against the stock fp32 models of the same weights, in one process.

`python -m exporters.speed --frames 200 --bits 4 --repeats 21 > speed.json`
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from exporters.manifest import Lowering
from exporters.pte.emit import emit_pte
from exporters.pte.run import PteRunner
from exporters.tflite.emit import emit_tflite
from exporters.tflite.run import TfliteRunner
from pipeline.artifact.bitpack import pack_codes
from pipeline.artifact.schema import Artifact, Conv2dNode
from pipeline.artifact.store import LoadedArtifact, StoredLayer
from pipeline.features.spec import FrontEndSpec
from pipeline.models.network import lower
from pipeline.models.registry import build_model
from pipeline.models.spec import ModelSpec

Floats = npt.NDArray[np.float32]

_LOWERINGS: tuple[Lowering, ...] = ("voxpress", "stock")


def random_resnet34(bits: int, seed: int = 0) -> LoadedArtifact:
    """A ResNet34 with random weights of `bits` bits (1..8), scaled so that activations stay near one."""
    nodes = lower(build_model(ModelSpec()).eval()).nodes
    header = Artifact(
        name=f"resnet34-{bits}bit",
        architecture="resnet34",
        embedding_dim=256,
        frontend=FrontEndSpec(),
        program=tuple(n.model_copy(update={"bits": bits}) if isinstance(n, Conv2dNode) else n for n in nodes),
        created_by="exporters.speed",
        source_sha256="0" * 64,
    )
    rng = np.random.default_rng(seed)
    return LoadedArtifact(header, {node.name: _random_layer(node, rng) for node in header.layers})


def _random_layer(node: Conv2dNode, rng: np.random.Generator) -> StoredLayer:
    fan_in = node.weight_count / node.out_channels
    return StoredLayer(
        node,
        scale=rng.uniform(0.5, 1.5, node.out_channels).astype(np.float32),
        bias=rng.normal(0, 0.1, node.out_channels).astype(np.float32),
        codes=pack_codes(rng.integers(0, 1 << node.bits, node.weight_count).astype(np.uint8), node.bits),
        palette=(np.sort(rng.normal(size=1 << node.bits)) / np.sqrt(fan_in)).astype(np.float32),
    )


def time_in_turns(runs: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[int]]:
    """Nanoseconds of each of `repeats` calls of every run, one after the other, after one call of each to warm up."""
    samples: dict[str, list[int]] = {name: [] for name in runs}
    for turn in range(repeats + 1):
        for name, run in runs.items():
            begin = time.perf_counter_ns()
            run()
            if turn > 0:
                samples[name].append(time.perf_counter_ns() - begin)
    return samples


@contextmanager
def _one_core() -> Iterator[None]:
    """Keeps the process, and threads it starts, on one core: ExecuTorch's pool cannot be told to have one thread."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def time_models(artifact: LoadedArtifact, *, frames: int, repeats: int) -> dict[str, Any]:
    """Samples, errors and ratios of `artifact` as .pte and .tflite with our ops, and with stock ops in fp32.

    `ratio` is a model's median time to that of the fastest stock one, `relative_error` max|e - r| / max|r| to the
    embedding r of the stock .pte. One core; batch 1; features are seeded noise.
    """
    with _one_core():
        return _time_models(artifact, frames, repeats)


def _time_models(artifact: LoadedArtifact, frames: int, repeats: int) -> dict[str, Any]:
    spec = artifact.header.frontend
    features: Floats = np.random.default_rng(0).normal(size=(frames, spec.num_mel_bins)).astype(np.float32)
    runners: dict[str, PteRunner | TfliteRunner] = {}
    for lowering in _LOWERINGS:
        seconds = (frames + 2) * spec.frame_shift_ms / 1000 + 1.0
        runners[f"{lowering}.pte"] = PteRunner(emit_pte(artifact, lowering=lowering, max_seconds=seconds))
        runners[f"{lowering}.tflite"] = TfliteRunner(emit_tflite(artifact, lowering=lowering))
    runs = {name: functools.partial(runner.embed, features) for name, runner in runners.items()}
    samples = time_in_turns(runs, repeats)
    medians = {name: float(np.median(values)) for name, values in samples.items()}
    fastest_stock = min(median for name, median in medians.items() if name.startswith("stock"))
    reference = runners["stock.pte"].embed(features)
    errors = {
        name: float(np.abs(runner.embed(features) - reference).max() / np.abs(reference).max())
        for name, runner in runners.items()
    }
    return {
        "model": artifact.header.name,
        "frames": frames,
        "models": {
            name: {
                "ratio": medians[name] / fastest_stock,
                "relative_error": errors[name],
                "samples_ns": samples[name],
            }
            for name in runners
        },
    }


def main(arguments: list[str] | None = None) -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--bits", type=int, default=4, choices=range(1, 9))
    parser.add_argument("--repeats", type=int, default=21)
    options = parser.parse_args(arguments)
    json.dump(time_models(random_resnet34(options.bits), frames=options.frames, repeats=options.repeats), sys.stdout)


if __name__ == "__main__":
    main()
