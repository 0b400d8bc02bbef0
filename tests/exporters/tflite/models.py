"""Broken and odd .tflite files, made from whole ones through the schema's own classes."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from exporters.tflite.emit import emit_tflite
from exporters.tflite.graph import FILE_IDENTIFIER
from tests.factories import tiny_artifact


def unpack(data: bytes) -> Any:
    return schema.ModelT.InitFromPackedBuf(data, 0)


def pack(model: Any) -> bytes:
    """Back to bytes with the stock builder, which aligns constants to 4 bytes only."""
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())


def altered(change: Callable[[Any], None], bits: int = 4) -> bytes:
    """A small model with our ops after `change` was applied to its object tree."""
    model = unpack(emit_tflite(tiny_artifact(bits), lowering="voxpress"))
    change(model)
    return pack(model)


def overwrite(data: bytes, other: bytes) -> None:
    """Puts another model of the same size where `data` lies, as a runtime may that unmaps one and maps the next."""
    assert len(data) == len(other)
    ctypes.memmove(np.frombuffer(data, np.uint8).ctypes.data, other, len(other))


def custom_nodes(model: Any) -> list[Any]:
    """The nodes that are not builtin, in order; the first is a conv2d, the last but one pools."""
    graph = model.subgraphs[0]
    return [node for node in graph.operators if model.operatorCodes[node.opcodeIndex].customCode is not None]


def code_name(model: Any, node: Any) -> str:
    name = model.operatorCodes[node.opcodeIndex].customCode
    return name.decode() if isinstance(name, bytes) else str(name)


def tensor(model: Any, index: int) -> Any:
    return model.subgraphs[0].tensors[index]


def set_option(model: Any, offset: int, raw: bytes, node: int = 0) -> None:
    options = np.array(custom_nodes(model)[node].customOptions, np.uint8)
    options[offset : offset + len(raw)] = np.frombuffer(raw, np.uint8)
    custom_nodes(model)[node].customOptions = options
