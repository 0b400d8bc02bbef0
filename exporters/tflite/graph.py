"""Writes a TFLite flatbuffer: tensors, constants and operators in, bytes out. Knows the format, not the networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import flatbuffers
import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema

from exporters.manifest import MANIFEST_KEY

FILE_IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
BUFFER_ALIGNMENT = 64
SIGNATURE = "serving_default"
ABSENT = -1  # index of an optional input that is not given

Array = npt.NDArray[np.generic]

_TENSOR_TYPES = {
    np.dtype(np.float32): schema.TensorType.FLOAT32,
    np.dtype(np.int32): schema.TensorType.INT32,
    np.dtype(np.uint8): schema.TensorType.UINT8,
}
# Operator codes below this one also stand in the old one-byte field; the others show this one there.
_FIRST_WIDE_OPERATOR = 127


class Graph:
    """One subgraph under construction. Tensors are known by the index that `value` and `constant` return."""

    def __init__(self) -> None:
        self._tensors: list[Any] = []
        self._buffers: list[Any] = [schema.BufferT()]  # buffer 0 is the empty one, by the format's rule
        self._operators: list[Any] = []
        self._codes: dict[tuple[int, str | None], int] = {}

    def value(
        self, name: str, shape: Sequence[int], *, dynamic_axis: int | None = None, dtype: type[np.generic] = np.float32
    ) -> int:
        """Index of a new tensor that an operator computes or the caller feeds; `shape` is its shape until resized."""
        signature = [-1 if axis == dynamic_axis else size for axis, size in enumerate(shape)]
        return self._tensor(name, shape, np.dtype(dtype), buffer=0, signature=signature)

    def quantized_value(
        self, name: str, shape: Sequence[int], scale: float, zero: int, *, dynamic_axis: int | None = None
    ) -> int:
        """Index of a new u8 tensor that stands for scale * (q - zero)."""
        index = self.value(name, shape, dynamic_axis=dynamic_axis, dtype=np.uint8)
        self._tensors[index].quantization = schema.QuantizationParametersT(scale=[scale], zeroPoint=[zero])
        return index

    def constant(self, name: str, data: Array) -> int:
        """Index of a new tensor whose values lie in the file."""
        raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
        self._buffers.append(schema.BufferT(data=raw))
        return self._tensor(name, data.shape, data.dtype, buffer=len(self._buffers) - 1, signature=None)

    def builtin(
        self,
        operator: str,
        inputs: Sequence[int],
        output: int,
        *,
        version: int = 1,
        options: Any = None,
    ) -> int:
        """Append a builtin operator by its name in the schema, e.g. `CONV_2D`; returns `output`.

        The union's tag follows from the class of `options` (`Conv2DOptionsT` -> `Conv2DOptions`).
        """
        code = getattr(schema.BuiltinOperator, operator)
        node = self._node(self._code(code, None, version), inputs, output)
        if options is not None:
            node.builtinOptions = options
            node.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
        return output

    def custom(self, operator: str, inputs: Sequence[int], output: int, *, options: bytes) -> int:
        """Append a custom operator with its options; returns `output`."""
        node = self._node(self._code(schema.BuiltinOperator.CUSTOM, operator, 1), inputs, output)
        node.customOptions = np.frombuffer(options, np.uint8)
        return output

    def finish(
        self, *, inputs: Mapping[str, int], outputs: Mapping[str, int], manifest: str, description: str
    ) -> bytes:
        """The whole file. `inputs` and `outputs` are the names and tensors of the signature."""
        self._buffers.append(schema.BufferT(data=np.frombuffer(manifest.encode(), np.uint8)))
        subgraph = schema.SubGraphT(
            tensors=self._tensors,
            inputs=list(inputs.values()),
            outputs=list(outputs.values()),
            operators=self._operators,
            name="main",
        )
        model = schema.ModelT(
            version=SCHEMA_VERSION,
            operatorCodes=[self._operator_code(*key, version) for key, version in self._codes.items()],
            subgraphs=[subgraph],
            description=description,
            buffers=self._buffers,
            metadata=[schema.MetadataT(name=MANIFEST_KEY, buffer=len(self._buffers) - 1)],
            signatureDefs=[
                schema.SignatureDefT(
                    inputs=[schema.TensorMapT(name=name, tensorIndex=index) for name, index in inputs.items()],
                    outputs=[schema.TensorMapT(name=name, tensorIndex=index) for name, index in outputs.items()],
                    signatureKey=SIGNATURE,
                    subgraphIndex=0,
                )
            ],
        )
        size = sum(buffer.data.size for buffer in self._buffers if buffer.data is not None)
        builder = _AlignedBuilder(size + (1 << 16))
        builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
        return bytes(builder.Output())

    def _tensor(
        self, name: str, shape: Sequence[int], dtype: np.dtype[Any], *, buffer: int, signature: list[int] | None
    ) -> int:
        dynamic = signature is not None and -1 in signature
        self._tensors.append(
            schema.TensorT(
                shape=list(shape),
                shapeSignature=signature if dynamic else None,
                type=_TENSOR_TYPES[dtype],
                buffer=buffer,
                name=name,
                hasRank=True,
            )
        )
        return len(self._tensors) - 1

    def _code(self, builtin: int, custom: str | None, version: int) -> int:
        """Index of the operator code; a code used in several versions keeps the highest."""
        key = (builtin, custom)
        self._codes[key] = max(version, self._codes.get(key, 1))
        return list(self._codes).index(key)

    def _node(self, code: int, inputs: Sequence[int], output: int) -> Any:
        self._operators.append(schema.OperatorT(opcodeIndex=code, inputs=list(inputs), outputs=[output]))
        return self._operators[-1]

    @staticmethod
    def _operator_code(builtin: int, custom: str | None, version: int) -> Any:
        return schema.OperatorCodeT(
            builtinCode=builtin,
            deprecatedBuiltinCode=min(builtin, _FIRST_WIDE_OPERATOR),
            customCode=custom,
            version=version,
        )


class _AlignedBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """Puts every byte vector on a 64-byte boundary of the file; the stock builder gives 4 bytes."""

    def StartVector(self, elem_size: int, count: int, alignment: int) -> int:  # noqa: N802 - flatbuffers' name
        aligned = max(alignment, BUFFER_ALIGNMENT) if elem_size == 1 and count >= BUFFER_ALIGNMENT else alignment
        return int(super().StartVector(elem_size, count, aligned))
