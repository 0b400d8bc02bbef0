"""The one training loop, for pre-training and for every kind of fine-tuning, on Lightning Fabric.

A killed run goes on from its last checkpoint and gives what an uninterrupted run gives: crops depend on the step alone
(see crops.py), and the checkpoint holds network, head, optimizer, palettes and averages. Several processes (torchrun)
give what one process with the same global batch gives, up to the order of floating-point sums.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from pipeline.errors import InputError, VoxPressError
from pipeline.progress import Progress
from pipeline.training.aam import AamSoftmax
from pipeline.training.average import MovingAverage
from pipeline.training.batch_norm import freeze_statistics, statistics_of_all_processes
from pipeline.training.crops import CropDataset, StepSampler
from pipeline.training.processes import make_fabric
from pipeline.training.settings import TrainingSettings

CHECKPOINT_FILE = "checkpoint.pt"
HISTORY_EVERY = 10

History = list[dict[str, float]]


class Trainee(nn.Module):
    """Network and head as one module, so that data-parallel wrapping sees a single forward."""

    def __init__(self, network: nn.Module, head: AamSoftmax) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, features: Tensor, labels: Tensor, margin: float) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, accuracy and embeddings of a batch."""
        embeddings = self.network(features)
        loss, accuracy = self.head(embeddings, labels, margin)
        return loss, accuracy, embeddings


def train(
    network: nn.Module,
    head: AamSoftmax,
    data: CropDataset,
    settings: TrainingSettings,
    *,
    work: Path,
    seed: int,
    label: str,
    progress: Progress,
    identity: str = "",
    teacher: nn.Module | None = None,
    every_step: Callable[[int], None] = lambda step: None,
) -> History:
    """Train `network` and `head` in place for `settings.steps` steps and return loss, accuracy and rate over time.

    Under torchrun every process calls this with the same arguments and ends with the same tensors; `settings.batch` is
    divided among them. `work` holds the checkpoint while the run lasts and must be one folder for all processes; a
    checkpoint of another `identity` (of what `every_step` does, or of the network to begin with) is not gone on from.
    `every_step(step)` is called after each update (palettes follow the weights there). `teacher`, if given, is the
    fp32 network whose embeddings the student is pulled towards. With `settings.ema_decay` network and head end as their
    moving average over the steps, else as the last step left them.

    Raises VoxPressError if the loss ceases to be finite.
    """
    if settings.steps == 0:
        return []
    fabric = make_fabric(settings.precision)
    if settings.batch % fabric.world_size:
        raise InputError(
            "batch", expected=f"a multiple of the {fabric.world_size} processes", found=str(settings.batch)
        )
    torch.manual_seed(seed)
    trainee = Trainee(network, head)
    module, optimizer = fabric.setup(trainee, _optimizer(trainee, settings))
    if teacher is not None:
        teacher = teacher.to(fabric.device).eval()
    work.mkdir(parents=True, exist_ok=True)
    fingerprint = _fingerprint(settings, seed, data, trainee, identity)
    average = MovingAverage(trainee, settings.ema_decay) if settings.ema_decay else None
    run = _Run(work / CHECKPOINT_FILE, fingerprint, trainee, optimizer, average)
    first_step, history = run.resume(fabric)
    sampler = StepSampler(first_step, settings.steps, settings.batch, fabric.global_rank, fabric.world_size)
    loader = DataLoader(data, batch_sampler=sampler, num_workers=settings.workers)
    trainee.train()
    if settings.frozen_statistics:
        freeze_statistics(network)
    saved = time.monotonic()
    with (
        statistics_of_all_processes(network, fabric.world_size),
        progress.task(label, settings.steps, done=first_step) as task,
    ):
        for step, (features, labels) in enumerate(loader, start=first_step):
            features, labels = features.to(fabric.device), labels.to(fabric.device)
            for group in optimizer.param_groups:
                group["lr"] = settings.lr_at(step)
            loss, accuracy, embeddings = module(features, labels, settings.margin_at(step))
            if teacher is not None and settings.distillation > 0:
                with torch.no_grad():
                    wanted = teacher(features)
                apart = 1.0 - functional.cosine_similarity(embeddings.float(), wanted.float()).mean()
                loss = loss + settings.distillation * apart
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(loss)
            optimizer.step()
            every_step(step)
            if average is not None:
                average.update(step)
            if step % HISTORY_EVERY == 0 or step + 1 == settings.steps:
                mean = fabric.all_reduce(torch.stack([loss.detach(), accuracy]), reduce_op="mean")
                point = {"step": step, "loss": float(mean[0]), "accuracy": float(mean[1]), "lr": settings.lr_at(step)}
                if not torch.isfinite(mean[0]):
                    raise VoxPressError(f"{label}: the loss is {float(mean[0])} at step {step}; lower lr in the recipe")
                history.append(point)
                task.note(f"loss {point['loss']:.3f} acc {point['accuracy']:.2f}")
            # The first process alone looks at its clock and writes; the others wait for it at the next step.
            if fabric.is_global_zero and time.monotonic() - saved > settings.checkpoint_seconds:
                run.save(step + 1, history)
                saved = time.monotonic()
            task.advance()
    if average is not None:
        average.replace()
    trainee.eval().cpu().float()
    return history


def _optimizer(trainee: Trainee, settings: TrainingSettings) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(trainee.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(
        trainee.parameters(),
        lr=settings.lr,
        momentum=settings.momentum,
        weight_decay=settings.weight_decay,
        nesterov=settings.momentum > 0,
    )


def _fingerprint(settings: TrainingSettings, seed: int, data: CropDataset, trainee: Trainee, identity: str) -> str:
    """What a checkpoint must agree on to be continued: settings, seed, utterances, names and shapes of the tensors."""
    shapes = {name: list(value.shape) for name, value in trainee.state_dict().items()}
    agreed = (settings.model_dump_json(), seed, data.ids, data.classes, shapes, identity)
    return hashlib.sha256(repr(agreed).encode()).hexdigest()


@dataclass(frozen=True)
class _Run:
    """A training run as its checkpoint keeps it."""

    path: Path
    fingerprint: str
    trainee: Trainee
    optimizer: Any
    average: MovingAverage | None

    def save(self, step: int, history: History) -> None:
        """Write the checkpoint to go on from at `step`. Raises VoxPressError if the disk does not take it."""
        state = {
            "fingerprint": self.fingerprint,
            "step": step,
            "history": history,
            "trainee": self.trainee.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": {} if self.average is None else self.average.values,
        }
        beside = self.path.with_suffix(".tmp")
        try:
            torch.save(state, beside)
            os.replace(beside, self.path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as RuntimeError
            beside.unlink(missing_ok=True)
            raise VoxPressError(f"{self.path}: the checkpoint could not be written: {error}") from error

    def resume(self, fabric: Fabric) -> tuple[int, History]:
        """First step to do and the history so far; a checkpoint of another run is put aside.

        Raises InputError if the processes do not find the same checkpoint.
        """
        state = _read_checkpoint(self.path, fabric)
        fits = state is not None and state["fingerprint"] == self.fingerprint
        found = (state["step"], state["history"]) if state is not None and fits else (0, [])
        wanted = fabric.broadcast(found[0])
        if fabric.all_reduce(torch.tensor(float(found[0] != wanted), device=fabric.device), reduce_op="sum") > 0:
            raise InputError(
                self.path, expected=f"one folder for all processes (step {wanted})", found=f"step {found[0]}"
            )
        if state is not None and wanted:
            self.trainee.load_state_dict(state["trainee"])
            self.optimizer.load_state_dict(state["optimizer"])
            if self.average is not None:
                self.average.values = state["average"]
        return int(found[0]), list(found[1])


def _read_checkpoint(path: Path, fabric: Fabric) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        state: dict[str, Any] = torch.load(path, map_location=fabric.device, weights_only=True)
    except Exception as error:  # torch's reader has no common error; whatever it is, the file is of no use
        raise InputError(path, expected="a training checkpoint (delete it to start over)", found=str(error)) from error
    return state
