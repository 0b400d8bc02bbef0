from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from pipeline.corpus.audio import read_header, read_utterance
from pipeline.errors import InputError

RATE = 16000


def _noise(samples: int = RATE, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, samples).astype(np.float32)


def _refusal(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_utterance(path, RATE, 0.3)
    message = str(caught.value)
    assert message.startswith(f"{path}: expected ")
    assert ", found " in message
    assert "\n" not in message
    return caught.value


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_samples_are_the_integers_over_2_to_15(tmp_path: Path, suffix: str) -> None:
    integers = np.random.default_rng(1).integers(-32768, 32768, RATE).astype(np.int16)
    integers[:2] = [-32768, 32767]
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, integers, RATE, subtype="PCM_16")
    samples = read_utterance(path, RATE, 0.3)
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, integers.astype(np.float32) / 32768)
    assert read_header(path, RATE, 0.3).seconds == 1.0


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_a_crop_is_part_of_the_whole(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, _noise(), RATE, subtype="PCM_16")
    whole = read_utterance(path, RATE, 0.3)
    np.testing.assert_array_equal(read_utterance(path, RATE, 0.3, start=5000, frames=777), whole[5000:5777])
    np.testing.assert_array_equal(read_utterance(path, RATE, 0.3, start=15000), whole[15000:])


@pytest.mark.parametrize(("start", "frames"), [(-1, 10), (0, 0), (RATE, 1), (RATE - 5, 6)])
def test_a_crop_outside_the_file_is_refused(tmp_path: Path, start: int, frames: int) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, _noise(), RATE)
    with pytest.raises(InputError, match="16000 samples"):
        read_utterance(path, RATE, 0.3, start=start, frames=frames)


def test_missing_file(tmp_path: Path) -> None:
    assert "no such file" in _refusal(tmp_path / "none.wav").found


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    assert "folder" in _refusal(tmp_path).found


def test_not_audio(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_text("this is a text, not a wave")
    assert "not recognised" in _refusal(path).found


def test_empty_file(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"")
    assert "0 bytes" in _refusal(path).found


def test_no_samples(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(0, dtype=np.float32), RATE)
    assert _refusal(path).found == "no samples"


def test_other_sample_rate(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, _noise(), 8000)
    error = _refusal(path)
    assert "16000 Hz" in error.expected
    assert "8000 Hz" in error.found


def test_stereo(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, np.stack([_noise(), _noise()], axis=1), RATE)
    error = _refusal(path)
    assert "mono" in error.expected
    assert "2 channels" in error.found


@pytest.mark.parametrize(("value", "shown"), [(np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")])
def test_samples_that_are_not_finite(tmp_path: Path, value: float, shown: str) -> None:
    samples = _noise()
    samples[123] = value
    path = tmp_path / "a.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    assert _refusal(path).found == f"{shown} at sample 123"


def test_samples_out_of_range(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, _noise() * 32768, RATE, subtype="FLOAT")
    assert "peak" in _refusal(path).found


def test_too_short_names_both_durations(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, _noise(160), RATE)
    error = _refusal(path)
    assert "0.3 s" in error.expected
    assert error.found == "0.01 s"


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_truncated_file(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, _noise(4 * RATE), RATE, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "truncated" in _refusal(path).found


def test_truncation_of_a_wav_shows_in_its_header_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, _noise(4 * RATE), RATE, subtype="PCM_16")
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(InputError, match="truncated"):
        read_header(path, RATE, 0.3)


def test_a_wav_written_to_a_pipe_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, _noise(), RATE, subtype="PCM_16")
    raw = bytearray(path.read_bytes())
    at = raw.index(b"data")
    raw[at + 4 : at + 8] = b"\xff\xff\xff\xff"
    path.write_bytes(raw)
    assert len(read_utterance(path, RATE, 0.3)) == RATE


def test_chunks_before_the_data_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, _noise(), RATE, subtype="PCM_16")
    raw = path.read_bytes()
    at = raw.index(b"data")
    path.write_bytes(raw[:at] + b"LIST\x05\x00\x00\x00hello\x00" + raw[at:])
    assert len(read_utterance(path, RATE, 0.3)) == RATE
