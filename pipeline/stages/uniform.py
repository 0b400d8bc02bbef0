"""Stage `uniform`: k-means palettes of the same width in every layer, post-training or fine-tuned (KMQAT)."""

from __future__ import annotations

import copy
import json

from pydantic import BaseModel
from torch import nn

from pipeline.artifact.decode import decode
from pipeline.artifact.store import read_artifact, write_artifact
from pipeline.errors import InputError
from pipeline.models.store import PretrainedModel, read_pretrained
from pipeline.quantize.apply import attach_palettes, follow_weights, press, weight_layers
from pipeline.recipe import Recipe, UniformSettings
from pipeline.stages.corpus import JOB as CORPUS
from pipeline.stages.heldout import evaluate_heldout
from pipeline.stages.job import Job, JobContext
from pipeline.stages.pretrain import JOB as PRETRAIN
from pipeline.stages.training_data import training_crops
from pipeline.stamp import tool_versions
from pipeline.training.aam import AamSoftmax
from pipeline.training.loop import History, train


class _Settings(BaseModel):
    bits: int
    uniform: UniformSettings
    seed: int


def job_name(bits: int) -> str:
    """Folder of the artifact of one width."""
    return f"uniform/{bits}bit"


def jobs(recipe: Recipe) -> list[Job]:
    """One job for each width."""
    # The widths asked for beside this one do not change its artifact.
    alone = recipe.uniform.model_copy(update={"bits": ()})
    return [
        Job(
            job_name(bits),
            "uniform",
            _Settings(bits=bits, uniform=alone, seed=recipe.seed),
            (CORPUS, PRETRAIN),
            lambda context, bits=bits: _run(context, bits),  # type: ignore[misc]
            {},
        )
        for bits in recipe.uniform.bits
    ]


def _run(context: JobContext, bits: int) -> None:
    recipe = context.recipe
    pretrained = read_pretrained(context.needs[PRETRAIN])
    network = copy.deepcopy(pretrained.network)
    attach_palettes(network, layer_widths(network, bits, recipe.uniform.keep_fp32))
    history = _finetune(context, network, pretrained, bits)
    artifact = press(
        network,
        name=f"{pretrained.header.spec.name}-{bits}bit",
        architecture=pretrained.header.spec.architecture,
        frontend=pretrained.frontend,
        created_by=f"voxpress {tool_versions()['voxpress']}",
        source_sha256=pretrained.sha256,
    )
    write_artifact(context.folder, artifact)
    # What was written is evaluated, not what was in memory.
    reference = decode(read_artifact(context.folder))
    evaluation = evaluate_heldout(
        reference, context.needs[CORPUS], pretrained.frontend, context.progress, f"evaluate {bits} bit"
    )
    context.progress.say(f"    {bits} bit: {evaluation.summary()}, {artifact.weights_bytes} bytes")
    (context.folder / "history.json").write_text(json.dumps(history) + "\n", encoding="utf-8")
    (context.folder / "evaluation.json").write_text(evaluation.model_dump_json(indent=1) + "\n", encoding="utf-8")


def layer_widths(network: nn.Module, bits: int, keep_fp32: tuple[str, ...]) -> dict[str, int]:
    """The same width for every layer but those kept in fp32. Raises InputError for a name that is no layer."""
    layers = weight_layers(network)
    for name in keep_fp32:
        if name not in layers:
            raise InputError("uniform.keep_fp32", expected=f"layers among {', '.join(layers)}", found=name)
    return {name: bits for name in layers if name not in keep_fp32}


def _finetune(context: JobContext, network: nn.Module, pretrained: PretrainedModel, bits: int) -> History:
    settings = context.recipe.uniform.finetune
    if settings.steps == 0:
        return []
    if pretrained.head is None:
        raise InputError(
            context.needs[PRETRAIN],
            expected="a model with its classifier, to fine-tune it",
            found="no head.safetensors",
        )
    data, speakers = training_crops(context, settings)
    if speakers != list(pretrained.header.speakers):
        raise InputError(
            context.needs[PRETRAIN],
            expected=f"the corpus's {len(speakers)} training speakers",
            found=f"a classifier over {len(pretrained.header.speakers)} speakers, not the same",
        )
    head = AamSoftmax(pretrained.header.spec.embedding_dim, len(speakers), settings.scale)
    head.weight.data.copy_(pretrained.head)

    def follow(step: int) -> None:
        if (step + 1) % context.recipe.uniform.palette_every == 0:
            follow_weights(network)

    return train(
        network,
        head,
        data,
        settings,
        work=context.work,
        seed=context.recipe.seed,
        label=f"fine-tune {bits} bit",
        progress=context.progress,
        teacher=pretrained.network if settings.distillation > 0 else None,
        every_step=follow,
    )
