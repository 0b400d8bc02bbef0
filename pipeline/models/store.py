"""Pre-trained models on disk: a folder with `model.json`, `model.safetensors`, `frontend.json` and, if VoxPress trained
it, `head.safetensors` (the classifier over the training speakers, which fine-tuning goes on with).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import safetensors
import safetensors.torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from pipeline.errors import InputError
from pipeline.features.fbank import read_spec
from pipeline.features.spec import FILE_NAME as FRONTEND_FILE
from pipeline.features.spec import FrontEndSpec
from pipeline.files import read_json, sha256_file
from pipeline.models.registry import build_model
from pipeline.models.spec import ModelSpec

HEADER_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"
HEAD_FILE = "head.safetensors"
HEAD_KEY = "weight"


class ModelHeader(BaseModel):
    """What a pre-trained model says about itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str = "voxpress-model"
    format_version: int = 1
    spec: ModelSpec
    speakers: tuple[str, ...] = ()  # training speakers, in the order of the head's rows
    created_by: str
    source_sha256: str | None = None  # of the checkpoint it was imported from


@dataclass(frozen=True)
class PretrainedModel:
    """A network with its weights, the front end it was trained on, and its classifier if there is one."""

    header: ModelHeader
    network: nn.Module
    frontend: FrontEndSpec
    head: Tensor | None  # [speakers, E]
    sha256: str  # of the weights file


def write_pretrained(
    folder: Path, header: ModelHeader, network: nn.Module, frontend: FrontEndSpec, head: Tensor | None
) -> None:
    """Write a pre-trained model into an existing folder."""
    safetensors.torch.save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / WEIGHTS_FILE)
    if head is not None:
        safetensors.torch.save_file({HEAD_KEY: head.detach().contiguous()}, folder / HEAD_FILE)
    frontend.write(folder)
    (folder / HEADER_FILE).write_text(header.model_dump_json(indent=1) + "\n", encoding="utf-8")


def model_files(folder: Path) -> list[Path]:
    """The files of a pre-trained model that are there, always in the same order."""
    names = (HEADER_FILE, WEIGHTS_FILE, FRONTEND_FILE, HEAD_FILE)
    return [folder / name for name in names if (folder / name).is_file()]


def check_replaceable(folder: Path) -> None:
    """Raise InputError if a model must not take the place of `folder`: only an empty folder or another model may go."""
    if not folder.exists() or (folder / HEADER_FILE).is_file():
        return
    if not folder.is_dir() or any(folder.iterdir()):
        found = "other files in it" if folder.is_dir() else "a file"
        raise InputError(folder, expected="a new or empty folder, or a model to be replaced", found=found)


def read_pretrained(folder: Path) -> PretrainedModel:
    """Read a pre-trained model, in evaluation mode.

    Raises InputError naming the file for anything missing or damaged, and naming the first key that is missing, extra
    or of another shape.
    """
    header = read_json(folder / HEADER_FILE, ModelHeader, what="a VoxPress model's header")
    frontend = read_spec(folder / FRONTEND_FILE)
    network = build_model(header.spec)
    path = folder / WEIGHTS_FILE
    load_strictly(network, _read_tensors(path), path)
    head = None
    if (folder / HEAD_FILE).is_file():
        head = _read_tensors(folder / HEAD_FILE).get(HEAD_KEY)
        expected = [len(header.speakers), header.spec.embedding_dim]
        if head is None or list(head.shape) != expected:
            found = "none" if head is None else str(list(head.shape))
            raise InputError(folder / HEAD_FILE, expected=f"{HEAD_KEY} {expected}", found=found)
    return PretrainedModel(header, network.eval(), frontend, head, sha256_file(path))


def load_strictly(network: nn.Module, tensors: dict[str, Tensor], path: Path) -> None:
    """Load `tensors` into `network`; every key must be there, with its shape, and no other."""
    own = network.state_dict()
    for key in own:
        if key not in tensors:
            raise InputError(path, expected=f"a tensor {key}", found="none of that name")
        if own[key].shape != tensors[key].shape:
            raise InputError(path, expected=f"{key} {list(own[key].shape)}", found=str(list(tensors[key].shape)))
    for key in tensors:
        if key not in own:
            raise InputError(path, expected="only the network's tensors", found=f"an extra {key}")
    network.load_state_dict(tensors)


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    except FileNotFoundError:
        raise InputError(path, expected="model weights", found="no such file") from None
    except (safetensors.SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(path, expected="a whole safetensors file", found=str(error)) from None
    return tensors
