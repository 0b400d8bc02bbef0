"""Runs a recipe: unfolds it into jobs, skips those whose stamp still holds, does the others whole or not at all."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.errors import InputError
from pipeline.files import folder_written_whole, write_atomically
from pipeline.progress import Progress
from pipeline.recipe import RECIPE_FILE, STAGES, Recipe, recipe_text
from pipeline.stages import augmentation, binary, bundle, corpus, device_test, export, mixed, msft, pretrain, uniform
from pipeline.stages.job import Job, JobContext
from pipeline.stamp import Stamp, current_stamp, make_stamp, tool_versions, write_stamp
from pipeline.training.processes import from_first_process, is_first_process

WORK_FOLDER = ".work"


def plan(recipe: Recipe, corpus_folder: Path | None, pretrained: Path | None = None) -> list[Job]:
    """The jobs of a recipe in the order they are done."""
    return [
        *corpus.jobs(recipe, corpus_folder),
        *augmentation.jobs(recipe),
        *pretrain.jobs(recipe, pretrained),
        *uniform.jobs(recipe),
        *mixed.jobs(recipe),
        *msft.jobs(recipe),
        *binary.jobs(recipe),
        *export.jobs(recipe),
        *device_test.jobs(recipe),
        *bundle.jobs(recipe),
    ]


def run_recipe(
    recipe: Recipe,
    *,
    corpus_folder: Path | None,
    out: Path,
    until: str | None,
    progress: Progress,
    pretrained: Path | None = None,
) -> None:
    """Do every job of a recipe up to and including the stage `until` (None: all).

    With `pretrained`, a model folder, that model is taken instead of training one.

    A job whose settings, inputs, tools and outputs are what its stamp says is skipped. A killed job left nothing in
    its place; training inside it goes on from the last checkpoint in `out/.work`.
    """
    if until is not None and until not in STAGES:
        raise InputError("--until", expected=f"one of {', '.join(STAGES)}", found=until)
    last = len(STAGES) - 1 if until is None else STAGES.index(until)
    jobs = [job for job in plan(recipe, corpus_folder, pretrained) if STAGES.index(job.stage) <= last]
    run_jobs(jobs, recipe, out, progress)
    if is_first_process():
        write_atomically(out / RECIPE_FILE, recipe_text(recipe))  # for whoever bundles the run later


def run_jobs(jobs: Sequence[Job], recipe: Recipe, out: Path, progress: Progress) -> None:
    """Do those of the jobs that are not done, in their order; each comes after the jobs that it needs.

    Under torchrun every process calls this: the first one does all jobs, the others take part in those that train.
    """
    if not is_first_process():
        for job in jobs:
            _take_part(job, recipe, out)
        return
    done: dict[str, Stamp] = {}
    for job in jobs:
        done[job.name] = _do(job, recipe, out, done, progress)


def _do(job: Job, recipe: Recipe, out: Path, done: dict[str, Stamp], progress: Progress) -> Stamp:
    folder = out / job.name
    inputs = {name: done[name].outputs_sha256 for name in job.needs} | dict(job.sources)
    stamp = current_stamp(job.stage, job.settings, inputs, folder)
    identity = _identity(job, inputs) if stamp is None else ""  # empty: nothing to do
    if job.trains:
        from_first_process(identity)
    if stamp is not None:
        progress.say(f"[{job.name}] unchanged")
        return stamp
    progress.say(f"[{job.name}]")
    work = out / WORK_FOLDER / job.name
    with folder_written_whole(folder) as partial:
        job.run(JobContext(recipe, partial, _needs(job, out), work, progress, identity))
        stamp = make_stamp(job.stage, job.settings, inputs, partial)
        write_stamp(partial, stamp)
    shutil.rmtree(work, ignore_errors=True)
    return stamp


def _take_part(job: Job, recipe: Recipe, out: Path) -> None:
    """Train with the first process if it says that the job is not done yet."""
    identity = from_first_process("") if job.trains else ""
    if identity:
        work = out / WORK_FOLDER / job.name
        job.run(JobContext(recipe, out / job.name, _needs(job, out), work, Progress.silent(), identity, leads=False))


def _identity(job: Job, inputs: Mapping[str, str]) -> str:
    """Hash of all that the job's result depends on."""
    everything = [job.stage, job.settings.model_dump(mode="json"), dict(inputs), tool_versions()]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()


def _needs(job: Job, out: Path) -> dict[str, Path]:
    return {name: out / name for name in job.needs}
