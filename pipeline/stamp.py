"""Stamps: what a stage was made from, so that it is not made again when nothing changed."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from pipeline.errors import VoxPressError
from pipeline.files import read_json, sha256_file

STAMP_FILE = "stamp.json"

# Tools whose version can change what a stage gives.
_TOOLS = ("voxpress", "torch", "executorch", "ai-edge-litert", "numpy", "scipy", "lhotse", "kaldi-native-fbank")


class Stamp(BaseModel):
    """What went into a stage's folder and what came out of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    settings: dict[str, Any]
    inputs: dict[str, str]  # name -> sha256
    tools: dict[str, str]
    outputs: dict[str, str]  # file inside the folder -> sha256

    @property
    def outputs_sha256(self) -> str:
        """One hash over all outputs: the identity of the folder for the stages that read it."""
        return hashlib.sha256(json.dumps(self.outputs, sort_keys=True).encode()).hexdigest()


def make_stamp(stage: str, settings: BaseModel, inputs: Mapping[str, str], folder: Path) -> Stamp:
    """Stamp of a folder that a stage has just written."""
    return Stamp(
        stage=stage,
        settings=settings.model_dump(mode="json"),
        inputs=dict(inputs),
        tools=tool_versions(),
        outputs=_hash_outputs(folder),
    )


def write_stamp(folder: Path, stamp: Stamp) -> None:
    """Write the stamp into the folder it describes."""
    (folder / STAMP_FILE).write_text(stamp.model_dump_json(indent=1) + "\n", encoding="utf-8")


def current_stamp(stage: str, settings: BaseModel, inputs: Mapping[str, str], folder: Path) -> Stamp | None:
    """The folder's stamp if the stage need not run again: same settings, inputs and tools, outputs whole; else None."""
    if not (folder / STAMP_FILE).is_file():
        return None
    try:
        stamp = read_json(folder / STAMP_FILE, Stamp, what="a stage's stamp")
    except VoxPressError:
        return None  # a stamp of another version or a damaged one: the stage runs again and writes a good one
    expected = (stage, settings.model_dump(mode="json"), dict(inputs), tool_versions())
    if (stamp.stage, stamp.settings, stamp.inputs, stamp.tools) != expected:
        return None
    return stamp if stamp.outputs == _hash_outputs(folder) else None


@lru_cache(maxsize=1)
def tool_versions() -> dict[str, str]:
    """Installed versions of the tools that results depend on."""
    return {tool: importlib.metadata.version(tool) for tool in _TOOLS}


def _hash_outputs(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != STAMP_FILE)
    return {path.relative_to(folder).as_posix(): sha256_file(path) for path in files}
