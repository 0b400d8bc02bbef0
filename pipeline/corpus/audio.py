"""Audio files in, samples out; whatever is wrong with a file is said in one line."""

from __future__ import annotations

import io
import re
import struct
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile
from numpy.typing import NDArray

from pipeline.errors import InputError

AUDIO_SUFFIXES = (".flac", ".wav")

_TAR_MEMBER = re.compile(r"(?P<archive>.+\.tar)#(?P<offset>\d+)\+(?P<size>\d+)")

# What a writer that cannot seek back (a pipe) leaves in a RIFF size field: the data run to the end of the file.
_STREAMED_SIZES = (0, 0xFFFFFFFF)


@dataclass(frozen=True)
class AudioHeader:
    """What an audio file's header says."""

    sample_rate_hz: int
    channels: int
    samples: int

    @property
    def seconds(self) -> float:
        """Length in seconds."""
        return self.samples / self.sample_rate_hz


def read_header(path: str | PathLike[str], sample_rate_hz: int, min_seconds: float) -> AudioHeader:
    """Header of a mono audio file, checked: sample rate, channels, length, and for WAV that no data are missing.

    The samples are not read, so a FLAC file cut short or holding damaged frames passes here and fails in
    `read_utterance`. Raises InputError if the file is missing, not audio, empty, truncated, not mono, shorter than
    `min_seconds`, or has another sample rate.
    """
    path = Path(path)
    with _opened(path) as sound:
        header = AudioHeader(sound.samplerate, sound.channels, sound.frames)
        container = sound.format
    _check_header(path, header, sample_rate_hz, min_seconds)
    if container in ("WAV", "WAVEX"):
        _check_wav_is_whole(path)
    return header


def read_utterance(
    path: str | PathLike[str],
    sample_rate_hz: int,
    min_seconds: float,
    *,
    start: int = 0,
    frames: int | None = None,
) -> NDArray[np.float32]:
    """Samples of a mono audio file: float32 [samples] in [-1, 1].

    Integer formats of b bits are divided by 2^(b-1), so they lie in [-1, 1). `start` and `frames` select samples
    [start, start + frames) without decoding the rest (of an uncompressed file) or keeping it (of a compressed one);
    without `frames`, all samples from `start` on.

    Raises InputError naming the file, what was expected and what was found, if the file is missing, not audio, empty,
    not mono, of another sample rate, shorter than `min_seconds` (the whole file counts, not the crop), truncated or
    damaged, holds NaN, infinite or out-of-range samples, or does not reach to the end of the crop.
    """
    path = Path(path)
    with _opened(path) as sound:
        header = AudioHeader(sound.samplerate, sound.channels, sound.frames)
        _check_header(path, header, sample_rate_hz, min_seconds)
        wanted = header.samples - start if frames is None else frames
        if start < 0 or wanted < 1 or start + wanted > header.samples:
            raise InputError(
                path, expected=f"samples {start} to {start + wanted}", found=f"a file of {header.samples} samples"
            )
        try:
            sound.seek(start)
            samples: NDArray[np.float32] = sound.read(wanted, dtype="float32")
        except soundfile.SoundFileError as error:
            raise InputError(
                path, expected=f"{header.samples} samples", found=f"a truncated or damaged file ({_reason(error)})"
            ) from error
        container = sound.format
    if container in ("WAV", "WAVEX"):
        _check_wav_is_whole(path)
    if samples.shape != (wanted,):
        raise InputError(path, expected=f"{header.samples} samples", found=f"{start + len(samples)} (a truncated file)")
    # One NaN or infinity makes the peak NaN or infinite: one pass over the samples finds all three faults.
    peak = float(np.abs(samples).max())
    if not np.isfinite(peak):
        first = int(np.flatnonzero(~np.isfinite(samples))[0])
        raise InputError(path, expected="finite samples", found=f"{samples[first]} at sample {start + first}")
    if peak > 1.0:
        raise InputError(path, expected="samples within [-1, 1]", found=f"a peak of {peak:.6g}")
    return samples


def tar_member(archive: Path, offset: int, size: int) -> str:
    """The name under which `read_utterance` finds the `size` bytes from `offset` on in an uncompressed archive."""
    return f"{archive.resolve()}#{offset}+{size}"


def _opened(path: Path) -> soundfile.SoundFile:
    """An open audio file. Raises InputError if it is missing, a folder, empty, unreadable or not audio."""
    member = _TAR_MEMBER.fullmatch(str(path))
    if member is not None:
        return _opened_member(path, Path(member["archive"]), int(member["offset"]), int(member["size"]))
    if not path.exists():
        raise InputError(path, expected="an audio file", found="no such file")
    if not path.is_file():
        raise InputError(path, expected="an audio file", found="a folder")
    if path.stat().st_size == 0:
        raise InputError(path, expected="an audio file", found="an empty file (0 bytes)")
    try:
        return soundfile.SoundFile(path)
    except soundfile.SoundFileError as error:
        raise InputError(path, expected="an audio file (WAV or FLAC)", found=_reason(error)) from error


def _opened_member(path: Path, archive: Path, offset: int, size: int) -> soundfile.SoundFile:
    try:
        with archive.open("rb") as stream:
            stream.seek(offset)
            data = stream.read(size)
        return soundfile.SoundFile(io.BytesIO(data))
    except FileNotFoundError:
        raise InputError(archive, expected="an archive of audio files", found="no such file") from None
    except soundfile.SoundFileError as error:
        raise InputError(path, expected="an audio file (FLAC) in an archive", found=_reason(error)) from error


def _check_header(path: Path, header: AudioHeader, sample_rate_hz: int, min_seconds: float) -> None:
    if header.channels != 1:
        raise InputError(path, expected="1 channel (mono)", found=f"{header.channels} channels")
    if header.sample_rate_hz != sample_rate_hz:
        raise InputError(path, expected=f"a sample rate of {sample_rate_hz} Hz", found=f"{header.sample_rate_hz} Hz")
    if header.samples == 0:
        raise InputError(path, expected=f"at least {min_seconds:g} s of audio", found="no samples")
    if header.samples < round(min_seconds * sample_rate_hz):
        raise InputError(path, expected=f"at least {min_seconds:g} s of audio", found=f"{header.seconds:.4g} s")


def _check_wav_is_whole(path: Path) -> None:
    """Raises InputError if a WAV file ends before its data do; the decoder alone would quietly return what is left."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        data = _data_chunk(stream)
    if data is None:
        raise InputError(path, expected="a WAV file with a data chunk", found="no data chunk")
    offset, length = data
    if length not in _STREAMED_SIZES and offset + length > size:
        raise InputError(path, expected=f"{length} bytes of samples", found=f"{size - offset} (a truncated file)")


def _data_chunk(stream: BinaryIO) -> tuple[int, int] | None:
    """Offset and declared length in bytes of a RIFF file's data chunk; None if there is none."""
    order = ">" if stream.read(4) == b"RIFX" else "<"
    offset = 12
    while True:
        stream.seek(offset)
        head = stream.read(8)
        if len(head) < 8:
            return None
        (length,) = struct.unpack(f"{order}I", head[4:])
        if head[:4] == b"data":
            return offset + 8, length
        offset += 8 + length + length % 2  # chunks are padded to an even number of bytes


def _reason(error: soundfile.SoundFileError) -> str:
    """The decoder's own words without the file name it repeats."""
    text = str(getattr(error, "error_string", "") or error)
    return text.removeprefix("Error : ").rstrip(". ")
