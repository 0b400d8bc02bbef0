"""Stage `bundle`: models, artifacts, front end, golden vectors and report, with a manifest, as a folder and a zip."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from exporters.bundle import BundleContent, verify_bundle, write_bundle, zip_bundle
from pipeline.artifact.store import read_artifact
from pipeline.corpus.synthesis import draw_session, draw_voice, synthesise
from pipeline.models.store import read_pretrained
from pipeline.recipe import BundleSettings, Recipe
from pipeline.stages.artifacts import artifact_jobs
from pipeline.stages.device_test import JOB as DEVICE_TEST
from pipeline.stages.export import JOB as EXPORT
from pipeline.stages.export import fp32_artifact
from pipeline.stages.job import Job, JobContext
from pipeline.stages.pretrain import JOB as PRETRAIN
from pipeline.stamp import tool_versions

JOB = "bundle"
GOLDEN_SECONDS = 2.0


class _Settings(BaseModel):
    bundle: BundleSettings
    recipe: str


def jobs(recipe: Recipe) -> list[Job]:
    """One job; its folder holds the bundle as `<name>-<version>/` and `<name>-<version>.zip`."""
    settings = _Settings(bundle=recipe.bundle, recipe=recipe.name)
    needs = (PRETRAIN, *artifact_jobs(recipe).values(), EXPORT, DEVICE_TEST)
    return [Job(JOB, "bundle", settings, needs, _run, {})]


def _run(context: JobContext) -> None:
    recipe, settings = context.recipe, context.recipe.bundle
    pretrained = read_pretrained(context.needs[PRETRAIN])
    artifacts = {"fp32": fp32_artifact(pretrained)}
    artifacts |= {label: read_artifact(context.needs[job]) for label, job in artifact_jobs(recipe).items()}
    name = f"{pretrained.header.spec.name}-{settings.version}"
    folder = context.folder / name
    manifest = write_bundle(
        folder,
        BundleContent(
            name=pretrained.header.spec.name,
            version=settings.version,
            licence=settings.licence,
            created_by=f"voxpress {tool_versions()['voxpress']}",
            exports=context.needs[EXPORT],
            artifacts=artifacts,
            report=context.needs[DEVICE_TEST],
            # A synthetic voice, so that no one's speech is shipped.
            golden=_golden_voice(round(GOLDEN_SECONDS * pretrained.frontend.sample_rate_hz)),
        ),
    )
    verify_bundle(folder)
    if settings.zip:
        zip_bundle(folder, context.folder / f"{name}.zip", list(manifest.files))


def _golden_voice(samples: int) -> npt.NDArray[np.float32]:
    rng = np.random.default_rng(0)
    return synthesise(draw_voice(rng), draw_session(rng), samples, rng)
