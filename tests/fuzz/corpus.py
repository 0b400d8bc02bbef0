"""Whole inputs that fuzzing starts from: a byte that names the reader (see targets.cc), then what it reads.

python -m tests.fuzz.corpus FOLDER
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from safetensors.numpy import save

from exporters.tflite.emit import conv2d_options, fbank_options, stats_pool_options
from exporters.tflite.graph import Graph
from pipeline.features.spec import FrontEndSpec
from tests.factories import tiny_artifact

JSON, SAFETENSORS, CONV2D_OPTIONS, CONV2D, CONV2D_U8_OPTIONS, FBANK, STATS_POOL_OPTIONS, CHUNKS = range(8)
JOURNAL, MANIFEST, SIGNATURE, VOICE, ARCHIVE, TFLITE_FILE = range(8, 14)


def corpus() -> list[bytes]:
    header = tiny_artifact().header
    node = header.layers[1]
    tensors = {"a": np.zeros((3, 4), np.float32), "b/c": np.ones(7, np.float32)}
    u8 = struct.pack("<4sHBB7i4B" + 3 * "fi", b"VXU8", 1, 4, 1, 3, 3, 1, 1, 1, 1, 1, 0, 1, 1, 0, *(0.1, 0) * 3)
    shape = bytes([1, 5, 4, 3, 6, 3, 3, 1, 1, 1, 1, 1])
    inputs = [
        (JSON, header.model_dump_json().encode()),
        (JSON, b'{"a": [1, -2, null, true], "b": {"\\u00e9\\ud83d\\ude00": "x\\n"}}'),
        (SAFETENSORS, save(tensors, metadata={"made": "by tests"})),
        (CONV2D_OPTIONS, conv2d_options(node)),
        (CONV2D_U8_OPTIONS, u8),
        (FBANK, fbank_options(FrontEndSpec()) + bytes(range(256)) * 4),
        (FBANK, fbank_options(FrontEndSpec(round_to_power_of_two=False, frame_length_ms=24.63, num_mel_bins=3))),
        (STATS_POOL_OPTIONS, stats_pool_options()),
        (CHUNKS, struct.pack("<3q", 60_000, 998, 5)),
        *((CONV2D, shape + bytes([bits, 1]) + bytes(range(256)) * 4) for bits in (1, 4, 8)),
        (CONV2D, bytes([1, 6, 5, 4, 4, 3, 3, 2, 1, 1, 1, 4, 5, 0]) + bytes(range(200))),
    ]
    voice = struct.pack("<4s3I64s40s4f", b"VXVO", 1, 4, 1, b"speaker", b"4bit", 0.5, -0.5, 0.5, -0.5)
    inputs += [(VOICE, voice[:8] + bytes(4) + voice[12:-16])]  # of no numbers
    inputs += [(MANIFEST, manifest()), (SIGNATURE, signature()), (VOICE, voice), (JOURNAL, journal())]
    inputs += [(ARCHIVE, archive()), (TFLITE_FILE, tflite_file())]
    return [bytes([reader]) + data for reader, data in inputs]


def manifest() -> bytes:
    """What an app reads of a bundle's manifest."""
    point = {"name": "eer", "threshold": 0.5}
    calibration = {"label": "4bit", "mode": "exact", "score": "cosine", "models": ["models/a.pte"]}
    found = {
        "format": "voxpress-bundle",
        "format_version": 1,
        "name": "speaker",
        "version": "1.2.3",
        "primary": "4bit",
        "embedding_dim": 256,
        "frontend": FrontEndSpec().model_dump(mode="json"),
        "files": {"models/a.pte": {"sha256": "0" * 64, "bytes": 1}},
        "models": [{"file": "models/a.pte", "label": "4bit", "format": "pte", "lowering": "voxpress", "mode": "exact"}],
        "calibrations": [{**calibration, "llr": {"slope": 1.5, "intercept": -2}, "thresholds": [point]}],
    }
    return json.dumps(found).encode()


def signature() -> bytes:
    """A public key and a signature that it could have made."""
    private = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public = private.public_key()
    raw = public.public_bytes(Encoding.Raw, PublicFormat.Raw)
    said = {
        "format": "voxpress-signature",
        "format_version": 1,
        "algorithm": "ed25519",
        "key_id": hashlib.sha256(raw).hexdigest()[:16],
        "signature": base64.b64encode(private.sign(b"manifest")).decode(),
    }
    return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) + json.dumps(said).encode()


def journal() -> bytes:
    """A journal under the key "key" of one utterance's embedding."""
    record = struct.pack("<2I1s3f", 1, 3, b"u", 1.0, 2.0, 3.0)
    check_sum = 2166136261  # FNV-1a
    for byte in record:
        check_sum = (check_sum ^ byte) * 16777619 % (1 << 32)
    return b"voxpress embeddings 1\nkey\n" + record + struct.pack("<I", check_sum)


def archive() -> bytes:
    """A zip of stored entries."""
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w", zipfile.ZIP_STORED) as stream:
        stream.writestr("manifest.json", b"{}")
        stream.writestr("models/a.pte", bytes(range(40)))
    return written.getvalue()


def tflite_file() -> bytes:
    """A .tflite file of one operator, with a manifest."""
    graph = Graph()
    output = graph.value("embedding", (1, 4))
    features = graph.value("features", (1, 4))
    graph.custom("voxpress.stats_pool", [features], output, options=stats_pool_options())
    return graph.finish(
        inputs={"features": features}, outputs={"embedding": output}, manifest='{"min_frames": 1}', description="tiny"
    )


def write_corpus(folder: Path) -> list[Path]:
    """The inputs as files of a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, data in enumerate(corpus()):
        paths.append(folder / f"{index:02}")
        paths[-1].write_bytes(data)
    return paths


if __name__ == "__main__":
    write_corpus(Path(sys.argv[1]))
