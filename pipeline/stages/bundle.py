"""Stage `bundle`: models, artifacts, front end, golden vectors and report, with a manifest, as a folder and a zip."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from calibration.plan import PLAN_FILE
from device_tests.report.quote import device_figures
from exporters.bundle.archive import zip_bundle
from exporters.bundle.contents import check_contents
from exporters.bundle.manifest import MANIFEST_FILE, Manifest
from exporters.bundle.write import BundleContent, write_bundle
from exporters.exported import ExportedFile, read_export_list
from pipeline.artifact.store import HEADER_FILE as ARTIFACT_FILE
from pipeline.artifact.store import LoadedArtifact, read_artifact
from pipeline.corpus.synthesis import draw_session, draw_voice, synthesise
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.files import folder_written_whole, read_json
from pipeline.models.store import read_pretrained
from pipeline.progress import Progress
from pipeline.recipe import RECIPE_FILE, BundleSettings, Recipe, recipe_text
from pipeline.stages.artifacts import artifact_jobs
from pipeline.stages.device_test import JOB as DEVICE_TEST
from pipeline.stages.export import JOB as EXPORT
from pipeline.stages.export import fp32_artifact
from pipeline.stages.job import Job, JobContext
from pipeline.stages.mixed import plan_job, plan_labels
from pipeline.stages.pretrain import JOB as PRETRAIN
from pipeline.stamp import tool_versions

JOB = "bundle"
GOLDEN_SECONDS = 2.0


class _Settings(BaseModel):
    bundle: BundleSettings
    recipe: str


def jobs(recipe: Recipe) -> list[Job]:
    """One job; its folder holds the bundle as `<name>-<version>/` and `<name>-<version>.zip`."""
    settings = _Settings(bundle=recipe.bundle, recipe=recipe_text(recipe))
    plans = tuple(plan_job(label) for label in plan_labels(recipe))
    needs = (PRETRAIN, *plans, *artifact_jobs(recipe).values(), EXPORT, DEVICE_TEST)
    return [Job(JOB, "bundle", settings, needs, _run, {})]


@dataclass(frozen=True)
class BundleRequest:
    """What `voxpress bundle create` is asked for beside its source."""

    name: str | None = None  # None: the network's
    version: str | None = None  # None: the recipe's, or 0.1.0
    licence: str | None = None  # None: the recipe's, or "unspecified"
    labels: tuple[str, ...] = ()  # empty: all artifacts
    primary: str | None = None  # None: the first that is quantized
    calibrations: tuple[Path, ...] = ()
    reports: tuple[Path, ...] = ()  # beside the run's own
    max_seconds: float = 10.0  # of files that are exported here
    chunk_seconds: float | None = None  # in them, longer utterances are embedded as the mean of chunks of this length


def create_bundle(source: Path, request: BundleRequest, out: Path, *, progress: Progress) -> tuple[Path, Manifest]:
    """Write `out/<name>-<version>.zip`, and the same as a folder, from a finished run or from an artifact.

    source: the folder of a run (its exported files and device report are taken), or of one artifact (its files are
    exported here). The same source and request give the same bytes. Raises InputError naming what is missing, and if
    there is another bundle of that name and version; the same bundle again is no error.
    """
    run_recipe_file = source / RECIPE_FILE
    with tempfile.TemporaryDirectory(prefix="voxpress-") as scratch:
        if run_recipe_file.is_file():
            if request.chunk_seconds is not None:
                expected = "an artifact with it: a run's files have the recipe's export.chunk_seconds"
                raise InputError("--chunk-seconds", expected=expected, found=f"the run {source}")
            recipe = read_json(run_recipe_file, Recipe, what="a run's recipe")
            content = _run_content(recipe, lambda job: source / job, request)
        elif (source / ARTIFACT_FILE).is_file():
            content = _artifact_content(source, Path(scratch), request, progress)
        else:
            found = f"neither {RECIPE_FILE} nor {ARTIFACT_FILE}" if source.is_dir() else "no such folder"
            raise InputError(source, expected="the folder of a run or of an artifact", found=found)
        made = Path(scratch) / "bundle"
        manifest = write_bundle(made, content)
        check_contents(made)
        return place_bundle(made, manifest, out), manifest


def place_bundle(made: Path, manifest: Manifest, out: Path) -> Path:
    """Move a bundle's folder to `out/<name>-<version>` and zip it beside; returns the path of the zip.

    Raises InputError if there is another bundle already; the same bytes again are no error.
    """
    folder, archive = out / f"{manifest.name}-{manifest.version}", out / f"{manifest.name}-{manifest.version}.zip"
    out.mkdir(parents=True, exist_ok=True)
    if folder.exists():
        there = (folder / MANIFEST_FILE).read_bytes() if (folder / MANIFEST_FILE).is_file() else b""
        if there != manifest.json_bytes():
            raise InputError(folder, expected="no other bundle of this name and version", found="one")
        check_contents(folder)
    else:
        with folder_written_whole(folder) as partial:
            shutil.copytree(made, partial, dirs_exist_ok=True)
    zip_bundle(folder, archive)
    return archive


def _run(context: JobContext) -> None:
    settings = context.recipe.bundle
    content = _run_content(context.recipe, lambda job: context.needs[job], BundleRequest())
    folder = context.folder / f"{content.name}-{content.version}"
    write_bundle(folder, content)
    check_contents(folder)
    if settings.zip:
        zip_bundle(folder, context.folder / f"{folder.name}.zip")


def _run_content(recipe: Recipe, folder_of: Callable[[str], Path], request: BundleRequest) -> BundleContent:
    pretrained = read_pretrained(folder_of(PRETRAIN))
    jobs_by_label = artifact_jobs(recipe)
    artifacts = {"fp32": fp32_artifact(pretrained)}
    artifacts |= {label: read_artifact(folder_of(job)) for label, job in jobs_by_label.items()}
    artifacts = _chosen(artifacts, request.labels)
    exported = [entry for entry in read_export_list(folder_of(EXPORT)) if entry.label in artifacts]
    of_plan = {f"{stage}-{label}": plan_job(label) for label in plan_labels(recipe) for stage in ("mixed", "msft")}
    devices = [device_figures(folder) for folder in (folder_of(DEVICE_TEST), *request.reports)]
    return BundleContent(
        name=request.name or pretrained.header.spec.name,
        version=request.version or recipe.bundle.version,
        licence=request.licence or recipe.bundle.licence,
        created_by=_created_by(),
        models=folder_of(EXPORT),
        exported=exported,
        artifacts=artifacts,
        primary=_primary(artifacts, request.primary),
        golden=_golden_voice(pretrained.frontend, exported, recipe.export.chunk_seconds),
        plans={label: folder_of(job) / PLAN_FILE for label, job in of_plan.items() if label in artifacts},
        calibrations=request.calibrations,
        devices=devices,
        recipe_json=recipe_text(recipe),
        checkpoint_sha256=pretrained.header.source_sha256,
    )


def _artifact_content(source: Path, scratch: Path, request: BundleRequest, progress: Progress) -> BundleContent:
    # The converters take seconds to import; a bundle of a finished run does without.
    from exporters.export import export_files

    artifact = read_artifact(source)
    models = scratch / "models"
    exported = export_files(
        source,
        file_format="both",
        fallback=False,
        max_seconds=request.max_seconds,
        chunk_seconds=request.chunk_seconds,
        out=models,
        progress=progress,
    )
    artifacts = _chosen({exported[0].label: artifact}, request.labels)
    plan = source / PLAN_FILE
    return BundleContent(
        name=request.name or artifact.header.name.rpartition("-")[0] or artifact.header.name,
        version=request.version or "0.1.0",
        licence=request.licence or "unspecified",
        created_by=_created_by(),
        models=models,
        exported=exported,
        artifacts=artifacts,
        primary=_primary(artifacts, request.primary),
        golden=_golden_voice(artifact.header.frontend, exported, request.chunk_seconds),
        plans={exported[0].label: plan} if plan.is_file() else {},
        calibrations=request.calibrations,
        devices=[device_figures(folder) for folder in request.reports],
    )


def _chosen(artifacts: dict[str, LoadedArtifact], labels: tuple[str, ...]) -> dict[str, LoadedArtifact]:
    for label in labels:
        if label not in artifacts:
            raise InputError("--label", expected=f"artifacts among {', '.join(artifacts)}", found=label)
    return {label: artifact for label, artifact in artifacts.items() if not labels or label in labels}


def _primary(artifacts: Mapping[str, LoadedArtifact], wanted: str | None) -> str:
    if wanted is not None:
        if wanted not in artifacts:
            raise InputError("--primary", expected=f"one of {', '.join(artifacts)}", found=wanted)
        return wanted
    quantized = [label for label, artifact in artifacts.items() if artifact.bits_per_weight < 32]
    return (quantized or list(artifacts))[0]


def _created_by() -> str:
    return f"voxpress {tool_versions()['voxpress']}"


def _golden_voice(
    spec: FrontEndSpec, exported: Sequence[ExportedFile], chunk_seconds: float | None
) -> npt.NDArray[np.float32]:
    """A synthetic voice, so that no one's speech is shipped; no longer than every model file takes at once."""
    rng = np.random.default_rng(0)
    seconds = min(GOLDEN_SECONDS, chunk_seconds or GOLDEN_SECONDS, *(entry.max_seconds for entry in exported))
    return synthesise(draw_voice(rng), draw_session(rng), round(seconds * spec.sample_rate_hz), rng)
