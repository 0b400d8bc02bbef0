"""Tensors of a torch checkpoint that somebody else wrote. Its pickle is read by torch's restricted reader only."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.errors import InputError

# Where training programs put the state dict among optimizer states and counters, and what wrappers put before its keys.
_NESTED_UNDER = ("model", "state_dict")
_PREFIXES = ("module.", "model.")


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint, by key, without wrappers' prefixes; on the CPU.

    The state dict may lie under `model` or `state_dict`. A prefix `module.` or `model.` is taken off where every key
    has it. No class or function that the pickle names is ever imported or called, except torch's own for tensors.

    Raises InputError naming the file for anything that is not a whole checkpoint of named tensors.
    """
    content = _load(path)
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _NESTED_UNDER if isinstance(content.get(key), Mapping)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, Mapping) or not content:
        found = "an empty one" if isinstance(content, Mapping) else f"a {type(content).__name__}"
        raise InputError(path, expected="a state dict, or one under model or state_dict", found=found)
    tensors: dict[str, Tensor] = {}
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise InputError(path, expected="a state dict of named tensors", found=f"{key!r}: {type(value).__name__}")
        tensors[key] = value.detach()
    return _without_prefixes(tensors)


def _load(path: Path) -> Any:
    if not path.is_file():
        raise InputError(path, expected="a torch checkpoint", found="a folder" if path.is_dir() else "no such file")
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader has no common error; whatever it is, the file is of no use
        raise InputError(path, expected="a whole torch checkpoint of tensors", found=_why(error)) from None


def _why(error: Exception) -> str:
    """What is wrong with a file, in a few words: torch adds paragraphs on how to load it unsafely."""
    text = str(error)
    foreign = re.search(r"GLOBAL (\S+)", text)
    if foreign:
        return f"a pickle that names {foreign[1]}, which is not run"
    if isinstance(error, pickle.UnpicklingError | EOFError):
        return "no checkpoint, or a truncated one"
    return f"{type(error).__name__}: {text.splitlines()[0][:120] if text else 'no reason given'}"


def _without_prefixes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in _PREFIXES * len(_PREFIXES):  # either may be inside the other
        if all(key.startswith(prefix) for key in tensors):
            tensors = {key.removeprefix(prefix): value for key, value in tensors.items()}
    return tensors
