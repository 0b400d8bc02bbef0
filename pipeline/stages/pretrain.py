"""Stage `pretrain`: an fp32 network trained with AAM-softmax on random crops of the training utterances."""

from __future__ import annotations

import json

import torch
from pydantic import BaseModel

from pipeline.features.spec import FrontEndSpec
from pipeline.models.registry import build_model
from pipeline.models.spec import ModelSpec
from pipeline.models.store import ModelHeader, write_pretrained
from pipeline.recipe import Recipe
from pipeline.stages.corpus import JOB as CORPUS
from pipeline.stages.heldout import evaluate_heldout
from pipeline.stages.job import Job, JobContext
from pipeline.stages.training_data import training_crops, training_inputs
from pipeline.stamp import tool_versions
from pipeline.training.aam import AamSoftmax
from pipeline.training.loop import train
from pipeline.training.settings import TrainingSettings

JOB = "pretrain"


class _Settings(BaseModel):
    frontend: FrontEndSpec
    model: ModelSpec
    pretrain: TrainingSettings
    seed: int


def jobs(recipe: Recipe) -> list[Job]:
    """One job."""
    settings = _Settings(frontend=recipe.frontend, model=recipe.model, pretrain=recipe.pretrain, seed=recipe.seed)
    return [Job(JOB, "pretrain", settings, training_inputs(recipe), _run, {}, trains=True)]


def _run(context: JobContext) -> None:
    recipe, corpus = context.recipe, context.needs[CORPUS]
    data, speakers = training_crops(context, recipe.pretrain)
    torch.manual_seed(recipe.seed)
    network = build_model(recipe.model)
    head = AamSoftmax(recipe.model.embedding_dim, len(speakers), recipe.pretrain.scale)
    history = train(
        network,
        head,
        data,
        recipe.pretrain,
        work=context.work,
        seed=recipe.seed,
        label="pretrain",
        progress=context.progress,
    )
    if not context.leads:
        return
    evaluation = evaluate_heldout(network.eval(), corpus, recipe.frontend, context.progress, "evaluate fp32")
    context.progress.say(f"    fp32: {evaluation.summary()}")
    header = ModelHeader(
        spec=recipe.model, speakers=tuple(speakers), created_by=f"voxpress {tool_versions()['voxpress']}"
    )
    write_pretrained(context.folder, header, network, recipe.frontend, head.weight)
    (context.folder / "history.json").write_text(json.dumps(history) + "\n", encoding="utf-8")
    (context.folder / "evaluation.json").write_text(evaluation.model_dump_json(indent=1) + "\n", encoding="utf-8")
