"""VoxCeleb as it is downloaded -> manifests, with the published counts checked and AAC converted.

Trees are recognised by their speakers' names, wherever they lie below the folder: `<id>/<video>/<utterance>.wav`
(VoxCeleb1), `.m4a` (VoxCeleb2) or `.flac`. Zip archives are unpacked first. All steps go on where they were stopped.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict

from pipeline.corpus.read import audio_ids, read_cuts, read_utterances, write_cuts
from pipeline.corpus.shar import shard_count, write_shards
from pipeline.errors import InputError, MissingToolError, VoxPressError
from pipeline.files import PARTIAL_MARK, read_json, write_atomically
from pipeline.progress import Progress

AAC_SUFFIX = ".m4a"
SHAR_FOLDER = "shar"
SAMPLE_RATE_HZ = 16000
MIN_SECONDS = 0.3

_SUFFIXES = (".wav", ".flac", AAC_SUFFIX)
_LAYOUT = "VoxCeleb archives or trees (<speaker id>/<video>/<utterance>.wav or .m4a)"
_UTTERANCE = re.compile(r"(?:(?P<root>.*)/)?(?P<speaker>id\d{5})/[^/]+/[^/]+")
_TEST = re.compile(r"(?<![a-z])test(?![a-z])")

# The 40 test speakers of VoxCeleb1 (those whose names begin with E) are numbered one after the other. VoxCeleb2's
# numbers end below VoxCeleb1's.
_VOX1_FIRST, _VOX1_TEST = 10001, range(10270, 10310)


@dataclass(frozen=True)
class Part:
    """One published part of VoxCeleb and its counts."""

    name: str
    speakers: int
    utterances: int


PARTS = {
    part.name: part
    for part in (
        Part("vox1_dev", 1211, 148642),
        Part("vox1_test", 40, 4874),
        Part("vox2_dev", 5994, 1092009),
        Part("vox2_test", 118, 36237),
    )
}


class PreparedPart(BaseModel):
    """What was found of a part; `source_sha256` is over the names and sizes of the files it was made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    part: str
    manifest: str
    speakers: int
    utterances: int
    whole: bool  # whether the counts are the published ones
    source_sha256: str


@dataclass(frozen=True)
class _Found:
    """Files of one part: id (path from the speaker on) -> file."""

    part: Part
    files: Mapping[str, Path]

    @property
    def speakers(self) -> int:
        return len({name.split("/")[0] for name in self.files})

    @property
    def whole(self) -> bool:
        return (self.speakers, len(self.files)) == (self.part.speakers, self.part.utterances)


def prepare_voxceleb(
    source: Path, out: Path, *, allow_partial: bool, jobs: int, progress: Progress, shar: bool = False
) -> list[PreparedPart]:
    """Write `<part>.jsonl.gz` and `<part>.json` into `out` for each part of VoxCeleb below `source`.

    Archives are unpacked to `out/unpacked`, AAC files converted to 16 kHz mono FLAC in `out/audio`, by `jobs` ffmpegs
    at a time. With `shar` each part is also written as shards, in `out/shar/<part>`. What an earlier run finished is
    not done again.

    Raises InputError if nothing of VoxCeleb is there, if the counts of a part are not the published ones (unless
    `allow_partial`), if an utterance is there twice, or for a file that is damaged; MissingToolError if there are AAC
    files and no ffmpeg.
    """
    if not source.is_dir():
        raise InputError(source, expected=_LAYOUT, found="no such folder")
    source, out = source.resolve(), out.resolve()
    roots = [source, *_unpack(source, out / "unpacked", progress)]
    found = _find(source, roots, out)
    for one in found:
        if not one.whole and not allow_partial:
            raise InputError(
                source,
                expected=f"{one.part.speakers} speakers and {one.part.utterances} utterances of {one.part.name}, "
                "as published (or --allow-partial)",
                found=f"{one.speakers} and {len(one.files)}",
            )
    prepared = [_prepare(part, out, jobs, progress) for part in found]
    for part in prepared if shar else ():
        cuts = read_cuts(out / part.manifest)
        with progress.task(f"shards of {part.part}", shard_count(len(cuts))) as task:
            write_shards(cuts, out / SHAR_FOLDER / part.part, progress=lambda done, total: task.advance())
    return prepared


def _unpack(source: Path, target: Path, progress: Progress) -> list[Path]:
    """Folders with the content of the archives in `source`; members that are there already are not unpacked again."""
    pieces = sorted(path.name for path in source.iterdir() if re.fullmatch(r".+_part[a-z]{2}", path.name))
    archives = sorted(source.glob("*.zip"))
    for piece in pieces:
        whole = piece.rsplit("_part", 1)[0]
        if not any(path.name == f"{whole}.zip" for path in archives):
            raise InputError(
                source / piece, expected=f"its whole archive (cat {whole}_part* > {whole}.zip)", found="a piece of one"
            )
    folders = []
    for archive in archives:
        folder = target / archive.stem
        folders.append(folder)
        try:
            with zipfile.ZipFile(archive) as packed:
                members = [member for member in packed.infolist() if _UTTERANCE.search(member.filename)]
                with progress.task(f"unpack {archive.name}", len(members)) as task:
                    for member in members:
                        _unpack_member(packed, member, folder)
                        task.advance()
        except (zipfile.BadZipFile, EOFError) as error:
            raise InputError(archive, expected="a whole zip archive", found=str(error)) from error
    return folders


def _unpack_member(packed: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    relative = PurePosixPath(member.filename)
    if member.is_dir() or relative.suffix.lower() not in _SUFFIXES:
        return
    if relative.is_absolute() or ".." in relative.parts:
        raise InputError(packed.filename or "archive", expected="names below a folder", found=member.filename)
    path = folder / relative
    if path.is_file() and path.stat().st_size == member.file_size:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}{PARTIAL_MARK}")
    with packed.open(member) as stream, beside.open("wb") as unpacked:
        shutil.copyfileobj(stream, unpacked)
    os.replace(beside, path)


def _find(source: Path, roots: Iterable[Path], out: Path) -> list[_Found]:
    files: dict[str, dict[str, Path]] = {}
    for root in roots:
        for relative in audio_ids(root, _SUFFIXES):
            match = _UTTERANCE.fullmatch(relative)
            # Results may lie below the downloads; they are none.
            if match is None or (root == source and (root / relative).is_relative_to(out)):
                continue
            name = relative[match.start("speaker") :]
            # An archive's name says what is in it, as the folders' names do in a tree.
            part = _part_of(match["speaker"], f"{root.name}/{match['root'] or ''}")
            known = files.setdefault(part, {})
            if name in known:
                raise InputError(root / relative, expected="every utterance once", found=f"it again at {known[name]}")
            known[name] = root / relative
    if not files:
        raise InputError(source, expected=_LAYOUT, found="neither")
    found = []
    for name in PARTS:
        if name in files:
            stems = [PurePosixPath(utterance).with_suffix("") for utterance in files[name]]
            if len(set(stems)) != len(stems):
                raise InputError(source, expected=f"every utterance of {name} once", found="some as WAV and as AAC")
            found.append(_Found(PARTS[name], dict(sorted(files[name].items()))))
    return found


def _part_of(speaker: str, folder: str) -> str:
    number = int(speaker.removeprefix("id"))
    if number >= _VOX1_FIRST:
        return "vox1_test" if number in _VOX1_TEST else "vox1_dev"
    return "vox2_test" if _TEST.search(folder.lower()) else "vox2_dev"


def _prepare(found: _Found, out: Path, jobs: int, progress: Progress) -> PreparedPart:
    name = found.part.name
    prepared = PreparedPart(
        part=name,
        manifest=f"{name}.jsonl.gz",
        speakers=found.speakers,
        utterances=len(found.files),
        whole=found.whole,
        source_sha256=_fingerprint(found.files),
    )
    record, manifest = out / f"{name}.json", out / prepared.manifest
    if record.is_file() and manifest.is_file():
        try:
            if read_json(record, PreparedPart, what="a prepared part of VoxCeleb") == prepared:
                return prepared
        except InputError:
            pass  # of another version or damaged: made again
    places = _converted(found, out / "audio" / name, jobs, progress)
    with progress.task(f"headers of {name}", len(places)) as task:
        cuts = read_utterances(
            out,
            list(places),
            sample_rate_hz=SAMPLE_RATE_HZ,
            min_seconds=MIN_SECONDS,
            progress=lambda done, total: task.advance(),
            places=places,
        )
    write_cuts(cuts, manifest)
    write_atomically(record, prepared.model_dump_json(indent=1) + "\n")
    return prepared


def _fingerprint(files: Mapping[str, Path]) -> str:
    digest = hashlib.sha256()
    for name, path in files.items():
        digest.update(f"{name} {path} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def _converted(found: _Found, folder: Path, jobs: int, progress: Progress) -> dict[str, Path]:
    """Id -> file that can be read: the file itself, or the FLAC that its AAC was converted to."""
    places: dict[str, Path] = {}
    waiting: list[tuple[Path, Path]] = []
    for name, path in found.files.items():
        if path.suffix.lower() != AAC_SUFFIX:
            places[name] = path
            continue
        name = str(PurePosixPath(name).with_suffix(".flac"))
        places[name] = folder / name
        if not places[name].is_file():
            waiting.append((path, places[name]))
    if not waiting:
        return places
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise MissingToolError(
            f"{waiting[0][0]}: {len(waiting)} AAC files of {found.part.name} need ffmpeg, which is not installed "
            "(Debian, Ubuntu: apt-get install ffmpeg)"
        )
    total = sum(path.suffix.lower() == AAC_SUFFIX for path in found.files.values())
    with (
        progress.task(f"convert {found.part.name}", total, done=total - len(waiting)) as task,
        ThreadPoolExecutor(jobs) as pool,
    ):
        try:
            for _ in pool.map(lambda pair: _convert(ffmpeg, *pair), waiting):
                task.advance()
        except BaseException:
            pool.shutdown(cancel_futures=True)  # the first damaged file ends it, not a million others later
            raise
    return places


def _convert(ffmpeg: str, path: Path, target: Path) -> None:
    """AAC -> FLAC, 16 kHz, mono, 16 bit. Raises InputError naming a file that ffmpeg cannot read to its end."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}{PARTIAL_MARK}")
    form = ["-vn", "-ac", "1", "-ar", str(SAMPLE_RATE_HZ), "-sample_fmt", "s16", "-f", "flac"]
    command = [ffmpeg, "-nostdin", "-v", "error", "-xerror", "-y", "-i", str(path), *form, str(beside)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode != 0:
        beside.unlink(missing_ok=True)
        words = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise InputError(path, expected="an AAC file that ffmpeg can read", found=words[-1])
    try:
        os.replace(beside, target)
    except OSError as error:
        raise VoxPressError(f"{target}: could not be written: {error.strerror or error}") from error
