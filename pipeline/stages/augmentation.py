"""Manifests of the noises and rooms that training crops are augmented with, and the settings of it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from pipeline.corpus.read import audio_ids, read_cuts, read_utterances, speaker_of, write_cuts
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.files import read_json, write_atomically
from pipeline.recipe import Recipe
from pipeline.stages.corpus import folder_fingerprint
from pipeline.stages.job import Job, JobContext
from pipeline.training.augment import SOUNDS, Augmentation
from pipeline.training.settings import AugmentationSettings

JOB = "augmentation"
SETTINGS_FILE = "augmentation.json"
SOUNDS_FILE = "sounds.jsonl.gz"
ROOMS_FILE = "rooms.jsonl.gz"

# Impulse responses can be short; a sound shorter than this would only click.
_MIN_SECONDS = {SOUNDS_FILE: 0.1, ROOMS_FILE: 0.005}


class _Settings(BaseModel):
    augmentation: AugmentationSettings
    sample_rate_hz: int


def jobs(recipe: Recipe) -> list[Job]:
    """One job, if the recipe augments. The settings are among its files: training that reads them depends on them."""
    settings = recipe.augmentation
    if settings is None:
        return []
    job_settings = _Settings(augmentation=settings, sample_rate_hz=recipe.frontend.sample_rate_hz)
    folders = {"musan": settings.musan, "rirs": settings.rirs}
    sources = {name: folder_fingerprint(Path(folder)) for name, folder in folders.items() if folder is not None}
    return [Job(JOB, "corpus", job_settings, (), lambda context: _run(context, settings), sources)]


def read_augmentation(folder: Path, spec: FrontEndSpec) -> Augmentation:
    """What the job left, ready to alter crops."""
    settings = read_json(folder / SETTINGS_FILE, AugmentationSettings, what="settings of an augmentation")
    sounds = list(read_cuts(folder / SOUNDS_FILE)) if settings.musan is not None else []
    rooms = list(read_cuts(folder / ROOMS_FILE)) if settings.rirs is not None else []
    by_kind = {kind: [cut for cut in sounds if speaker_of(cut) == kind] for kind in SOUNDS}
    return Augmentation(settings, by_kind, rooms, spec)


def _run(context: JobContext, settings: AugmentationSettings) -> None:
    if settings.musan is not None:
        folder = Path(settings.musan)
        if not any((folder / kind).is_dir() for kind in SOUNDS):
            expected = f"a folder of sounds as MUSAN has them ({'/, '.join(SOUNDS)}/)"
            raise InputError(folder, expected=expected, found="none of these" if folder.is_dir() else "no such folder")
        found = [name for name in audio_ids(folder) if name.split("/")[0] in SOUNDS]
        _write(context, folder, found, SOUNDS_FILE)
    if settings.rirs is not None:
        _write(context, Path(settings.rirs), audio_ids(Path(settings.rirs)), ROOMS_FILE)
    write_atomically(context.folder / SETTINGS_FILE, settings.model_dump_json(indent=1) + "\n")


def _write(context: JobContext, folder: Path, ids: list[str], file: str) -> None:
    if not ids:
        found = "none below it" if folder.is_dir() else "no such folder"
        raise InputError(folder, expected="a folder of WAV or FLAC files", found=found)
    with context.progress.task(folder.name, len(ids)) as task:
        cuts = read_utterances(
            folder,
            ids,
            sample_rate_hz=context.recipe.frontend.sample_rate_hz,
            min_seconds=_MIN_SECONDS[file],
            progress=lambda done, total: task.advance(),
        )
    write_cuts(cuts, context.folder / file)
