"""A sweep: one recipe at every width and with every quantizer, for several seeds, on the same trials.

Every seed is a run of its own, `seed-<k>`, made by the recipe's own jobs; after them come jobs that measure each of its
networks on each trial list (`measured/<list>/<setting>`) and, for the first seed, write the model files
(`files/<setting>`). Each job is stamped: a sweep that was stopped goes on where it was.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Literal, Protocol

import numpy as np
import safetensors.numpy
import torch
from pydantic import BaseModel, ConfigDict

from calibration.plan import PLAN_FILE, read_plan
from device_tests.records import EMBEDDINGS_FILE, ModelFormat, read_embeddings
from device_tests.report.figures import parity
from device_tests.report.sweep import write_sweep
from device_tests.report.sweep_figures import (
    FOUR_BIT,
    FP32,
    Comparison,
    Family,
    LayerFigures,
    MeasuredSetting,
    Measurement,
    SeedResult,
    Size,
    Sweep,
    SweepSubject,
    summarise,
)
from device_tests.trial_set import read_trial_set
from exporters.exported import ExportedFile, read_export_list, write_export_list
from pipeline.artifact.decode import decode
from pipeline.artifact.embed import embed
from pipeline.artifact.store import LoadedArtifact, read_artifact
from pipeline.corpus.trials import Trial
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.files import read_json, sha256_file, write_atomically
from pipeline.models.network import lower
from pipeline.models.store import read_pretrained
from pipeline.progress import Progress
from pipeline.recipe import STAGES, ExportSettings, Order, Recipe
from pipeline.scoring.metrics import DEFAULT_RESAMPLING, Resampling, bootstrap_values
from pipeline.scoring.score import Evaluation, cosine_scores, evaluate_scores, trial_labels, trial_speakers
from pipeline.stages import binary, mixed, msft, uniform
from pipeline.stages.artifacts import artifact_jobs
from pipeline.stages.corpus import JOB as CORPUS
from pipeline.stages.corpus import TRIALS_FILE, folder_fingerprint
from pipeline.stages.export import fp32_artifact
from pipeline.stages.heldout import Features, heldout_features, heldout_speakers, heldout_trials
from pipeline.stages.job import Job, JobContext
from pipeline.stages.pretrain import JOB as PRETRAIN
from pipeline.stages.run import plan, run_jobs
from pipeline.stamp import tool_versions
from pipeline.training.processes import process_count

LAST_STAGE = "binary"
MEASUREMENT_FILE = "measurement.json"
BOOTSTRAP_FILE = "bootstrap.safetensors"
HELDOUT, GIVEN = "heldout", "trials"  # keys of the trial lists
Quantizer = Literal["adaptive", "static", "sign"]
_WIDTHS = tuple(str(bits) for bits in range(1, 9))


@dataclass(frozen=True)
class SweptSettings:
    """The settings of a sweep; those of the method's tables unless said otherwise."""

    uniform_bits: tuple[int, ...] = (8, 5, 4, 3, 2)
    mixed_bits: tuple[int, ...] = (5, 4, 3, 2)  # mixed and MSFT, at the bytes of these widths; at 8 there is no choice
    quantizers: tuple[Quantizer, ...] = ("sign", "static", "adaptive")

    @classmethod
    def parse(cls, bits: str, mixed_bits: str, quantizers: str) -> SweptSettings:
        """From lists with commas, as the command line has them; "none" is the empty one.

        Raises InputError for what is no width from 1 to 8 and no quantizer.
        """

        def widths(option: str, text: str) -> tuple[int, ...]:
            for word in _words(text):
                if word not in _WIDTHS:
                    raise InputError(option, expected="widths from 1 to 8 with commas, or none", found=text)
            return tuple(int(word) for word in _words(text))

        known: dict[str, Quantizer] = {name: name for name in cls.quantizers}
        for word in _words(quantizers):
            if word not in known:
                raise InputError("--quantizers", expected=f"some of {', '.join(known)}, or none", found=quantizers)
        return cls(
            uniform_bits=widths("--bits", bits),
            mixed_bits=widths("--mixed-bits", mixed_bits),
            quantizers=tuple(known[word] for word in _words(quantizers)),
        )


def _words(text: str) -> list[str]:
    """The words of a list with commas, each once."""
    return [] if text == "none" else list(dict.fromkeys(word.strip() for word in text.split(",")))


@dataclass(frozen=True)
class GivenTrials:
    """A trial list that does not come from the corpus."""

    audio: Path  # folder that the list's paths are relative to
    trials_file: Path


def sweep(
    recipe: Recipe,
    *,
    corpus_folder: Path | None,
    out: Path,
    seeds: int,
    given: GivenTrials | None,
    progress: Progress,
    settings: SweptSettings | None = None,
    jobs: int = 1,
) -> Sweep:
    """Run a recipe at all settings for `seeds` seeds, compare them, and write the report into `out`.

    Seeds count up from the recipe's. The corpus, its split and its trials are those of the recipe's seed for all of
    them. Every network is evaluated on the held-out trials and, if there are any, on the given ones. `jobs` seeds are
    run at the same time, each in a process of its own.

    Raises InputError for a recipe that cannot be compared with itself at equal bytes, and as the recipe's stages do.
    """
    if process_count() > 1:
        raise InputError(
            "sweep", expected="one process (runs of single seeds can have several)", found=str(process_count())
        )
    settings = settings or SweptSettings()
    first = swept_recipe(recipe, settings)
    numbers = range(recipe.seed, recipe.seed + seeds)
    if seeds < 1 or numbers[-1] >= 2**31:
        raise InputError("--seeds", expected=f"1 or more, from seed {recipe.seed} up to 2^31 - 1", found=str(seeds))
    if given is not None:
        _Given(given)  # checks the list before any training begins
    runs = [_SeedRun(first.model_copy(update={"seed": seed}), out / f"seed-{seed}") for seed in numbers]
    work = _SweepWork(corpus_folder, given)
    if min(jobs, seeds) > 1:
        _run_together(runs, work, min(jobs, seeds), progress)
    else:
        for place, run in enumerate(runs):
            progress.say(f"seed {run.recipe.seed}, {place + 1} of {seeds}")
            _run_seed(run, work, place == 0, progress)
    _check_same_trials(runs)
    list_names = {HELDOUT: "held-out speakers"}
    if given is not None:
        list_names[GIVEN] = given.trials_file.name
    result = summarise(
        _subject(runs, corpus_folder),
        [_measured(runs, label, family, tuple(list_names)) for label, family in _families(first).items()],
        comparisons(settings, msft.compared_artifacts(first)),
        list_names=list_names,
        layers=_layers(runs),
    )
    write_sweep(result, out)
    return result


def swept_recipe(recipe: Recipe, settings: SweptSettings) -> Recipe:
    """The recipe with the sweep's settings in place of its own widths, plans and quantizers.

    Raises InputError if it has no section [msft], or keeps layers in fp32, which plans do not.
    """
    if recipe.msft is None:
        raise InputError(recipe.name, expected="a recipe with a section [msft]", found="none")
    if recipe.uniform.keep_fp32:
        found = ", ".join(recipe.uniform.keep_fp32)
        raise InputError("uniform.keep_fp32", expected="none: mixed plans give every layer a width", found=found)
    average_bits = tuple(float(bits) for bits in settings.mixed_bits)
    left_out = {f"{bits}bit" for bits in set(SweptSettings.mixed_bits) - set(settings.mixed_bits)}
    orders = () if recipe.msft.compare_plan in left_out else recipe.msft.compare_orders
    return recipe.model_copy(
        update={
            "corpus": recipe.corpus.model_copy(update={"seed": recipe.corpus_seed}),
            "uniform": recipe.uniform.model_copy(update={"bits": settings.uniform_bits}),
            "mixed": recipe.mixed.model_copy(update={"average_bits": average_bits, "budget_bytes": (), "plans": ()}),
            "msft": recipe.msft.model_copy(update={"compare_orders": orders}),
            "binary": recipe.binary.model_copy(update={"quantizers": settings.quantizers}),
            "export": recipe.export.model_copy(update={"fallback": ()}),
        }
    )


def comparisons(settings: SweptSettings, orders: Mapping[Order, str] | None = None) -> list[Comparison]:
    """The pairs of settings whose difference is a claim of the method.

    `orders`: artifacts that differ in MSFT's order alone, by order; the first is the recipe's.
    """
    pairs = []
    if 4 in settings.uniform_bits:
        pairs.append(
            Comparison(FOUR_BIT, FP32, "4 bit is lossless: EER at most 0.3 points above fp32's", lossless=True)
        )
    for bits in settings.mixed_bits:
        if bits in settings.uniform_bits:
            statement = f"mixed precision beats uniform at the bytes of {bits} bit"
            pairs.append(Comparison(f"mixed-{bits}bit", f"{bits}bit", statement))
    for bits in settings.mixed_bits:
        statement = f"MSFT beats fine-tuning all at once, mixed at the bytes of {bits} bit"
        pairs.append(Comparison(f"msft-{bits}bit", f"mixed-{bits}bit", statement))
    for quantizer in settings.quantizers:
        if quantizer != "sign" and "sign" in settings.quantizers:
            statement = f"the {quantizer} binary quantizer beats naive 1 bit (sign)"
            pairs.append(Comparison(f"1bit-{quantizer}", "1bit-sign", statement))
    if orders:
        (order, label), *others = orders.items()
        pairs += [Comparison(label, other, f"MSFT {order} beats {name}") for name, other in others]
    return pairs


@dataclass(frozen=True)
class _SeedRun:
    recipe: Recipe
    folder: Path


@dataclass(frozen=True)
class _SweepWork:
    """What is the same for all seeds."""

    corpus_folder: Path | None
    given: GivenTrials | None


def _run_seed(run: _SeedRun, work: _SweepWork, writes_files: bool, progress: Progress) -> None:
    sources: list[_Source] = [_Heldout(run.folder / CORPUS)]
    if work.given is not None:
        sources.append(_Given(work.given))
    jobs = [job for job in plan(run.recipe, work.corpus_folder) if STAGES.index(job.stage) <= STAGES.index(LAST_STAGE)]
    jobs += [job for source in sources for job in _measuring_jobs(run.recipe, source)]
    if writes_files:
        jobs += _file_jobs(run.recipe)
    run_jobs(jobs, run.recipe, run.folder, progress)


def _run_together(runs: Sequence[_SeedRun], work: _SweepWork, processes: int, progress: Progress) -> None:
    """Run `processes` seeds at the same time, which share the processor's threads among them.

    The first error ends the sweep once the seeds under way have ended; what they have done is not done again.
    """
    progress.say(f"{len(runs)} seeds, {processes} at the same time")
    threads = max(1, torch.get_num_threads() // processes)
    # A forked process would inherit the locks of this one's threads, but not the threads that release them.
    spawned = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawned, initializer=_begin_process, initargs=(threads,)) as pool:
        futures = [pool.submit(_run_seed_beside_others, run, work, place == 0) for place, run in enumerate(runs)]
        for future in as_completed(futures):
            if future.exception() is not None:
                pool.shutdown(wait=True, cancel_futures=True)
            future.result()


def _begin_process(threads: int) -> None:
    torch.set_num_threads(threads)
    # A killed parent cannot end its processes, which would go on beside those of the next try.
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run_seed_beside_others(run: _SeedRun, work: _SweepWork, writes_files: bool) -> None:
    _run_seed(run, work, writes_files, Progress.lines(f"seed {run.recipe.seed}: "))


class _Source(Protocol):
    """A list of trials and the features of its utterances, which are computed once."""

    key: str
    hashes: Mapping[str, str]  # of what lies outside the run's folder

    def trials(self) -> list[Trial]: ...

    def speakers(self) -> Mapping[str, str] | None: ...

    def features(self, spec: FrontEndSpec, progress: Progress) -> Features: ...


class _Heldout:
    """The held-out trials of a run. Its corpus may not be there yet when this is made."""

    key = HELDOUT

    def __init__(self, corpus: Path) -> None:
        self.hashes: Mapping[str, str] = {}
        self._corpus = corpus
        self._features: Features | None = None

    def trials(self) -> list[Trial]:
        return heldout_trials(self._corpus)

    def speakers(self) -> Mapping[str, str] | None:
        return heldout_speakers(self._corpus)

    def features(self, spec: FrontEndSpec, progress: Progress) -> Features:
        if self._features is None:
            self._features = heldout_features(self._corpus, spec, progress)
        return self._features


class _Given:
    """A given trial list, read and checked before any training begins."""

    key = GIVEN

    def __init__(self, given: GivenTrials) -> None:
        self._set = read_trial_set(given.audio, given.trials_file)
        if self._set.speakers is not None:
            trial_speakers(self._set.trials, self._set.speakers)
        self.hashes: Mapping[str, str] = {
            "trials": sha256_file(given.trials_file),
            "audio": folder_fingerprint(given.audio),
        }
        self._features: Features | None = None

    def trials(self) -> list[Trial]:
        return list(self._set.trials)

    def speakers(self) -> Mapping[str, str] | None:
        return self._set.speakers

    def features(self, spec: FrontEndSpec, progress: Progress) -> Features:
        if self._features is None:
            self._features = self._set.features(spec, progress)
        return self._features


class _Measured(BaseModel):
    """What a measuring job writes beside embeddings and bootstrap values."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    evaluation: Evaluation
    cosine_mean: float
    cosine_min: float


class _MeasuringSettings(BaseModel):
    resampling: Resampling


class _FileSettings(BaseModel):
    export: ExportSettings


def _families(recipe: Recipe) -> dict[str, Family]:
    """Every setting's family, by its label, in the order of the tables."""
    families: dict[str, Family] = {FP32: "fp32"}
    stages: tuple[tuple[Family, Callable[[Recipe], dict[str, str]]], ...] = (
        ("uniform", uniform.artifacts),
        ("mixed", mixed.artifacts),
        ("msft", msft.artifacts),
        ("binary", binary.artifacts),
    )
    for family, artifacts in stages:
        families |= dict.fromkeys(artifacts(recipe), family)
    _, *others = msft.compared_artifacts(recipe).values() or [""]
    return families | dict.fromkeys(others, "other order")


def _measured_job(source_key: str, label: str) -> str:
    return f"measured/{source_key}/{label}"


def _files_job(label: str) -> str:
    return f"files/{label}"


def _measuring_jobs(recipe: Recipe, source: _Source) -> list[Job]:
    """One job for each setting; fp32 first, since the others are compared with its embeddings."""
    settings = _MeasuringSettings(resampling=DEFAULT_RESAMPLING)
    fp32 = _measured_job(source.key, FP32)
    jobs = [
        Job(fp32, "sweep", settings, (CORPUS, PRETRAIN), lambda context: _measure(context, source, FP32), source.hashes)
    ]
    return jobs + [
        Job(
            _measured_job(source.key, label),
            "sweep",
            settings,
            (CORPUS, PRETRAIN, job, fp32),
            lambda context, label=label: _measure(context, source, label),  # type: ignore[misc]
            source.hashes,
        )
        for label, job in artifact_jobs(recipe).items()
    ]


def _measure(context: JobContext, source: _Source, label: str) -> None:
    pretrained = read_pretrained(context.needs[PRETRAIN])
    features = source.features(pretrained.frontend, context.progress)
    if label == FP32:
        network, reference = pretrained.network, None
    else:
        network = decode(read_artifact(context.needs[artifact_jobs(context.recipe)[label]]))
        reference = read_embeddings(context.needs[_measured_job(source.key, FP32)] / EMBEDDINGS_FILE)
    embeddings = embed(network, features, context.progress, f"embed {label}, {source.key}")
    closeness = parity(embeddings, reference or embeddings, name=label)
    trials, speakers = source.trials(), source.speakers()
    scores = cosine_scores(embeddings, trials)
    evaluation = evaluate_scores(scores, trials, speakers=speakers)
    values = bootstrap_values(
        scores, trial_labels(trials), speakers=None if speakers is None else trial_speakers(trials, speakers)
    )
    measured = _Measured(evaluation=evaluation, cosine_mean=closeness.cosine_mean, cosine_min=closeness.cosine_min)
    write_atomically(context.folder / EMBEDDINGS_FILE, safetensors.numpy.save(embeddings))
    write_atomically(context.folder / BOOTSTRAP_FILE, safetensors.numpy.save({"eer": values}))
    write_atomically(context.folder / MEASUREMENT_FILE, measured.model_dump_json(indent=1) + "\n")
    context.progress.say(f"    {label}, {source.key}: {evaluation.summary()}")


def _file_jobs(recipe: Recipe) -> list[Job]:
    """One job for each setting: its verified model files."""
    settings = _FileSettings(export=recipe.export)
    return [
        Job(
            _files_job(label),
            "sweep",
            settings,
            (needed,),
            lambda context, label=label: _write_files(context, label),  # type: ignore[misc]
            {},
        )
        for label, needed in {FP32: PRETRAIN, **artifact_jobs(recipe)}.items()
    ]


def _write_files(context: JobContext, label: str) -> None:
    # The converters take seconds to import; a sweep with all its files in place does without.
    from exporters.export import ExportRequest, export_artifact

    settings = context.recipe.export
    artifact = _artifact(context.recipe, context.needs, label)
    exported: list[ExportedFile] = []
    with context.progress.task(f"export {label}", len(settings.formats)) as task:
        for file_format in settings.formats:
            request = ExportRequest(artifact, label, file_format, "stock" if label == FP32 else "voxpress")
            exported.append(export_artifact(request, context.folder, max_seconds=settings.max_seconds))
            task.advance()
    write_export_list(context.folder, exported)


def _artifact(recipe: Recipe, folders: Mapping[str, Path], label: str) -> LoadedArtifact:
    """A setting's artifact; `folders` by job."""
    if label == FP32:
        return fp32_artifact(read_pretrained(folders[PRETRAIN]))
    return read_artifact(folders[artifact_jobs(recipe)[label]])


def _check_same_trials(runs: Sequence[_SeedRun]) -> None:
    """Differences are paired and pooled over seeds; that takes the same trials, in the same order."""
    wanted = heldout_trials(runs[0].folder / CORPUS)
    for run in runs[1:]:
        path = run.folder / CORPUS / TRIALS_FILE
        if heldout_trials(run.folder / CORPUS) != wanted:
            raise InputError(path, expected=f"the trials of {runs[0].folder.name}", found="others")


def _subject(runs: Sequence[_SeedRun], corpus_folder: Path | None) -> SweepSubject:
    recipe = runs[0].recipe
    steps = {family: _finetune_steps(runs[0], family) for family in ("uniform", "mixed", "msft")}
    notes = []
    if corpus_folder is None:
        notes.append("the voices are synthetic: they say nothing about real speech")
    if len(set(steps.values())) > 1:
        counts = ", ".join(f"{family} {count}" for family, count in steps.items())
        notes.append(f"fine-tuning steps differ ({counts}), and so do networks for that reason alone")
    if any(steps.values()):
        notes.append("fp32 is the pre-trained network; fine-tuning trains it on, which may lower the EER by itself")
    return SweepSubject(
        title=f"{recipe.name}: {recipe.model.name} at all settings",
        recipe=recipe.model_dump(mode="json"),
        tools=tool_versions(),
        seeds=[run.recipe.seed for run in runs],
        notes=notes,
    )


def _finetune_steps(run: _SeedRun, family: Family) -> int:
    """Steps of fine-tuning of a setting of this family, over all groups."""
    recipe = run.recipe
    if family in ("msft", "other order") and recipe.msft is not None:
        groups = min(recipe.msft.groups, len(lower(read_pretrained(run.folder / PRETRAIN).network).layers))
        return groups * recipe.msft.finetune.steps
    steps = {"uniform": recipe.uniform.finetune, "mixed": recipe.mixed.finetune, "binary": recipe.binary.finetune}
    return steps[family].steps if family in steps else 0


def _measured(runs: Sequence[_SeedRun], label: str, family: Family, keys: Sequence[str]) -> MeasuredSetting:
    sizes = []
    for run in runs:
        folders = {job: run.folder / job for job in (PRETRAIN, *artifact_jobs(run.recipe).values())}
        artifact = _artifact(run.recipe, folders, label)
        sizes.append(
            Size(
                seed=run.recipe.seed,
                bits_per_weight=artifact.bits_per_weight,
                artifact_bytes=artifact.weights_bytes,
            )
        )
    files: dict[ModelFormat, int] = {
        exported.format: exported.bytes for exported in read_export_list(runs[0].folder / _files_job(label))
    }
    return MeasuredSetting(
        label=label,
        family=family,
        finetune_steps=_finetune_steps(runs[0], family),
        sizes=sizes,
        file_bytes=files,
        measurements={key: [_read_measurement(run, key, label) for run in runs] for key in keys},
    )


def _read_measurement(run: _SeedRun, key: str, label: str) -> Measurement:
    folder = run.folder / _measured_job(key, label)
    measured = read_json(folder / MEASUREMENT_FILE, _Measured, what="a sweep's measurement")
    result = SeedResult(
        seed=run.recipe.seed,
        evaluation=measured.evaluation,
        cosine_mean=measured.cosine_mean,
        cosine_min=measured.cosine_min,
    )
    return Measurement(result, np.asarray(safetensors.numpy.load_file(folder / BOOTSTRAP_FILE)["eer"], np.float64))


def _layers(runs: Sequence[_SeedRun]) -> list[LayerFigures]:
    """The layers in execution order, with what each seed's allocation weighed and chose; none without plans."""
    if not mixed.plan_labels(runs[0].recipe):
        return []
    nodes = [layer.node for layer in lower(read_pretrained(runs[0].folder / PRETRAIN).network).layers]
    measured = [mixed.read_sensitivity(run.folder / mixed.SENSITIVITY_JOB) for run in runs]
    plans = {
        f"mixed-{label}": [read_plan(run.folder / mixed.plan_job(label) / PLAN_FILE, nodes).layers for run in runs]
        for label in mixed.plan_labels(runs[0].recipe)
    }
    return [
        LayerFigures(
            name=node.name,
            weights=node.weight_count,
            trace=tuple(one.trace[node.name] for one in measured),
            penalty={
                bits: tuple(one.trace[node.name] * one.squared_error[node.name][bits] for one in measured)
                for bits in measured[0].squared_error[node.name]
            },
            widths={label: tuple(widths[node.name] for widths in seeds) for label, seeds in plans.items()},
        )
        for node in nodes
    ]
