"""What the stages that press a network share: fine-tuning with palettes on, writing and evaluating the artifact."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from torch import nn

from calibration.norms import recalibrate_norms
from pipeline.artifact.decode import decode
from pipeline.artifact.store import read_artifact, write_artifact
from pipeline.errors import InputError
from pipeline.models.size import layer_nodes
from pipeline.models.store import PretrainedModel
from pipeline.quantize.apply import follow_weights, press, weight_layers
from pipeline.recipe import Recipe
from pipeline.stages.corpus import JOB as CORPUS
from pipeline.stages.heldout import evaluate_heldout
from pipeline.stages.job import JobContext
from pipeline.stages.pretrain import JOB as PRETRAIN
from pipeline.stages.training_data import clean_crops, training_crops
from pipeline.stamp import tool_versions
from pipeline.training.aam import AamSoftmax
from pipeline.training.crops import CropDataset
from pipeline.training.loop import History, train
from pipeline.training.settings import TrainingSettings

RECALIBRATION_CROPS = 64
RECALIBRATION_FRAMES = 200


def widths_of_all(network: nn.Module, bits: int, keep_fp32: tuple[str, ...] = ()) -> dict[str, int]:
    """The same width for every layer but those kept in fp32."""
    return {name: bits for name in weight_layers(network) if name not in keep_fp32}


def check_kept(recipe: Recipe, section: str, keep_fp32: tuple[str, ...]) -> None:
    """Raise InputError for a layer that a section of the recipe keeps in fp32 and the network does not have."""
    names = [node.name for node in layer_nodes(recipe.model)] if keep_fp32 else []
    for name in keep_fp32:
        if name not in names:
            raise InputError(f"{section}.keep_fp32", expected=f"layers among {', '.join(names)}", found=name)


def crops_and_classifier(
    context: JobContext, pretrained: PretrainedModel, settings: TrainingSettings
) -> tuple[CropDataset, AamSoftmax]:
    """Crops to fine-tune on and the classifier that pre-training ended with.

    Raises InputError if the model came without one or has one over other speakers than the corpus's.
    """
    folder = context.needs[PRETRAIN]
    if pretrained.head is None:
        expected = "a model with its classifier, to fine-tune it (or finetune.steps = 0)"
        raise InputError(folder, expected=expected, found="no head.safetensors")
    data, speakers = training_crops(context, settings)
    if speakers != list(pretrained.header.speakers):
        raise InputError(
            folder,
            expected=f"a classifier over the corpus's {len(speakers)} training speakers",
            found=f"one over {len(pretrained.header.speakers)} speakers, not the same",
        )
    head = AamSoftmax(pretrained.header.spec.embedding_dim, len(speakers), settings.scale)
    head.weight.data.copy_(pretrained.head)
    return data, head


def finetune(
    context: JobContext,
    network: nn.Module,
    pretrained: PretrainedModel,
    settings: TrainingSettings,
    *,
    data: CropDataset,
    head: AamSoftmax,
    palette_every: int,
    label: str,
    work: Path,
    every_step: Callable[[int], None] = lambda step: None,
) -> History:
    """Train the network in place; its palettes take a step after the weights every `palette_every` steps, and then
    `every_step(step)` is called.
    """

    def follow(step: int) -> None:
        if (step + 1) % palette_every == 0:
            follow_weights(network)
        every_step(step)

    return train(
        network,
        head,
        data,
        settings,
        work=work,
        seed=context.recipe.seed,
        label=label,
        progress=context.progress,
        identity=context.identity,
        teacher=pretrained.network if settings.distillation > 0 else None,
        every_step=follow,
    )


def press_at_once(
    context: JobContext,
    network: nn.Module,
    pretrained: PretrainedModel,
    settings: TrainingSettings,
    *,
    palette_every: int,
    label: str,
) -> None:
    """Fine-tune a network with all its palettes on, then write its artifact.

    Without fine-tuning steps it gets batch-norm statistics of its own instead, from training crops.
    """
    history: History = []
    if settings.steps:
        data, head = crops_and_classifier(context, pretrained, settings)
        history = finetune(
            context,
            network,
            pretrained,
            settings,
            data=data,
            head=head,
            palette_every=palette_every,
            label=f"fine-tune {label}",
            work=context.work,
        )
    else:
        crops = clean_crops(context, RECALIBRATION_FRAMES)
        recalibrate_norms(network, [crops[index][0] for index in range(RECALIBRATION_CROPS)])
    finish(context, network, pretrained, label, history)


def finish(
    context: JobContext,
    network: nn.Module,
    pretrained: PretrainedModel,
    label: str,
    history: History,
) -> None:
    """Press the network, write the artifact, and evaluate what was written on the held-out trials: once, in the process
    that leads.
    """
    if not context.leads:
        return
    artifact = press(
        network,
        name=f"{pretrained.header.spec.name}-{label}",
        architecture=pretrained.header.spec.architecture,
        frontend=pretrained.frontend,
        created_by=f"voxpress {tool_versions()['voxpress']}",
        source_sha256=pretrained.sha256,
    )
    write_artifact(context.folder, artifact)
    reference = decode(read_artifact(context.folder))
    evaluation = evaluate_heldout(
        reference, context.needs[CORPUS], pretrained.frontend, context.progress, f"evaluate {label}"
    )
    context.progress.say(f"    {label}: {evaluation.summary()}, {artifact.weights_bytes} bytes")
    (context.folder / "history.json").write_text(json.dumps(history) + "\n", encoding="utf-8")
    (context.folder / "evaluation.json").write_text(evaluation.model_dump_json(indent=1) + "\n", encoding="utf-8")
