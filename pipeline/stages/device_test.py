"""Stage `device-test`: the exported files run on a device, and the report that compares them with the reference."""

from __future__ import annotations

import shutil

from pydantic import BaseModel

from device_tests.drive.process import HostDevice
from device_tests.drive.run import ModelFile, run_on_device
from device_tests.records import Protocol
from device_tests.report.build import build_report
from exporters.exported import read_export_list
from exporters.long_audio import embed_by_policy
from pipeline.artifact.decode import decode
from pipeline.artifact.store import read_artifact
from pipeline.features.fbank import max_frames
from pipeline.models.store import read_pretrained
from pipeline.recipe import DeviceTestSettings, Recipe
from pipeline.stages.artifacts import artifact_jobs
from pipeline.stages.corpus import JOB as CORPUS
from pipeline.stages.export import JOB as EXPORT
from pipeline.stages.heldout import heldout_features, heldout_speakers, heldout_trials
from pipeline.stages.job import Job, JobContext
from pipeline.stages.pretrain import JOB as PRETRAIN

JOB = "device-test"


class _Settings(BaseModel):
    device_test: DeviceTestSettings


def jobs(recipe: Recipe) -> list[Job]:
    """One job."""
    needs = (CORPUS, PRETRAIN, *artifact_jobs(recipe).values(), EXPORT)
    return [Job(JOB, "device-test", _Settings(device_test=recipe.device_test), needs, _run, {})]


def _run(context: JobContext) -> None:
    recipe, settings, corpus = context.recipe, context.recipe.device_test, context.needs[CORPUS]
    progress = context.progress
    pretrained = read_pretrained(context.needs[PRETRAIN])
    features = heldout_features(corpus, pretrained.frontend, progress, crop_seconds=settings.crop_seconds)
    models = [
        ModelFile(
            path=context.needs[EXPORT] / exported.file,
            format=exported.format,
            bits=exported.label,
            lowering=exported.lowering,
            mode=exported.mode,
            is_control=exported.label == "fp32",
            weights=None if exported.weights is None else context.needs[EXPORT] / exported.weights,
        )
        for exported in read_export_list(context.needs[EXPORT])
    ]
    protocol = Protocol(
        warmup=settings.warmup,
        runs=settings.runs,
        rounds=settings.rounds,
        threads=settings.threads,
        speed_frames=settings.speed_frames,
        crop_seconds=settings.crop_seconds or None,
        low_memory=settings.low_memory,
    )
    # In the work folder, so that a killed run keeps what it has measured.
    run_folder = context.work / "run"
    run = run_on_device(HostDevice(), models, features, run_folder, protocol=protocol, progress=progress)
    spec = pretrained.frontend
    chunk_frames = max_frames(recipe.export.chunk_seconds, spec) if recipe.export.chunk_seconds else None
    references = {
        label: embed_by_policy(
            decode(read_artifact(context.needs[job])), features, chunk_frames, spec, progress, f"reference {label}"
        )
        for label, job in artifact_jobs(recipe).items()
    }
    reference = embed_by_policy(pretrained.network, features, chunk_frames, spec, progress, "reference fp32")
    build_report(
        run,
        run_folder,
        reference,
        references | {"fp32": reference},
        heldout_trials(corpus),
        context.folder,
        title=f"{recipe.name}: {pretrained.header.spec.name} on {run.device}",
        speakers=heldout_speakers(corpus),
    )
    shutil.copytree(run_folder, context.folder, dirs_exist_ok=True)
