"""The C++ front end against kaldi-native-fbank, which features are trained on."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.features.fbank import fbank, features, frames_of
from pipeline.features.spec import FrontEndSpec
from tests.factories import speech_like
from tests.kernels.capi import BAD_BUFFER_SIZE, BAD_PACKED, BAD_SHAPE, NULL_POINTER, OK, Bytes, Floats, guarded, library

SPECS = {
    "default": FrontEndSpec(),
    "povey": FrontEndSpec(window="povey", num_mel_bins=40),
    "hanning": FrontEndSpec(window="hanning", preemphasis=0.0),
    "8kHz": FrontEndSpec(sample_rate_hz=8000, high_hz=-400, num_mel_bins=23, frame_shift_ms=12.5),
    "48kHz": FrontEndSpec(sample_rate_hz=48000, low_hz=0.0),
    "magnitude": FrontEndSpec(use_power=False, remove_dc_offset=False, num_mel_bins=40),
    "unscaled": FrontEndSpec(sample_scale=1.0),
    "fft400": FrontEndSpec(round_to_power_of_two=False, num_mel_bins=40),
    "fft394 (prime factor 197)": FrontEndSpec(round_to_power_of_two=False, frame_length_ms=24.63, num_mel_bins=40),
}
WINDOWS = ("hamming", "povey", "hanning")


class Options(ctypes.Structure):
    _fields_ = (
        *[(n, ctypes.c_int32) for n in ("sample_rate_hz", "window_samples", "shift_samples", "num_mel_bins")],
        *[(n, ctypes.c_float) for n in ("sample_scale", "preemphasis", "low_hz", "high_hz")],
        ("window", ctypes.c_int32),
        *[
            (n, ctypes.c_bool)
            for n in ("round_to_power_of_two", "remove_dc_offset", "use_power", "use_log", "mean_normalise")
        ],
    )


class Tensors(ctypes.Structure):
    _fields_ = (
        ("batch", ctypes.c_int64),
        ("samples", ctypes.c_int64),
        ("input", ctypes.c_void_p),
        ("output", ctypes.c_void_p),
    )


@cache
def _library() -> ctypes.CDLL:
    lib, options = library(), ctypes.POINTER(Options)
    for name in ("plan_bytes", "scratch_bytes"):
        getattr(lib, f"voxpress_fbank_{name}").argtypes = [options]
        getattr(lib, f"voxpress_fbank_{name}").restype = ctypes.c_size_t
    lib.voxpress_fbank_frames.argtypes = [options, ctypes.c_int64]
    lib.voxpress_fbank_frames.restype = ctypes.c_int64
    lib.voxpress_fbank_plan.argtypes = [options, ctypes.c_void_p, ctypes.c_size_t]
    sized = [ctypes.c_void_p, ctypes.c_size_t]
    lib.voxpress_fbank_run.argtypes = [options, *sized, ctypes.POINTER(Tensors), *sized]
    lib.voxpress_fbank_kernel_name.restype = ctypes.c_char_p
    return lib


def _options(spec: FrontEndSpec, *, mean: bool = True, **changes: float) -> Options:
    values = {
        **{name: getattr(spec, name) for name, _ in Options._fields_ if hasattr(spec, name)},
        "high_hz": spec.high_edge_hz,
        "window": WINDOWS.index(spec.window),
        "mean_normalise": mean,
    }
    return Options(**{**values, **changes})


def _plan(options: Options) -> Bytes:
    plan = np.full(_library().voxpress_fbank_plan_bytes(options), 0xFF, np.uint8)
    assert _library().voxpress_fbank_plan(options, plan.ctypes.data, plan.nbytes) == OK
    return plan


def _run(samples: Floats, options: Options) -> Floats:
    """[N, samples] -> [N, frames, mel], every buffer ending at a page that must not be touched."""
    batch, length = samples.shape
    plan, frames = _plan(options), _library().voxpress_fbank_frames(options, length)
    scratch = np.full(_library().voxpress_fbank_scratch_bytes(options), 0xFF, np.uint8)
    output = np.full((batch, frames, options.num_mel_bins), np.nan, np.float32)
    with guarded(plan) as p, guarded(scratch) as s, guarded(samples) as x, guarded(output) as y:
        tensors = Tensors(batch, length, x.ctypes.data, y.ctypes.data)
        run = _library().voxpress_fbank_run
        assert run(options, p.ctypes.data, p.nbytes, tensors, s.ctypes.data, s.nbytes) == OK
        return y.copy()


@pytest.mark.parametrize("name", SPECS)
def test_equals_kaldi(name: str) -> None:
    spec = SPECS[name]
    samples = speech_like(1.0, spec.sample_rate_hz)
    found = _run(samples[None], _options(spec, mean=False))[0]
    np.testing.assert_allclose(found, fbank(samples, spec), rtol=0, atol=1e-3)
    np.testing.assert_allclose(_run(samples[None], _options(spec))[0], features(samples, spec), rtol=0, atol=1e-3)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="bits are those of the x86-64 package")
@pytest.mark.parametrize("name", [name for name in SPECS if not name.startswith("fft")])
def test_is_kaldi_bit_by_bit(name: str) -> None:
    spec = SPECS[name]
    # A quiet tail under a loud tone: bins 100 dB below their frame, where any other order of sums shows.
    samples = 0.9 * np.sin(np.arange(spec.sample_rate_hz) * 0.05) + 1e-5 * speech_like(1.0, spec.sample_rate_hz)
    for one in (speech_like(1.0, spec.sample_rate_hz), samples.astype(np.float32)):
        np.testing.assert_array_equal(_run(one[None], _options(spec, mean=False))[0], fbank(one, spec))
        np.testing.assert_array_equal(_run(one[None], _options(spec))[0], features(one, spec))


def test_without_logarithm() -> None:
    spec = FrontEndSpec(use_log=False)
    samples = speech_like(0.5)
    found = _run(samples[None], _options(spec, mean=False))[0]
    np.testing.assert_allclose(found, fbank(samples, spec), rtol=1e-3, atol=1e-3)


@settings(max_examples=30, deadline=None)
@given(length=st.integers(400, 40_000))
def test_any_length(length: int) -> None:
    spec = FrontEndSpec()
    samples = speech_like(2.5)[:length]
    found = _run(samples[None], _options(spec))[0]
    assert found.shape == (frames_of(length, spec), 80)
    np.testing.assert_allclose(found, features(samples, spec), rtol=0, atol=1e-3)


def test_utterances_of_a_batch_do_not_touch() -> None:
    samples = np.stack([speech_like(0.5), 0.1 * speech_like(0.5, seed=1), np.zeros(8000, np.float32)])
    together = _run(samples, _options(FrontEndSpec()))
    for one, row in zip(together, samples, strict=True):
        np.testing.assert_array_equal(one, _run(row[None], _options(FrontEndSpec()))[0])


def test_silence_is_the_floor_and_normalises_to_zero() -> None:
    silent = np.zeros((1, 8000), np.float32)
    spec = FrontEndSpec()
    np.testing.assert_allclose(_run(silent, _options(spec, mean=False)), np.log(np.finfo(np.float32).eps), rtol=1e-6)
    np.testing.assert_array_equal(_run(silent, _options(spec)), 0.0)


def test_full_scale_and_single_sample_pulses() -> None:
    spec = FrontEndSpec()
    loud = np.sign(np.sin(np.arange(8000) * 0.4)).astype(np.float32)
    pulse = np.zeros(8000, np.float32)
    pulse[4000] = 1.0
    for samples in (loud, pulse):
        found = _run(samples[None], _options(spec, mean=False))[0]
        np.testing.assert_allclose(found, fbank(samples, spec), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    "change",
    [
        {"sample_rate_hz": 0},
        {"sample_rate_hz": 1 << 30},
        {"window_samples": 1},
        {"window_samples": 401, "round_to_power_of_two": False},
        {"window_samples": -1},
        {"window_samples": (1 << 31) - 1},
        {"shift_samples": 0},
        {"shift_samples": -5},
        {"num_mel_bins": 0},
        {"num_mel_bins": 257},
        {"sample_scale": float("nan")},
        {"sample_scale": 0.0},
        {"sample_scale": float("inf")},
        {"preemphasis": -0.1},
        {"preemphasis": float("nan")},
        {"low_hz": -1.0},
        {"low_hz": 8000.0},
        {"high_hz": 8001.0},
        {"high_hz": float("nan")},
        {"window": 3},
        {"window": -1},
    ],
    ids=str,
)
def test_hostile_options_are_refused(change: dict[str, float]) -> None:
    options = _options(FrontEndSpec(), **change)
    room = np.zeros(100_000)
    assert _library().voxpress_fbank_plan_bytes(options) == 0
    assert _library().voxpress_fbank_scratch_bytes(options) == 0
    assert _library().voxpress_fbank_plan(options, room.ctypes.data, room.nbytes) == BAD_SHAPE
    tensors = Tensors(1, 400, room.ctypes.data, room.ctypes.data)
    run = _library().voxpress_fbank_run
    assert run(options, room.ctypes.data, room.nbytes, tensors, room.ctypes.data, room.nbytes) == BAD_SHAPE


def test_every_buffer_is_checked() -> None:
    options = _options(FrontEndSpec())
    plan, room = _plan(options), np.zeros(100_000)
    at = room.ctypes.data

    def status(
        tensors: Tensors,
        *,
        plan_at: int | None = plan.ctypes.data,
        plan_bytes: int = plan.nbytes,
        scratch: int = 800_000,
    ) -> int:
        return int(_library().voxpress_fbank_run(options, plan_at, plan_bytes, tensors, at, scratch))

    whole = Tensors(1, 400, at, at)
    assert status(whole) == OK
    assert status(whole, plan_at=None) == NULL_POINTER
    assert status(Tensors(1, 400, None, at)) == NULL_POINTER
    assert status(whole, scratch=8) == BAD_BUFFER_SIZE
    assert status(whole, plan_bytes=plan.nbytes - 8) == BAD_PACKED
    assert status(whole, plan_at=at) == BAD_PACKED
    assert status(Tensors(1, 399, at, at)) == BAD_SHAPE
    assert status(Tensors(0, 400, at, at)) == BAD_SHAPE
    assert status(Tensors(1 << 62, 400, at, at)) == BAD_SHAPE
    assert status(Tensors(1, 1 << 62, at, at)) == BAD_SHAPE
    other = _plan(_options(FrontEndSpec(window="povey")))
    assert status(whole, plan_at=other.ctypes.data, plan_bytes=other.nbytes) == BAD_PACKED
    assert _library().voxpress_fbank_plan(options, at, 100) == BAD_BUFFER_SIZE
    assert _library().voxpress_fbank_plan(options, None, 1 << 20) == NULL_POINTER
