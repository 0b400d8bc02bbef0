"""How far the C++ front end is from kaldi-native-fbank on recordings.

`python -m exporters.frontend_error --audio DIR`
"""

from __future__ import annotations

import argparse
import ctypes
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from exporters.frontend import fbank_numbers
from exporters.native import native_path
from pipeline.corpus.audio import AUDIO_SUFFIXES, read_utterance
from pipeline.errors import InputError, VoxPressError
from pipeline.features.fbank import fbank, features, frames_of
from pipeline.features.spec import FrontEndSpec

Floats = npt.NDArray[np.float32]


class _Options(ctypes.Structure):
    _fields_ = (
        *[(name, ctypes.c_int32) for name in ("rate", "window_samples", "shift_samples", "mel")],
        *[(name, ctypes.c_float) for name in ("scale", "preemphasis", "low_hz", "high_hz")],
        ("window", ctypes.c_int32),
        ("switches", ctypes.c_bool * 5),
    )


class _Tensors(ctypes.Structure):
    _fields_ = (
        ("batch", ctypes.c_int64),
        ("samples", ctypes.c_int64),
        ("input", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
    )


class FrontEnd:
    """The C++ front end, with or without mean normalisation: samples [S] -> log-mel [frames, mel]."""

    def __init__(self, spec: FrontEndSpec, *, mean_normalise: bool) -> None:
        n = fbank_numbers(spec)
        self.spec = spec
        self._library: Any = ctypes.CDLL(str(native_path("kernels_capi")))
        for name in ("plan_bytes", "scratch_bytes"):
            getattr(self._library, f"voxpress_fbank_{name}").restype = ctypes.c_size_t
        self._options = _Options(
            n.sample_rate_hz,
            n.window_samples,
            n.shift_samples,
            n.num_mel_bins,
            n.sample_scale,
            n.preemphasis,
            n.low_hz,
            n.high_hz,
            n.window,
            (ctypes.c_bool * 5)(*(bool(n.flags >> bit & 1) for bit in range(4)), mean_normalise),
        )
        by_reference = ctypes.byref(self._options)
        # Doubles are aligned as the tables and the scratch have to be.
        self._plan = np.zeros(self._library.voxpress_fbank_plan_bytes(by_reference) // 8 + 1)
        self._scratch = np.zeros(self._library.voxpress_fbank_scratch_bytes(by_reference) // 8 + 1)
        self._check(self._library.voxpress_fbank_plan(by_reference, *_memory(self._plan)))

    def __call__(self, samples: Floats) -> Floats:
        """[S] -> [frames, mel]."""
        samples = np.ascontiguousarray(samples, np.float32)
        output: Floats = np.empty((frames_of(len(samples), self.spec), self.spec.num_mel_bins), np.float32)
        tensors = _Tensors(1, len(samples), samples.ctypes.data, output.ctypes.data)
        arguments = (*_memory(self._plan), ctypes.byref(tensors), *_memory(self._scratch))
        self._check(self._library.voxpress_fbank_run(ctypes.byref(self._options), *arguments))
        return output

    @staticmethod
    def _check(status: int) -> None:
        if status != 0:
            raise VoxPressError(f"front end: expected status 0, found {status}")


def _memory(array: npt.NDArray[Any]) -> tuple[ctypes.c_void_p, ctypes.c_size_t]:
    return ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)


def compare(audio: Path, spec: FrontEndSpec, limit: int) -> dict[str, float]:
    """Differences in log-mel over all recordings below `audio`, or `limit` of them, spread evenly.

    Each is taken whole and cut to a random length, with and without mean normalisation; `different` counts the values
    that are not the same bit by bit. Raises InputError if there are none.
    """
    paths = sorted(path for path in audio.rglob("*") if path.suffix in AUDIO_SUFFIXES)
    if not paths:
        raise InputError(audio, expected="recordings (.wav or .flac)", found="none")
    kinds = (
        (FrontEnd(spec, mean_normalise=False), fbank),
        (FrontEnd(spec, mean_normalise=True), features),
    )
    rng = np.random.default_rng(0)
    shortest = round(spec.min_seconds * spec.sample_rate_hz)
    values = different = over = 0
    largest = 0.0
    chosen = paths[:: max(1, len(paths) // limit)]
    for path in chosen:
        whole = read_utterance(path, spec.sample_rate_hz, spec.min_seconds)
        for samples in (whole, whole[: int(rng.integers(shortest, len(whole) + 1))]):
            for front_end, reference in kinds:
                difference = np.abs(front_end(samples) - reference(samples, spec))
                values += difference.size
                different += int((difference > 0).sum())
                over += int((difference > 1e-3).sum())
                largest = max(largest, float(difference.max()))
    return {
        "recordings": len(chosen),
        "values": values,
        "different": different,
        "over_1e-3": over,
        "largest": largest,
    }


def main(arguments: list[str] | None = None) -> int:
    """The command line of this module."""
    parser = argparse.ArgumentParser(
        prog="frontend_error",
        description="Differences in log-mel between the C++ front end and kaldi-native-fbank, as JSON.",
        epilog="Example: python -m exporters.frontend_error --audio speech/dev",
    )
    parser.add_argument("--audio", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=200, help="recordings taken, spread evenly")
    options = parser.parse_args(arguments)
    try:
        found = compare(options.audio, FrontEndSpec(), max(1, options.limit))
    except VoxPressError as error:
        print(f"voxpress: {error}", file=sys.stderr)
        return error.exit_code
    json.dump(found, sys.stdout, indent=1)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
