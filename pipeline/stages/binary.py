"""Stage `binary`: one bit per weight; a layer's two values are fixed (sign), tied (static) or free (adaptive)."""

from __future__ import annotations

import copy

from pydantic import BaseModel

from pipeline.models.store import read_pretrained
from pipeline.quantize.apply import Rule, attach_palettes
from pipeline.recipe import BinarySettings, Recipe
from pipeline.stages.job import Job, JobContext
from pipeline.stages.pressing import check_kept, press_at_once, widths_of_all
from pipeline.stages.pretrain import JOB as PRETRAIN
from pipeline.stages.training_data import training_inputs

_RULES: dict[str, Rule] = {"adaptive": "kmeans", "static": "static", "sign": "sign"}


class _Settings(BaseModel):
    quantizer: str
    binary: BinarySettings
    seed: int


def artifacts(recipe: Recipe) -> dict[str, str]:
    """The stage's artifacts: label -> job."""
    return {f"1bit-{quantizer}": f"binary/{quantizer}" for quantizer in recipe.binary.quantizers}


def jobs(recipe: Recipe) -> list[Job]:
    """One job for each quantizer. Raises InputError if keep_fp32 names an unknown layer."""
    check_kept(recipe, "binary", recipe.binary.keep_fp32)
    alone = recipe.binary.model_copy(update={"quantizers": ()})
    return [
        Job(
            f"binary/{quantizer}",
            "binary",
            _Settings(quantizer=quantizer, binary=alone, seed=recipe.seed),
            (*training_inputs(recipe), PRETRAIN),
            lambda context, quantizer=quantizer: _run(context, quantizer),  # type: ignore[misc]
            {},
            trains=recipe.binary.finetune.steps > 0,
        )
        for quantizer in recipe.binary.quantizers
    ]


def _run(context: JobContext, quantizer: str) -> None:
    settings, pretrained = context.recipe.binary, read_pretrained(context.needs[PRETRAIN])
    network = copy.deepcopy(pretrained.network)
    attach_palettes(network, widths_of_all(network, 1, settings.keep_fp32), _RULES[quantizer])
    press_at_once(
        context,
        network,
        pretrained,
        settings.finetune,
        palette_every=settings.palette_every,
        label=f"1bit-{quantizer}",
    )
