"""Corpora as lhotse Shar shards: few large files instead of millions of small ones, each utterance within reach.

A shard is `cuts.<number>.jsonl.gz` beside `recording.<number>.tar` with FLAC inside, as lhotse writes and streams them.
Training takes utterances in any order, so they are read here by their place in the archive.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

from lhotse import CutSet, MonoCut
from lhotse.audio import AudioSource
from lhotse.shar import SharWriter

from pipeline.corpus.audio import tar_member
from pipeline.corpus.read import Progress, read_cuts
from pipeline.errors import InputError, VoxPressError
from pipeline.files import PARTIAL_MARK

_SHARD_UTTERANCES = 1000


def write_shards(
    cuts: CutSet, folder: Path, *, progress: Progress | None = None, shard_utterances: int = _SHARD_UTTERANCES
) -> int:
    """Write cuts of whole recordings as shards and return how many; those an earlier run finished are kept.

    Raises VoxPressError if the folder cannot be written or an utterance cannot be read, InputError if it holds shards
    of other utterances.
    """
    every = list(cuts)
    numbers = range(shard_count(len(every), shard_utterances))
    for path in folder.glob("cuts.*.jsonl.gz"):
        if path not in {_cuts_file(folder, number) for number in numbers}:
            raise InputError(path, expected=f"a folder for {len(numbers)} shards", found="a shard of another corpus")
    for number in numbers:
        piece = every[number * shard_utterances : (number + 1) * shard_utterances]
        if not _cuts_file(folder, number).is_file():
            _write_shard(piece, folder, number)
        elif [cut.id for cut in read_cuts(_cuts_file(folder, number))] != [cut.id for cut in piece]:
            raise InputError(
                _cuts_file(folder, number), expected=f"utterances from {piece[0].id} on", found="others; delete it"
            )
        if progress is not None:
            progress(number + 1, len(numbers))
    return len(numbers)


def shard_count(utterances: int, shard_utterances: int = _SHARD_UTTERANCES) -> int:
    """Shards that so many utterances make."""
    return -(-utterances // shard_utterances)


def is_shards(folder: Path) -> bool:
    """Whether a folder holds shards."""
    return _cuts_file(folder, 0).is_file()


def read_shards(folder: Path) -> CutSet:
    """Cuts of all shards of a folder, their audio at its place in the archives.

    Raises InputError naming the file for a shard that is damaged, incomplete or missing between others.
    """
    files = sorted(folder.glob("cuts.*.jsonl.gz"))
    cuts: list[MonoCut] = []
    for number, file in enumerate(files):
        if file != _cuts_file(folder, number):
            raise InputError(_cuts_file(folder, number), expected=f"{len(files)} shards in a row", found="no such file")
        places = _members(_tar_file(folder, number))
        for cut in read_cuts(file):
            if cut.id not in places:
                raise InputError(_tar_file(folder, number), expected=f"audio of {cut.id}", found="none")
            source = AudioSource(type="file", channels=[0], source=places[cut.id])
            cut.recording.sources = [source]
            cuts.append(cut)
    return CutSet.from_cuts(cuts)


def _write_shard(cuts: Sequence[MonoCut], folder: Path, number: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PARTIAL_MARK, dir=folder) as name:
        partial = Path(name)
        try:
            with SharWriter(name, {"recording": "flac"}, shard_size=len(cuts), shard_offset=number) as writer:
                for cut in cuts:
                    writer.write(cut)
            # The list of cuts comes last and says that the shard is whole.
            for file in (_tar_file, _cuts_file):
                os.replace(file(partial, number), file(folder, number))
        except Exception as error:  # lhotse's readers and writers have no common error
            raise VoxPressError(f"{_tar_file(folder, number)}: could not be written: {error}") from error


def _members(path: Path) -> dict[str, str]:
    """Cut id -> place of its audio."""
    try:
        with tarfile.open(path, "r:") as archive:
            return {
                member.name.removesuffix(".flac"): tar_member(path, member.offset_data, member.size)
                for member in archive
                if member.name.endswith(".flac")
            }
    except FileNotFoundError:
        raise InputError(path, expected="an archive of recordings", found="no such file") from None
    except (tarfile.TarError, OSError) as error:
        raise InputError(path, expected="an archive of recordings", found=str(error)) from error


def _cuts_file(folder: Path, number: int) -> Path:
    return folder / f"cuts.{number:06d}.jsonl.gz"


def _tar_file(folder: Path, number: int) -> Path:
    return folder / f"recording.{number:06d}.tar"
