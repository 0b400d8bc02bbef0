"""Bundles whose model files are no models: for everything that is about bytes, hashes, versions and signatures."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exporters.bundle.archive import zip_bundle
from exporters.bundle.manifest import (
    MANIFEST_FILE,
    BundledArtifact,
    BundledModel,
    Golden,
    Manifest,
    Source,
)
from exporters.bundle.signature import write_signature
from exporters.bundle.write import list_files
from pipeline.features.spec import FrontEndSpec


def made_bundle(folder: Path, *, version: str = "1.0.0", salt: str = "", padding: int = 0, **fields: Any) -> Manifest:
    """A bundle's folder. `salt` changes its weights, `padding` adds bytes; `fields` replaces what its manifest says."""
    contents = {
        "models/net-4bit.pte": b"pte" + salt.encode() + b"\0" * padding,
        "models/net-4bit.tflite": b"tflite" + salt.encode(),
        "artifacts/4bit/weights.safetensors": b"weights" + salt.encode(),
        "golden/utterance.wav": b"wav",
        "golden/fbank.safetensors": b"fbank",
        "golden/embeddings.safetensors": b"embeddings",
        "frontend.json": b"{}\n",
    }
    (folder / MANIFEST_FILE).unlink(missing_ok=True)
    for name, data in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    weights = contents["artifacts/4bit/weights.safetensors"]
    values: dict[str, Any] = {
        "name": "net",
        "version": version,
        "licence": "CC-BY-4.0",
        "created_by": "tests",
        "architecture": "tiny",
        "embedding_dim": 16,
        "source": Source(model_sha256="0" * 64, checkpoint_sha256=None, recipe=None),
        "frontend": FrontEndSpec(),
        "artifacts": (
            BundledArtifact(
                label="4bit",
                folder="artifacts/4bit",
                bits={"conv1": 4, "embedding": 4},
                bits_per_weight=4.0,
                weights_bytes=len(weights),
                weights_sha256=hashlib.sha256(weights).hexdigest(),
                plan=None,
            ),
        ),
        "models": tuple(made_model(suffix) for suffix in ("pte", "tflite")),
        "primary": "4bit",
        "runtimes": (),
        "calibrations": (),
        "accuracy": (),
        "latency": (),
        "golden": Golden(
            wav="golden/utterance.wav",
            fbank="golden/fbank.safetensors",
            embeddings="golden/embeddings.safetensors",
            tolerance=1e-4,
        ),
        "files": list_files(folder),
    }
    manifest = Manifest.model_validate(values | fields)
    (folder / MANIFEST_FILE).write_bytes(manifest.json_bytes())
    return manifest


def made_model(suffix: str, **fields: Any) -> BundledModel:
    values: dict[str, Any] = {
        "file": f"models/net-4bit.{suffix}",
        "label": "4bit",
        "format": suffix,
        "lowering": "voxpress",
        "ops": {"voxpress.conv2d": 1},
        "min_frames": 28,
        "max_frames": 998,
        "max_relative_error": 1e-6,
    }
    return BundledModel.model_validate(values | fields)


def made_zip(archive: Path, key: Ed25519PrivateKey | None = None, **fields: Any) -> Manifest:
    """A bundle's zip; its folder beside it, without the suffix."""
    folder = archive.with_suffix("")
    manifest = made_bundle(folder, **fields)
    if key is not None:
        write_signature(folder, manifest.json_bytes(), key)
    zip_bundle(folder, archive)
    return manifest
