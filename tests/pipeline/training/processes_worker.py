"""Trains a small network, alone or as one of several processes; writes what it ended with. Started by test_processes.

Words: folder for results, step at which the process kills itself (-1: never).
"""

import os
import signal
import sys
from pathlib import Path

import torch
from rich.console import Console
from safetensors.torch import save_file
from torch import nn

from pipeline.models.registry import build_model
from pipeline.models.spec import ModelSpec
from pipeline.progress import Progress
from pipeline.quantize.apply import attach_palettes, follow_weights, weight_layers
from pipeline.training.aam import AamSoftmax
from pipeline.training.crops import CropDataset
from pipeline.training.loop import train
from pipeline.training.settings import TrainingSettings
from tests.pipeline.training.noise import SPEAKERS, Noise

SETTINGS = TrainingSettings(
    steps=12,
    batch=8,
    crop_frames=32,
    lr=0.05,
    margin=0.1,
    distillation=1.0,
    precision="32-true",
    checkpoint_seconds=0.05,
    ema_decay=0.5,
)


def _network() -> nn.Module:
    return build_model(ModelSpec(architecture="resnet10", base_channels=2, embedding_dim=8))


def main(folder: Path, die_at: int) -> None:
    torch.set_num_threads(1)
    rank = int(os.environ.get("RANK", "0"))
    torch.manual_seed(9)
    teacher = _network().eval()
    torch.manual_seed(0)
    network, head = _network(), AamSoftmax(8, 3, 16.0)
    attach_palettes(network, dict.fromkeys(weight_layers(network), 4))

    def every_step(step: int) -> None:
        follow_weights(network)
        if step == die_at and rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    history = train(
        network,
        head,
        CropDataset(Noise(), SPEAKERS, 32, seed=3),  # type: ignore[arg-type]
        SETTINGS,
        work=folder / "work",
        seed=1,
        label="t",
        progress=Progress(Console(quiet=True)),
        teacher=teacher,
        every_step=every_step,
    )
    tensors = dict(nn.ModuleDict({"network": network, "head": head}).state_dict())
    tensors["history"] = torch.tensor([[point["loss"], point["accuracy"]] for point in history], dtype=torch.float64)
    save_file(tensors, folder / f"rank{rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
