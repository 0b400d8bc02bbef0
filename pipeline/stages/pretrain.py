"""Stage `pretrain`: an fp32 network trained with AAM-softmax on random crops of the training utterances.

Or a model that is there already, by a toolkit's checkpoint or an earlier run; it is evaluated like a trained one.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from pydantic import BaseModel
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.features.spec import FILE_NAME as FRONTEND_FILE
from pipeline.features.spec import FrontEndSpec
from pipeline.files import sha256_file
from pipeline.models.registry import build_model
from pipeline.models.spec import ModelSpec
from pipeline.models.store import (
    HEADER_FILE,
    ModelHeader,
    PretrainedModel,
    model_files,
    read_pretrained,
    write_pretrained,
)
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


class _TakenSettings(BaseModel):
    frontend: FrontEndSpec
    model: ModelSpec


def jobs(recipe: Recipe, pretrained: Path | None = None) -> list[Job]:
    """One job: training, or taking the model in the folder `pretrained`.

    Raises InputError if that folder holds no whole model, or one that is not the recipe's.
    """
    if pretrained is not None:
        # Before any work is done: the files are read once more when their turn comes.
        _check_agreement(recipe, pretrained, read_pretrained(pretrained))
        taken = _TakenSettings(frontend=recipe.frontend, model=recipe.model)
        sources = {"pretrained": _fingerprint(pretrained)}
        return [Job(JOB, "pretrain", taken, (CORPUS,), lambda context: _take(context, pretrained), sources)]
    settings = _Settings(frontend=recipe.frontend, model=recipe.model, pretrain=recipe.pretrain, seed=recipe.seed)
    return [Job(JOB, "pretrain", settings, training_inputs(recipe), _train, {}, trains=True)]


def _take(context: JobContext, pretrained: Path) -> None:
    model = read_pretrained(pretrained)
    _finish(context, model.header, model.network, model.head)


def _train(context: JobContext) -> None:
    recipe = context.recipe
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
    header = ModelHeader(
        spec=recipe.model, speakers=tuple(speakers), created_by=f"voxpress {tool_versions()['voxpress']}"
    )
    _finish(context, header, network.eval(), head.weight)
    (context.folder / "history.json").write_text(json.dumps(history) + "\n", encoding="utf-8")


def _finish(context: JobContext, header: ModelHeader, network: nn.Module, head: Tensor | None) -> None:
    """Evaluate the network on the held-out trials and write it with the result."""
    frontend = context.recipe.frontend
    evaluation = evaluate_heldout(network, context.needs[CORPUS], frontend, context.progress, "evaluate fp32")
    context.progress.say(f"    fp32: {evaluation.summary()}")
    write_pretrained(context.folder, header, network, frontend, head)
    (context.folder / "evaluation.json").write_text(evaluation.model_dump_json(indent=1) + "\n", encoding="utf-8")


def _check_agreement(recipe: Recipe, folder: Path, model: PretrainedModel) -> None:
    """Raise InputError for the first setting in which a model differs from the recipe."""
    pairs: list[tuple[str, str, BaseModel, BaseModel]] = [
        (HEADER_FILE, "model", recipe.model, model.header.spec),
        (FRONTEND_FILE, "frontend", recipe.frontend, model.frontend),
    ]
    for file, section, wanted, found in pairs:
        there = found.model_dump()
        for key, value in wanted.model_dump().items():
            if there[key] != value:
                asked = f"{key} {value}, as the recipe's [{section}] says"
                raise InputError(folder / file, expected=asked, found=str(there[key]))


def _fingerprint(folder: Path) -> str:
    """Hash of a model's files: a changed model is taken again, a moved one is not."""
    return hashlib.sha256("".join(sha256_file(path) for path in model_files(folder)).encode()).hexdigest()
