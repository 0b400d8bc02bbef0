"""A tiny bundle of both formats: fp32 controls, and 4 bit in both modes and of samples; made once for all its tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from exporters.bundle.write import BundleContent, write_bundle
from exporters.export import ExportRequest, export_artifact, prepare_fast
from exporters.exported import Format
from pipeline.artifact.store import LoadedArtifact, StoredLayer
from pipeline.corpus.synthesis import draw_session, draw_voice, synthesise
from pipeline.files import sha256_file
from pipeline.progress import Progress
from tests.factories import tiny_artifact

VERSION = "0.1.0"
_KINDS = ("tiny-fp32", "tiny-4bit", "tiny-4bit-fast", "tiny-4bit-waveform")
FILES = tuple(f"{kind}.{file_format}" for file_format in ("pte", "tflite") for kind in _KINDS)


def make_bundle(
    folder: Path,
    formats: Sequence[Format] = ("pte", "tflite"),
    version: str = VERSION,
    *,
    split_weights: bool = False,
) -> Path:
    """A bundle in `folder/tiny-<version>`; with `split_weights`, .pte files of VoxPress ops share a .ptd."""
    # The 4-bit network is a rounding of the fp32 one, as a quantized network is.
    artifacts = {"fp32": _fp32_twin(tiny_artifact(4)), "4bit": tiny_artifact(4)}
    exports, written = folder / "exports", []
    exports.mkdir(parents=True)
    noise = {f"u{i}": np.random.default_rng(i).normal(size=(120, 80)).astype(np.float32) for i in range(8)}
    fast = prepare_fast(artifacts["4bit"], noise, exports, max_seconds=3.0, progress=Progress.silent())
    for file_format in formats:
        split = split_weights and file_format == "pte"
        exact = ExportRequest(artifacts["4bit"], "4bit", file_format, "voxpress", split_weights=split)
        for request in (
            ExportRequest(artifacts["fp32"], "fp32", file_format, "stock"),
            exact,
            replace(exact, fast=fast),
            replace(exact, input="waveform"),
        ):
            written.append(export_artifact(request, exports, max_seconds=3.0))
    rng = np.random.default_rng(0)
    write_bundle(
        folder / f"tiny-{version}",
        BundleContent(
            name="tiny",
            version=version,
            licence="none",
            created_by="tests",
            models=exports,
            exported=written,
            artifacts=artifacts,
            primary="4bit",
            golden=synthesise(draw_voice(rng), draw_session(rng), 24000, rng),
        ),
    )
    return folder / f"tiny-{version}"


def altered_bundle(bundle: Path, folder: Path, change: Callable[[Path], None]) -> Path:
    """A copy of a bundle after `change` was applied to it, with a manifest that fits it again."""
    copy = Path(shutil.copytree(bundle, folder / "altered"))
    change(copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        entry.update(sha256=sha256_file(copy / name), bytes=(copy / name).stat().st_size)
    (copy / "manifest.json").write_text(json.dumps(manifest))
    return copy


def _fp32_twin(artifact: LoadedArtifact) -> LoadedArtifact:
    """The network that the artifact could be a rounding of."""
    header, rng = tiny_artifact(32).header, np.random.default_rng(1)
    layers = {}
    for node in header.layers:
        layer = artifact.layers[node.name]
        weight = layer.dense_weight()
        noise = rng.normal(0, 0.02 * float(weight.std()), weight.shape)
        layers[node.name] = StoredLayer(node, layer.scale, layer.bias, weight=(weight + noise).astype(np.float32))
    return LoadedArtifact(header, layers)
