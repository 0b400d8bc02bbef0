"""Stage `uniform`: k-means palettes of the same width in every layer, post-training or fine-tuned (KMQAT)."""

from __future__ import annotations

import copy

from pydantic import BaseModel

from pipeline.models.store import read_pretrained
from pipeline.quantize.apply import attach_palettes
from pipeline.recipe import Recipe, UniformSettings
from pipeline.stages.job import Job, JobContext
from pipeline.stages.pressing import check_kept, press_at_once, widths_of_all
from pipeline.stages.pretrain import JOB as PRETRAIN
from pipeline.stages.training_data import training_inputs


class _Settings(BaseModel):
    bits: int
    uniform: UniformSettings
    seed: int


def artifacts(recipe: Recipe) -> dict[str, str]:
    """The stage's artifacts: label -> job."""
    return {f"{bits}bit": f"uniform/{bits}bit" for bits in recipe.uniform.bits}


def jobs(recipe: Recipe) -> list[Job]:
    """One job for each width. Raises InputError if keep_fp32 names an unknown layer."""
    check_kept(recipe, "uniform", recipe.uniform.keep_fp32)
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
    press_at_once(
        context,
        network,
        pretrained,
        settings.finetune,
        palette_every=settings.palette_every,
        label=f"{bits}bit",
    )
