"""Stage `uniform`: k-means palettes of the same width in every layer, post-training or fine-tuned (KMQAT)."""

from __future__ import annotations

import copy

from pydantic import BaseModel

from pipeline.models.store import read_pretrained
from pipeline.quantize.apply import attach_palettes
from pipeline.recipe import Recipe, UniformSettings
from pipeline.stages.job import Job, JobContext
from pipeline.stages.pressing import crops_and_classifier, finetune, finish, recalibrate, widths_of_all
from pipeline.stages.pretrain import JOB as PRETRAIN
from pipeline.stages.training_data import training_inputs
from pipeline.training.loop import History


class _Settings(BaseModel):
    bits: int
    uniform: UniformSettings
    seed: int


def artifacts(recipe: Recipe) -> dict[str, str]:
    """The stage's artifacts: label -> job."""
    return {f"{bits}bit": f"uniform/{bits}bit" for bits in recipe.uniform.bits}


def jobs(recipe: Recipe) -> list[Job]:
    """One job for each width."""
    # The widths asked for beside this one do not change its artifact.
    alone = recipe.uniform.model_copy(update={"bits": ()})
    return [
        Job(
            f"uniform/{bits}bit",
            "uniform",
            _Settings(bits=bits, uniform=alone, seed=recipe.seed),
            (*training_inputs(recipe), PRETRAIN),
            lambda context, bits=bits: _run(context, bits),  # type: ignore[misc]
            {},
            trains=recipe.uniform.finetune.steps > 0,
        )
        for bits in recipe.uniform.bits
    ]


def _run(context: JobContext, bits: int) -> None:
    settings, pretrained = context.recipe.uniform, read_pretrained(context.needs[PRETRAIN])
    network = copy.deepcopy(pretrained.network)
    attach_palettes(network, widths_of_all(network, bits, settings.keep_fp32))
    history: History = []
    if settings.finetune.steps:
        data, head = crops_and_classifier(context, pretrained, settings.finetune)
        history = finetune(
            context,
            network,
            pretrained,
            settings.finetune,
            data=data,
            head=head,
            palette_every=settings.palette_every,
            label=f"fine-tune {bits} bit",
            work=context.work,
        )
    else:
        recalibrate(context, network)
    finish(context, network, pretrained, f"{bits}bit", history)
