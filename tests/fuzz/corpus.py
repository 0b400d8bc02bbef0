"""Whole inputs that fuzzing starts from: a byte that names the reader (see targets.cc), then what it reads.

python -m tests.fuzz.corpus FOLDER
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from exporters.tflite.emit import conv2d_options, fbank_options, stats_pool_options
from pipeline.features.spec import FrontEndSpec
from tests.factories import tiny_artifact

JSON, SAFETENSORS, CONV2D_OPTIONS, CONV2D, CONV2D_U8_OPTIONS, FBANK, STATS_POOL_OPTIONS, CHUNKS = range(8)


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
    return [bytes([reader]) + data for reader, data in inputs]


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
