from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.features.fbank import (
    fbank,
    features,
    frames_of,
    max_frames,
    mean_normalise,
    min_frames,
    samples_of,
)
from pipeline.features.spec import FrontEndSpec
from tests.pipeline.features.kaldi_reference import reference_fbank

SPEC = FrontEndSpec()


def _signal(samples: int, seed: int = 0) -> np.ndarray:
    """A falling tone in noise, with an offset: every step of the front end shows in it."""
    time = np.arange(samples) / 16000
    noise = np.random.default_rng(seed).normal(0, 0.02, samples)
    return (0.05 + 0.3 * np.sin(2 * np.pi * (900 * time - 150 * time**2)) + noise).astype(np.float32)


@pytest.mark.parametrize(
    "spec",
    [
        SPEC,
        FrontEndSpec(window="povey", num_mel_bins=40),
        FrontEndSpec(window="hanning", preemphasis=0.0),
        FrontEndSpec(sample_rate_hz=8000, high_hz=-400, num_mel_bins=23, frame_shift_ms=12.5),
        FrontEndSpec(use_power=False, remove_dc_offset=False, num_mel_bins=40),
        FrontEndSpec(sample_scale=1.0),
        FrontEndSpec(round_to_power_of_two=False, num_mel_bins=40),
    ],
    ids=["default", "povey", "hanning", "8kHz", "magnitude", "unscaled", "fft400"],
)
def test_agrees_with_the_definition(spec: FrontEndSpec) -> None:
    samples = _signal(16123)
    found = fbank(samples, spec)
    expected = reference_fbank(samples, spec)
    assert found.dtype == np.float32
    assert found.shape == expected.shape == (frames_of(len(samples), spec), spec.num_mel_bins)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_without_logarithm() -> None:
    spec = FrontEndSpec(use_log=False)
    samples = _signal(4000)
    np.testing.assert_allclose(fbank(samples, spec), reference_fbank(samples, spec), rtol=1e-3)


def test_silence_is_the_floor() -> None:
    silent = fbank(np.zeros(8000, dtype=np.float32), SPEC)
    np.testing.assert_allclose(silent, np.log(np.finfo(np.float32).eps), rtol=1e-5)
    np.testing.assert_allclose(mean_normalise(silent), 0.0, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(offset=st.integers(0, 60), frames=st.integers(1, 38))
def test_fbank_of_a_crop_is_the_crop_of_the_fbank(offset: int, frames: int) -> None:
    samples = _signal(16000)
    first = offset * 160
    crop = fbank(samples[first : first + samples_of(frames, SPEC)], SPEC)
    np.testing.assert_array_equal(crop, fbank(samples, SPEC)[offset : offset + frames])


def test_same_samples_same_features() -> None:
    np.testing.assert_array_equal(fbank(_signal(8000), SPEC), fbank(_signal(8000), SPEC))


def test_level_drops_out_with_the_mean() -> None:
    samples = _signal(16000)
    np.testing.assert_allclose(features(samples, SPEC), features(samples * 0.25, SPEC), atol=1e-3)
    np.testing.assert_allclose(features(samples, SPEC).mean(axis=0), 0.0, atol=1e-5)


def test_the_mean_is_exact_over_many_frames() -> None:
    long = np.full((200_000, 2), 15.3, dtype=np.float32)
    long[0] += 1.0
    assert abs(float(mean_normalise(long)[1:].max()) + 1 / 200_000) < 1e-6


@given(st.integers(0, 5000))
def test_frames_and_samples(samples: int) -> None:
    frames = frames_of(samples, SPEC)
    if frames:
        assert samples_of(frames, SPEC) <= samples < samples_of(frames + 1, SPEC)
    else:
        assert samples < 400


def test_frame_counts() -> None:
    assert [frames_of(n, SPEC) for n in (0, 399, 400, 559, 560, 32240)] == [0, 0, 1, 1, 2, 200]
    assert min_frames(SPEC) == frames_of(4800, SPEC) == 28
    assert max_frames(10.0, SPEC) == 998


@pytest.mark.parametrize("shape", [(399,), (0,), (1, 16000)])
def test_not_a_row_of_enough_samples(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="one row of at least 400"):
        fbank(np.zeros(shape, dtype=np.float32), SPEC)
