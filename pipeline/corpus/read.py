"""Corpora on disk as lhotse manifests: one cut per utterance, its speaker in the supervision."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path
from typing import Any

from lhotse import CutSet, MonoCut, Recording, SupervisionSegment
from lhotse.audio import AudioSource

from pipeline.corpus.audio import AUDIO_SUFFIXES, AudioHeader, read_header
from pipeline.errors import InputError
from pipeline.files import write_atomically

# Called with how many of how many items are done.
Progress = Callable[[int, int], None]

_LAYOUT = "<speaker>/**/<utterance>.wav or .flac"
_HEADER_THREADS = 8  # opening files waits for the disk or the network, not for the processor


def read_corpus(
    folder: str | PathLike[str],
    *,
    sample_rate_hz: int = 16000,
    min_seconds: float = 0.3,
    progress: Progress | None = None,
) -> CutSet:
    """All utterances below a folder, sorted by id: one cut each, with the first folder's name as its speaker.

    The id of an utterance is its path relative to `folder` with forward slashes, as trial lists name it; this covers
    `<speaker>/<utterance>.flac` and VoxCeleb's `<speaker>/<video>/<utterance>.wav`. Names that begin with a dot are
    passed over. Every header is read and checked, no samples are.

    Raises InputError if the folder is missing, holds no audio, holds audio outside a speaker's folder, or holds a file
    that `read_header` refuses (the first such file in the order of ids is named).
    """
    root = Path(folder).resolve()
    if not root.is_dir():
        raise InputError(folder, expected=f"a corpus folder ({_LAYOUT})", found="no such folder")
    ids = audio_ids(root)
    if not ids:
        speakers = sum(1 for child in root.iterdir() if child.is_dir() and not child.name.startswith("."))
        raise InputError(folder, expected=_LAYOUT, found=f"{speakers} folders and no audio file in them")
    for utterance in ids:
        if "/" not in utterance:
            raise InputError(root / utterance, expected=_LAYOUT, found="an audio file without a speaker's folder")

    return read_utterances(root, ids, sample_rate_hz=sample_rate_hz, min_seconds=min_seconds, progress=progress)


def read_utterances(
    folder: str | PathLike[str],
    ids: Sequence[str],
    *,
    sample_rate_hz: int = 16000,
    min_seconds: float = 0.3,
    progress: Progress | None = None,
    places: Mapping[str, Path] | None = None,
) -> CutSet:
    """The named utterances below a folder, one cut each in the order of `ids`, headers read and checked.

    `places` says where each utterance lies if that is not `folder / id`.

    Raises InputError naming the first file that `read_header` refuses.
    """
    root = Path(folder).resolve()

    def path_of(utterance: str) -> Path:
        return root / utterance if places is None else places[utterance].resolve()

    def header_of(utterance: str) -> AudioHeader:
        return read_header(path_of(utterance), sample_rate_hz, min_seconds)

    cuts = []
    with ThreadPoolExecutor(_HEADER_THREADS) as pool:
        try:
            for utterance, header in zip(ids, pool.map(header_of, ids), strict=True):
                cuts.append(_cut(path_of(utterance), utterance, header))
                if progress is not None:
                    progress(len(cuts), len(ids))
        except BaseException:
            pool.shutdown(cancel_futures=True)  # the first bad file ends it: do not open the rest of a large corpus
            raise
    return CutSet.from_cuts(cuts)


def audio_ids(root: Path, suffixes: Collection[str] = AUDIO_SUFFIXES) -> list[str]:
    """Relative paths of the audio files below a folder, sorted; hidden files and folders are passed over."""
    return sorted(
        relative.as_posix()
        for relative in (path.relative_to(root) for path in root.rglob("*") if path.suffix.lower() in suffixes)
        if not any(part.startswith(".") for part in relative.parts)
    )


def speaker_of(cut: MonoCut) -> str:
    """Name of the speaker of a cut. Raises InputError if the cut has no supervision or more than one speaker."""
    speakers = {supervision.speaker for supervision in cut.supervisions}
    if len(speakers) != 1 or None in speakers:
        raise InputError(cut.id, expected="one speaker", found=f"{len(speakers - {None})} speakers in the manifest")
    return str(speakers.pop())


def speakers_of(cuts: Iterable[MonoCut]) -> dict[str, str]:
    """Speaker of every cut, by cut id."""
    return {cut.id: speaker_of(cut) for cut in cuts}


def write_cuts(cuts: CutSet, path: str | PathLike[str]) -> None:
    """Write cuts as a lhotse manifest (`.jsonl.gz`).

    The same cuts give the same bytes: no time stamp is written, so that a stage can compare manifests by their hash.
    """
    lines = "".join(json.dumps(cut.to_dict(), ensure_ascii=False) + "\n" for cut in cuts)
    write_atomically(Path(path), gzip.compress(lines.encode(), mtime=0))


def read_cuts(path: str | PathLike[str]) -> CutSet:
    """Cuts of a lhotse manifest (`.jsonl.gz`).

    Raises InputError naming the file, and the line where there is one, if it is missing, damaged, empty or holds
    something else than cuts of single recordings.
    """
    path = Path(path)
    expected = "a lhotse cut manifest (.jsonl.gz)"
    try:
        with gzip.open(path, "rt", encoding="utf-8") as stream:
            lines = stream.readlines()
    except FileNotFoundError:
        raise InputError(path, expected=expected, found="no such file") from None
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise InputError(path, expected=expected, found=str(error)) from error
    cuts = []
    for number, line in enumerate(lines, start=1):
        try:
            record: Any = json.loads(line)
            if record.pop("type", None) != "MonoCut":
                raise InputError(f"{path}:{number}", expected="a MonoCut", found="something else")
            cuts.append(MonoCut.from_dict(record))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{path}:{number}", expected="a MonoCut", found=str(error)) from error
    if not cuts:
        raise InputError(path, expected=expected, found="no cuts")
    return CutSet.from_cuts(cuts)


def _cut(path: Path, utterance: str, header: AudioHeader) -> MonoCut:
    recording = Recording(
        id=utterance,
        sources=[AudioSource(type="file", channels=[0], source=str(path))],
        sampling_rate=header.sample_rate_hz,
        num_samples=header.samples,
        duration=header.seconds,
    )
    speaker = utterance.split("/", 1)[0]
    supervision = SupervisionSegment(
        id=utterance, recording_id=utterance, start=0.0, duration=header.seconds, channel=0, speaker=speaker
    )
    return MonoCut(
        id=utterance, start=0.0, duration=header.seconds, channel=0, supervisions=[supervision], recording=recording
    )
