from __future__ import annotations

import ctypes
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from exporters.long_audio import chunk_starts, chunks, embed_long
from exporters.manifest import LongAudio, ModelManifest, model_manifest
from pipeline.features.fbank import features, frames_of, samples_of
from pipeline.features.spec import FrontEndSpec
from tests.factories import speech_like, tiny_artifact
from tests.kernels.capi import BAD_SHAPE, NULL_POINTER, OK, library

SPEC = FrontEndSpec()
TEN_MINUTES = frames_of(600 * 16000, SPEC)


@cache
def _library() -> ctypes.CDLL:
    lib = library()
    for name in ("count", "start"):
        getattr(lib, f"voxpress_chunk_{name}").restype = ctypes.c_int64
    lib.voxpress_chunk_count.argtypes = [ctypes.c_int64] * 2
    lib.voxpress_chunk_start.argtypes = [ctypes.c_int64] * 3
    lib.voxpress_chunk_normalise.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64]
    lib.voxpress_chunk_add.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p]
    lib.voxpress_chunk_mean.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p]
    return lib


def _manifest(chunk_frames: int | None) -> ModelManifest:
    policy = None if chunk_frames is None else LongAudio(chunk_frames=chunk_frames)
    return model_manifest(tiny_artifact(), "voxpress", max_frames=998, long_audio=policy)


@given(frames=st.integers(1, TEN_MINUTES), chunk=st.integers(28, 2000))
def test_chunks_cover_everything_and_are_those_of_the_kernels(frames: int, chunk: int) -> None:
    starts = chunk_starts(frames, chunk)
    assert _library().voxpress_chunk_count(frames, chunk) == len(starts) == -(-frames // chunk)
    assert [_library().voxpress_chunk_start(frames, chunk, i) for i in range(len(starts))] == starts
    assert starts[0] == 0
    if len(starts) > 1:
        assert starts[-1] + chunk == frames
        assert all(0 < later - earlier <= chunk for earlier, later in pairwise(starts))


@pytest.mark.parametrize(
    ("frames", "chunk"), [(0, 10), (-1, 10), (10, -1), ((1 << 31) + 1, 10), (1 << 62, 1), (5, 1 << 40)]
)
def test_hostile_counts_give_no_chunks(frames: int, chunk: int) -> None:
    assert _library().voxpress_chunk_count(frames, chunk) == 0
    assert _library().voxpress_chunk_start(frames, chunk, 1) == 0


def test_no_chunks_wanted_is_one() -> None:
    assert _library().voxpress_chunk_count(TEN_MINUTES, 0) == 1
    assert _library().voxpress_chunk_start(1000, 100, 99) == 0


def test_chunks_of_samples_and_of_features_are_the_same() -> None:
    samples = speech_like(3.7)
    of_samples = [features(chunk, SPEC) for chunk in chunks(samples, 100, SPEC)]
    of_features = list(chunks(features(samples, SPEC), 100, SPEC))
    assert len(of_samples) == len(of_features) == 4
    for one, other in zip(of_samples, of_features, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-5)


@pytest.mark.parametrize("frames", [28, 99, 100])
def test_what_fits_is_embedded_as_it_is(frames: int) -> None:
    utterance = features(speech_like(1.2), SPEC)[:frames]
    (only,) = chunks(utterance, 100, SPEC)
    assert only is utterance
    samples = speech_like(samples_of(frames, SPEC) / 16000)
    (same,) = chunks(samples, 100, SPEC)
    assert same is samples
    np.testing.assert_array_equal(embed_long(lambda x: x[0], utterance, _manifest(100)), utterance[0])


def test_the_mean_of_directions_and_the_same_in_the_kernels() -> None:
    rng = np.random.default_rng(0)
    found = rng.normal(0, 5, (4, 16)).astype(np.float32)
    found[1] *= 100
    given_out = iter(found)
    utterance = np.zeros((350, 80), np.float32)
    mean = embed_long(lambda _: next(given_out), utterance, _manifest(100))
    expected = (found / np.linalg.norm(found, axis=1, keepdims=True)).mean(axis=0)
    np.testing.assert_allclose(mean, expected, rtol=1e-6, atol=1e-7)

    total, out = np.zeros(16), np.zeros(16, np.float32)
    for one in found:
        assert _library().voxpress_chunk_add(one.ctypes.data, 16, total.ctypes.data) == OK
    assert _library().voxpress_chunk_mean(total.ctypes.data, 16, 4, out.ctypes.data) == OK
    np.testing.assert_allclose(out, mean, rtol=1e-6, atol=1e-7)


def test_an_embedding_of_length_zero_adds_nothing() -> None:
    zeros = np.zeros((350, 80), np.float32)
    np.testing.assert_array_equal(embed_long(lambda _: np.zeros(3, np.float32), zeros, _manifest(100)), np.zeros(3))
    total = np.ones(3)
    assert _library().voxpress_chunk_add(np.zeros(3, np.float32).ctypes.data, 3, total.ctypes.data) == OK
    np.testing.assert_array_equal(total, np.ones(3))


def test_without_a_policy_an_utterance_is_embedded_whole() -> None:
    utterance = np.zeros((350, 80), np.float32)
    assert embed_long(lambda x: np.array([len(x)], np.float32), utterance, _manifest(None)) == [350]
    assert embed_long(lambda x: np.array([len(x)], np.float32), utterance, None) == [350]


def test_the_kernels_check_their_buffers() -> None:
    lib, room = _library(), np.zeros(8)
    at = room.ctypes.data
    assert lib.voxpress_chunk_normalise(None, 2, 3) == NULL_POINTER
    assert lib.voxpress_chunk_normalise(at, 0, 3) == BAD_SHAPE
    assert lib.voxpress_chunk_normalise(at, 1 << 40, 1 << 40) == BAD_SHAPE
    assert lib.voxpress_chunk_add(at, 0, at) == BAD_SHAPE
    assert lib.voxpress_chunk_add(None, 3, at) == NULL_POINTER
    assert lib.voxpress_chunk_mean(at, 3, 0, at) == BAD_SHAPE
    assert lib.voxpress_chunk_mean(at, 3, 1, None) == NULL_POINTER


def test_ten_minutes_keep_one_chunk_at_a_time() -> None:
    utterance = np.zeros(600 * 16000, np.float32)
    sizes: list[int] = []
    embed_long(lambda x: sizes.append(len(x)) or np.ones(2, np.float32), utterance, _manifest(998))  # type: ignore[func-returns-value]
    assert len(sizes) == -(-TEN_MINUTES // 998)
    assert set(sizes) == {samples_of(998, SPEC)}
