"""Stage `msft`: multi-stage fine-tuning of a mixed plan, one group of layers after the other.

Layers of the groups done so far are quantized, their palettes still adapting; the rest stay fp32 until their turn.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping, Sequence

from pydantic import BaseModel

from pipeline.errors import InputError
from pipeline.models.network import lower
from pipeline.models.store import read_pretrained
from pipeline.quantize.apply import activate_palettes, attach_palettes
from pipeline.recipe import MsftSettings, Order, Recipe
from pipeline.stages.job import Job, JobContext
from pipeline.stages.mixed import SENSITIVITY_JOB, Sensitivity, plan_job, plan_labels, planned_widths, read_sensitivity
from pipeline.stages.pressing import crops_and_classifier, finetune, finish
from pipeline.stages.pretrain import JOB as PRETRAIN
from pipeline.stages.training_data import training_inputs


class _Settings(BaseModel):
    msft: MsftSettings
    seed: int


def artifacts(recipe: Recipe) -> dict[str, str]:
    """The stage's artifacts: label -> job."""
    return {f"msft-{variant}": f"msft/{variant}" for variant in _variants(recipe)}


def jobs(recipe: Recipe) -> list[Job]:
    """One job for each plan of the recipe, and for each order that it compares, if it has a section [msft]."""
    return [
        Job(
            f"msft/{variant}",
            "msft",
            _Settings(msft=settings, seed=recipe.seed),
            (*training_inputs(recipe), PRETRAIN, SENSITIVITY_JOB, plan_job(label)),
            lambda context, label=label, variant=variant, settings=settings: _run(context, label, variant, settings),  # type: ignore[misc]
            {},
            trains=True,
        )
        for variant, (label, settings) in _variants(recipe).items()
    ]


def compared_artifacts(recipe: Recipe) -> dict[Order, str]:
    """Labels of the artifacts that differ in the order of layers alone; none if the recipe compares no orders."""
    settings = recipe.msft
    if settings is None or not settings.compare_orders:
        return {}
    others = {order: f"msft-{settings.compare_plan}-{order}" for order in settings.compare_orders}
    return {settings.order: f"msft-{settings.compare_plan}", **others}


def _variants(recipe: Recipe) -> dict[str, tuple[str, MsftSettings]]:
    """Plan and settings of every artifact, by the name of its job.

    Raises InputError if orders are to be compared on a plan that the recipe does not make.
    """
    settings = recipe.msft
    if settings is None:
        return {}
    # The orders compared beside this one do not change its artifact.
    alone = settings.model_copy(update={"compare_orders": (), "compare_plan": ""})
    variants = {label: (label, alone) for label in plan_labels(recipe)}
    if settings.compare_orders and settings.compare_plan not in variants:
        expected = f"a plan of [mixed]: {', '.join(variants)}"
        raise InputError("msft.compare_plan", expected=expected, found=settings.compare_plan)
    for order in settings.compare_orders:
        name = f"{settings.compare_plan}-{order}"
        variants[name] = (settings.compare_plan, alone.model_copy(update={"order": order}))
    return variants


def layer_order(widths: Mapping[str, int], order: Order, sensitivity: Sensitivity) -> list[str]:
    """The layers in the order of their turns.

    `widths` comes in execution order. Sensitivity is trace times squared error at the planned width, per weight of no
    account: the layers whose rounding hurts most come first ("descending") or last ("ascending").
    """
    names = list(widths)
    if order == "front-to-back":
        return names
    if order == "back-to-front":
        return names[::-1]

    def penalty(name: str) -> float:
        return sensitivity.trace[name] * sensitivity.squared_error[name][widths[name]]

    return sorted(names, key=penalty, reverse=order == "sensitivity-descending")


def split_groups(names: Sequence[str], count: int) -> list[list[str]]:
    """At most `count` groups of neighbours, as equal in number of layers as possible."""
    count = min(count, len(names))
    bounds = [round(index * len(names) / count) for index in range(count + 1)]
    return [list(names[first:last]) for first, last in itertools.pairwise(bounds)]


def _run(context: JobContext, label: str, variant: str, settings: MsftSettings) -> None:
    pretrained = read_pretrained(context.needs[PRETRAIN])
    network = copy.deepcopy(pretrained.network)
    planned = planned_widths(context, label, pretrained)
    execution_order = [layer.node.name for layer in lower(pretrained.network).layers]
    widths = {name: planned[name] for name in execution_order}
    sensitivity = read_sensitivity(context.needs[SENSITIVITY_JOB])
    groups = split_groups(layer_order(widths, settings.order, sensitivity), settings.groups)
    attach_palettes(network, widths, active=False)
    activate_palettes(network, groups[0])

    def next_turn(step: int) -> None:
        turn, into = divmod(step + 1, settings.finetune.steps)
        if into == 0 and turn < len(groups):
            activate_palettes(network, groups[turn])

    # One training run over all turns, each with the whole course of the rate: the last group, which is quantized last,
    # would have nothing left of a rate that decays but once. Crops and moments of the optimizer go on.
    all_turns = settings.finetune.model_copy(
        update={"steps": len(groups) * settings.finetune.steps, "rate_cycles": len(groups)}
    )
    data, head = crops_and_classifier(context, pretrained, all_turns)
    history = finetune(
        context,
        network,
        pretrained,
        all_turns,
        data=data,
        head=head,
        palette_every=settings.palette_every,
        label=f"msft {variant}",
        work=context.work,
        every_step=next_turn,
    )
    finish(context, network, pretrained, f"msft-{variant}", history)
