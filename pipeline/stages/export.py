"""Stage `export`: model files for the runtimes, each checked against the reference network before it is kept."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING

from pydantic import BaseModel

from calibration.ranges import RangeChoice
from exporters.exported import write_export_list
from pipeline.artifact.store import LoadedArtifact, read_artifact
from pipeline.corpus.read import read_cuts
from pipeline.errors import InputError
from pipeline.models.store import PretrainedModel, read_pretrained
from pipeline.quantize.apply import press
from pipeline.recipe import ExportSettings, Recipe
from pipeline.stages.artifacts import artifact_jobs
from pipeline.stages.corpus import JOB as CORPUS
from pipeline.stages.corpus import TRAIN_FILE
from pipeline.stages.job import Job, JobContext
from pipeline.stages.pretrain import JOB as PRETRAIN
from pipeline.stamp import tool_versions

if TYPE_CHECKING:
    from exporters.verify import FastReference

JOB = "export"


class _Settings(BaseModel):
    export: ExportSettings
    artifacts: tuple[str, ...]


def jobs(recipe: Recipe) -> list[Job]:
    """One job."""
    artifacts = artifact_jobs(recipe)
    for label in recipe.export.fallback:
        if label not in artifacts:
            raise InputError("export.fallback", expected=f"artifacts among {', '.join(artifacts)}", found=label)
    settings = _Settings(export=recipe.export, artifacts=tuple(artifacts))
    corpus = (CORPUS,) if "fast" in recipe.export.modes else ()
    return [Job(JOB, "export", settings, (*corpus, PRETRAIN, *artifacts.values()), _run, {})]


def _run(context: JobContext) -> None:
    # The converters take seconds to import; a run that stops earlier or has nothing to export does without.
    from exporters.export import ExportRequest, export_artifact

    settings = context.recipe.export
    fp32 = fp32_artifact(read_pretrained(context.needs[PRETRAIN]))
    artifacts = {label: read_artifact(context.needs[job]) for label, job in artifact_jobs(context.recipe).items()}
    fast = _fast_references(context, artifacts) if "fast" in settings.modes else {}
    make, requests = partial(ExportRequest, chunk_seconds=settings.chunk_seconds or None), []
    for file_format in settings.formats:
        split = settings.split_weights and file_format == "pte"
        requests.append(make(fp32, "fp32", file_format, "stock"))
        for label, artifact in artifacts.items():
            if "exact" in settings.modes:
                requests.append(make(artifact, label, file_format, "voxpress", split_weights=split))
            if label in fast:
                requests.append(make(artifact, label, file_format, "voxpress", fast[label], split_weights=split))
            if label in settings.fallback:
                requests.append(make(artifact, label, file_format, "stock"))
    with context.progress.task("export", len(requests)) as task:
        exported = []
        for request in requests:
            exported.append(export_artifact(request, context.folder, max_seconds=settings.max_seconds))
            task.note(exported[-1].file)
            task.advance()
    write_export_list(context.folder, exported)


def _fast_references(context: JobContext, artifacts: Mapping[str, LoadedArtifact]) -> dict[str, FastReference]:
    """What files of mode fast are made by and checked against, by label; ranges are measured on training utterances."""
    from calibration.activations import CalibrationFeatures
    from exporters.export import prepare_fast

    recipe, settings = context.recipe, context.recipe.export.activations
    cuts = list(read_cuts(context.needs[CORPUS] / TRAIN_FILE))
    utterances = CalibrationFeatures(cuts, recipe.frontend, settings.utterances)
    return {
        label: prepare_fast(
            artifact,
            utterances,
            context.folder,
            max_seconds=recipe.export.max_seconds,
            progress=context.progress,
            choice=RangeChoice(method=settings.method, percentile=settings.percentile),
        )
        for label, artifact in artifacts.items()
    }


def fp32_artifact(pretrained: PretrainedModel) -> LoadedArtifact:
    """The pre-trained network as an artifact without palettes: the source of the fp32 controls."""
    return press(
        pretrained.network,
        name=f"{pretrained.header.spec.name}-fp32",
        architecture=pretrained.header.spec.architecture,
        frontend=pretrained.frontend,
        created_by=f"voxpress {tool_versions()['voxpress']}",
        source_sha256=pretrained.sha256,
    )
