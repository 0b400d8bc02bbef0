from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from calibration.activations import MAX_FRAMES, CalibrationFeatures, Histogram, measure_ranges
from calibration.ranges import RangeChoice
from pipeline.artifact.decode import decode
from pipeline.corpus.read import read_corpus
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from tests.factories import noise_ranges, noise_utterances, tiny_artifact
from tests.pipeline.corpus.corpora import write_corpus

MIN_MAX, MSE = RangeChoice(method="min-max"), RangeChoice(method="mse")


def histogram(*parts: np.ndarray) -> Histogram:
    made = Histogram()
    for part in parts:
        made.add(torch.from_numpy(part.astype(np.float32)))
    return made


def heavy_tailed(count: int = 200_000, seed: int = 0) -> np.ndarray:
    """Like activations: many small values and a few large ones."""
    return (np.random.default_rng(seed).standard_t(4, count)).astype(np.float32)


def squared_error(
    values: np.ndarray, choice: RangeChoice, low: float | None = None, high: float | None = None
) -> float:
    found = histogram(values).range(choice)
    scale, zero = found.scale, found.zero
    if low is not None and high is not None:
        scale = (high - low) / 255
        zero = round(-low / scale)
    rounded = scale * (np.clip(np.rint(values / scale) + zero, 0, 255) - zero)
    return float(np.mean((values.astype(np.float64) - rounded) ** 2))


def test_parts_count_as_the_whole_does_whatever_their_order() -> None:
    values = heavy_tailed()
    whole = histogram(values)
    small_first = histogram(*np.array_split(values[np.argsort(np.abs(values))], 7))
    np.testing.assert_array_equal(small_first.counts, whole.counts)
    assert (small_first.limit, small_first.minimum, small_first.maximum) == (whole.limit, whole.minimum, whole.maximum)
    assert whole.counts.sum() + whole.zeros == values.size


def test_zeros_are_counted_apart() -> None:
    made = histogram(np.array([0.0, 0.0, 0.5, -0.25]), np.zeros(10))
    assert made.zeros == 12
    assert made.counts.sum() == 2


def test_min_max_takes_in_all() -> None:
    found = histogram(np.array([-1.0, 0.0, 3.0])).range(MIN_MAX)
    assert (found.minimum, found.maximum) == (-1.0, 3.0)
    assert found.scale == pytest.approx(4 / 255)
    assert found.zero == 64


@pytest.mark.parametrize("percentile", [99.0, 99.9, 99.99])
def test_percentiles_are_those_of_the_values(percentile: float) -> None:
    values = np.maximum(heavy_tailed(), 0)
    found = histogram(values).range(RangeChoice(method="percentile", percentile=percentile))
    expected = float(np.percentile(values, percentile))
    assert 255 * found.scale == pytest.approx(expected, rel=0.02)
    assert found.zero == 0


def test_percentile_100_takes_in_all() -> None:
    values = heavy_tailed()
    every = histogram(values).range(RangeChoice(method="percentile", percentile=100))
    assert every.scale == pytest.approx(histogram(values).range(MIN_MAX).scale, rel=0.01)


def test_least_squared_error_is_less_than_that_of_other_ranges() -> None:
    values = heavy_tailed()
    best = squared_error(values, MSE)
    assert best < 0.8 * squared_error(values, MIN_MAX)
    for low, high in ((-5, 5), (-8, 8), (-12, 12), (-20, 20), (-10, 15)):
        assert best <= 1.02 * squared_error(values, MSE, low, high), (low, high)


@pytest.mark.parametrize("choice", [MIN_MAX, MSE, RangeChoice()])
@pytest.mark.parametrize("sign", [1, -1])
def test_one_sided_tensors(choice: RangeChoice, sign: int) -> None:
    found = histogram(sign * np.abs(heavy_tailed())).range(choice)
    assert found.zero == (0 if sign == 1 else 255)


@pytest.mark.parametrize("choice", [MIN_MAX, MSE, RangeChoice()])
def test_a_tensor_of_zeros(choice: RangeChoice) -> None:
    found = histogram(np.zeros(5)).range(choice)
    assert (found.scale, found.zero) == (1.0, 0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        histogram(np.array([1.0, bad]))


def test_every_tensor_of_the_program_has_its_range() -> None:
    artifact = tiny_artifact(4)
    ranges = noise_ranges(artifact)
    assert set(ranges.tensors) == {"features", *(node.name for node in artifact.header.program)}
    relu = {node.name for node in artifact.header.layers if node.relu}
    for name, found in ranges.tensors.items():
        assert (found.zero == 0) == (name in relu or (name == "pool" and found.minimum >= 0)), name
    values: dict[str, list[float]] = {}
    for features in noise_utterances().values():
        for name, value in decode(artifact).values(torch.from_numpy(features)[None]).items():
            values.setdefault(name, []).append(float(value.max()))
    assert {name: found.maximum for name, found in ranges.tensors.items()} == {
        name: max(found) for name, found in values.items()
    }
    assert (ranges.utterances, ranges.frames) == (6, sum(map(len, noise_utterances().values())))
    assert ranges.artifact_sha256 == artifact.sha256


def test_long_utterances_are_cut() -> None:
    artifact = tiny_artifact(4)
    noise = noise_utterances(4, MAX_FRAMES + 50)
    cut = {name: features[:MAX_FRAMES] for name, features in noise.items()}
    assert measure_ranges(artifact, noise.items(), MIN_MAX) == measure_ranges(artifact, cut.items(), MIN_MAX)


def test_features_that_are_not_finite_are_refused_by_name() -> None:
    utterances = noise_utterances()
    utterances["u3"][17, 5] = np.nan
    with pytest.raises(InputError, match="of u3: expected finite values, found NaN or infinity in features"):
        measure_ranges(tiny_artifact(4), utterances.items(), MIN_MAX)


def test_too_few_utterances_are_refused() -> None:
    with pytest.raises(InputError, match="at least 4 calibration utterances, found 3"):
        measure_ranges(tiny_artifact(4), noise_utterances(3).items(), MIN_MAX)


def test_calibration_utterances_are_spread_and_cut(tmp_path: Path) -> None:
    write_corpus(tmp_path, [f"s{k}/u.wav" for k in range(10)], seconds=0.5)
    write_corpus(tmp_path, ["s5/u.wav"], seconds=11)
    cuts = list(read_corpus(tmp_path))
    found = CalibrationFeatures(cuts, FrontEndSpec(), 4)
    assert list(found) == ["s0/u.wav", "s2/u.wav", "s5/u.wav", "s7/u.wav"]
    assert [len(features) for features in found.values()] == [48, 48, MAX_FRAMES, 48]
    assert abs(found["s5/u.wav"].mean(axis=0)).max() < 1e-4
    assert len(CalibrationFeatures(cuts, FrontEndSpec(), 50)) == 10
