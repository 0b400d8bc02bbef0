"""Stage `mixed`: each layer its own width, chosen by Hessian sensitivity under a byte budget, or given in a plan.

Jobs: `sensitivity` (once), `plan/<label>` for each budget or given plan, `mixed/<label>` for each plan.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path

import torch
from pydantic import BaseModel, ConfigDict, TypeAdapter

from calibration.plan import (
    PLAN_FILE,
    check_budget,
    described_plan,
    make_plan,
    read_plan,
    rounding_errors,
    uniform_bytes,
    write_plan,
)
from calibration.sensitivity import mean_hessian_traces
from pipeline.files import read_json, sha256_file, write_atomically
from pipeline.models.network import lower
from pipeline.models.size import layer_nodes
from pipeline.models.store import PretrainedModel, read_pretrained
from pipeline.quantize.apply import attach_palettes
from pipeline.recipe import MixedSettings, Recipe, SensitivitySettings
from pipeline.stages.corpus import JOB as CORPUS
from pipeline.stages.job import Job, JobContext
from pipeline.stages.pressing import press_at_once
from pipeline.stages.pretrain import JOB as PRETRAIN
from pipeline.stages.training_data import clean_crops, training_inputs

SENSITIVITY_JOB = "sensitivity"
SENSITIVITY_FILE = "sensitivity.json"


class Sensitivity(BaseModel):
    """What the allocation weighs: penalty[layer][bits] = trace[layer] * squared_error[layer][bits]."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trace: dict[str, float]  # mean Hessian trace
    squared_error: dict[str, dict[int, float]]  # ||Q_b(W) - W||^2


class _SensitivitySettings(BaseModel):
    sensitivity: SensitivitySettings
    seed: int


class _PlanSettings(BaseModel):
    average_bits: float | None = None
    budget_bytes: int | None = None


class _Settings(BaseModel):
    mixed: MixedSettings
    seed: int


def plan_labels(recipe: Recipe) -> dict[str, _PlanSettings | Path]:
    """Every plan of a recipe: its label, and what it is made from."""
    mixed = recipe.mixed
    labels: dict[str, _PlanSettings | Path] = {
        f"{bits:g}bit": _PlanSettings(average_bits=bits) for bits in mixed.average_bits
    }
    labels |= {f"{budget}bytes": _PlanSettings(budget_bytes=budget) for budget in mixed.budget_bytes}
    return labels | {Path(plan).stem: Path(plan) for plan in mixed.plans}


def plan_job(label: str) -> str:
    """Folder of a plan."""
    return f"plan/{label}"


def artifacts(recipe: Recipe) -> dict[str, str]:
    """The stage's artifacts: label -> job."""
    return {f"mixed-{label}": f"mixed/{label}" for label in plan_labels(recipe)}


def jobs(recipe: Recipe) -> list[Job]:
    """Sensitivity, then a plan and an artifact for each budget or given plan; nothing if the recipe asks for none.

    Raises InputError for a budget below 1 bit in every layer and for a bad plan, before anything is trained.
    """
    labels = plan_labels(recipe)
    if not labels:
        return []
    nodes = layer_nodes(recipe.model)
    for budget in recipe.mixed.budget_bytes:
        check_budget(nodes, budget)
    for path in recipe.mixed.plans:
        read_plan(Path(path), nodes)
    done = [
        Job(
            SENSITIVITY_JOB,
            "mixed",
            _SensitivitySettings(sensitivity=recipe.mixed.sensitivity, seed=recipe.seed),
            (CORPUS, PRETRAIN),
            _measure,
            {},
        )
    ]
    for label, source in labels.items():
        if isinstance(source, Path):
            sources = {"plan": sha256_file(source)}
            settings, needs = _PlanSettings(), (PRETRAIN,)
        else:
            sources, settings, needs = {}, source, (PRETRAIN, SENSITIVITY_JOB)  # type: ignore[assignment]
        done.append(
            Job(
                plan_job(label),
                "mixed",
                settings,
                needs,
                lambda context, source=source: _plan(context, source),  # type: ignore[misc]
                sources,
            )
        )
    alone = recipe.mixed.model_copy(update={"average_bits": (), "budget_bytes": (), "plans": ()})
    return done + [
        Job(
            f"mixed/{label}",
            "mixed",
            _Settings(mixed=alone, seed=recipe.seed),
            (*training_inputs(recipe), PRETRAIN, plan_job(label)),
            lambda context, label=label: _run(context, label),  # type: ignore[misc]
            {},
            trains=recipe.mixed.finetune.steps > 0,
        )
        for label in labels
    ]


def read_sensitivity(folder: Path) -> Sensitivity:
    """What the sensitivity job measured."""
    return read_json(folder / SENSITIVITY_FILE, Sensitivity, what="layer sensitivities")


def planned_widths(context: JobContext, label: str, pretrained: PretrainedModel) -> Mapping[str, int]:
    """The widths of a plan of this run."""
    nodes = [layer.node for layer in lower(pretrained.network).layers]
    return read_plan(context.needs[plan_job(label)] / PLAN_FILE, nodes).layers


def _measure(context: JobContext) -> None:
    settings = context.recipe.mixed.sensitivity
    pretrained = read_pretrained(context.needs[PRETRAIN])
    data = clean_crops(context, settings.crop_frames)
    crops: list[torch.Tensor] = [data[index][0] for index in range(settings.crops)]
    with context.progress.task("sensitivity", settings.crops * settings.probes) as task:
        traces = mean_hessian_traces(
            pretrained.network, crops, probes=settings.probes, seed=context.recipe.seed, progress=task.advance
        )
    errors = rounding_errors(lower(pretrained.network).layers)
    text = TypeAdapter(Sensitivity).dump_json(Sensitivity(trace=traces, squared_error=errors), indent=1)
    write_atomically(context.folder / SENSITIVITY_FILE, text)


def _plan(context: JobContext, source: _PlanSettings | Path) -> None:
    pretrained = read_pretrained(context.needs[PRETRAIN])
    nodes = [layer.node for layer in lower(pretrained.network).layers]
    if isinstance(source, Path):
        plan = described_plan(nodes, read_plan(source, nodes).layers, None)
    else:
        sensitivity = read_sensitivity(context.needs[SENSITIVITY_JOB])
        budget = source.budget_bytes
        if source.average_bits is not None:
            budget = uniform_bytes(nodes, source.average_bits)
        plan = make_plan(nodes, sensitivity.trace, sensitivity.squared_error, budget or 0)
    write_plan(context.folder, plan)
    context.progress.say(f"    {plan.bytes} bytes, {plan.average_bits:.2f} bits per weight on average")


def _run(context: JobContext, label: str) -> None:
    settings, pretrained = context.recipe.mixed, read_pretrained(context.needs[PRETRAIN])
    network = copy.deepcopy(pretrained.network)
    attach_palettes(network, planned_widths(context, label, pretrained))
    press_at_once(
        context,
        network,
        pretrained,
        settings.finetune,
        palette_every=settings.palette_every,
        label=f"mixed-{label}",
    )
