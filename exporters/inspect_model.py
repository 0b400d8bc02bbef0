"""What is inside a model file: its ops with versions and bits, its input and output, and its manifest if it has one."""

from __future__ import annotations

import math
import struct
from collections import Counter
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from exporters.exported import Format
from exporters.manifest import MANIFEST_KEY, ModelManifest, parse_manifest
from pipeline.errors import InputError

_OURS = ("voxpress.", "voxpress::")
# The ops that hold weights, and where `bits` stands in their custom options (tflite/native/options.h) and arguments.
_CONVOLUTIONS = ("voxpress.conv2d", "voxpress.conv2d_u8", "voxpress::conv2d.out", "voxpress::conv2d_u8.out")
_OPTIONS_BITS, _ARGUMENT_BITS = 6, 10


class Op(BaseModel):
    """An op of a model file and how often it stands there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str  # "CONV_2D", "voxpress.conv2d", "aten::view_copy.out"
    version: int | None  # of a TFLite builtin, or of an op of ours; None where the format has none
    count: int
    custom: bool = False  # neither a builtin of TFLite nor a kernel that ExecuTorch comes with
    bits: dict[int, int] = {}  # of ops that hold weights: layers by width

    @property
    def ours(self) -> bool:
        """Whether VoxPress brings it."""
        return self.name.startswith(_OURS)


class Endpoint(BaseModel):
    """An input or an output; a dimension that may change is -1."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    type: str
    shape: tuple[int, ...]


class ModelContents(BaseModel):
    """What a model file says about itself."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    format: Format
    bytes: int
    ops: tuple[Op, ...]
    backends: tuple[str, ...]  # ExecuTorch delegates that the program was lowered for
    inputs: tuple[Endpoint, ...]
    outputs: tuple[Endpoint, ...]
    manifest: ModelManifest | None


def inspect_model(path: Path) -> ModelContents:
    """Contents of a .pte or .tflite file. Raises InputError naming the file if it is neither, or broken."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(path, expected="a .pte or .tflite file", found=error.strerror or str(error)) from None
    identifier = data[4:8]
    if identifier == b"TFL3":
        return _guarded(_tflite, path, data)
    if identifier[:2] == b"ET":
        return _guarded(_pte, path, data)
    raise InputError(path, expected="a .pte or .tflite file", found=f"identifier {identifier!r}")


def _guarded(read: Any, path: Path, data: bytes) -> ModelContents:
    try:
        contents: ModelContents = read(path, data)
    except InputError:
        raise
    except Exception as error:  # the formats' own readers check nothing: any error means a broken file
        found = f"a broken one ({type(error).__name__}: {error})"
        raise InputError(path, expected="a whole model file", found=found) from None
    return contents


def _tflite(path: Path, data: bytes) -> ModelContents:
    from ai_edge_litert import schema_py_generated as schema

    root = schema.Model.GetRootAs(data, 0)
    builtins = _names_of(schema.BuiltinOperator)
    types = _names_of(schema.TensorType)
    graph = root.Subgraphs(0)
    counts: Counter[tuple[str, int]] = Counter()
    bits: Counter[tuple[str, int]] = Counter()
    for index in range(graph.OperatorsLength()):
        node = graph.Operators(index)
        code = root.OperatorCodes(node.OpcodeIndex())
        custom = code.CustomCode()
        if custom is None:
            builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
            counts[builtins.get(builtin, f"builtin {builtin}"), code.Version()] += 1
            continue
        name, options = custom.decode(errors="replace"), node.CustomOptionsAsNumpy()
        raw = b"" if isinstance(options, int) else options.tobytes()
        known = name.startswith(_OURS) and len(raw) >= 8
        counts[name, struct.unpack_from("<H", raw, 4)[0] if known else code.Version()] += 1
        if name in _CONVOLUTIONS and known:
            bits[name, raw[_OPTIONS_BITS]] += 1
    return ModelContents(
        file=path.name,
        format="tflite",
        bytes=len(data),
        ops=_ops(counts, bits),
        backends=(),
        inputs=tuple(_endpoint(graph.Tensors(graph.Inputs(i)), types) for i in range(graph.InputsLength())),
        outputs=tuple(_endpoint(graph.Tensors(graph.Outputs(i)), types) for i in range(graph.OutputsLength())),
        manifest=_tflite_manifest(root, path),
    )


def _endpoint(tensor: Any, types: dict[int, str]) -> Endpoint:
    signature = tensor.ShapeSignatureAsNumpy() if tensor.ShapeSignatureLength() else tensor.ShapeAsNumpy()
    shape = () if isinstance(signature, int) else tuple(int(size) for size in signature)
    return Endpoint(name=tensor.Name().decode(errors="replace"), type=types[tensor.Type()].lower(), shape=shape)


def _tflite_manifest(root: Any, path: Path) -> ModelManifest | None:
    for index in range(root.MetadataLength()):
        entry = root.Metadata(index)
        if entry.Name() == MANIFEST_KEY.encode():
            text = root.Buffers(entry.Buffer()).DataAsNumpy().tobytes().decode(errors="replace")
            return parse_manifest(text, path)
    return None


def _pte(path: Path, data: bytes) -> ModelContents:
    from executorch.exir._serialize._program import deserialize_pte_binary

    plans = {plan.name: plan for plan in deserialize_pte_binary(data).program.execution_plan}
    if "forward" not in plans:
        raise InputError(path, expected="a method forward", found=", ".join(sorted(plans)) or "no methods")
    plan = plans["forward"]
    counts: Counter[tuple[str, int | None]] = Counter()
    bits: Counter[tuple[str, int]] = Counter()
    for chain in plan.chains:
        for instruction in chain.instructions:
            call = instruction.instr_args
            if type(call).__name__ != "KernelCall":
                continue
            operator = plan.operators[call.op_index]
            name = f"{operator.name}.{operator.overload}" if operator.overload else operator.name
            value_of = [plan.values[index].val for index in call.args]
            counts[name, _pte_version(name, value_of)] += 1
            if name in _CONVOLUTIONS:
                bits[name, value_of[_ARGUMENT_BITS].int_val] += 1
    return ModelContents(
        file=path.name,
        format="pte",
        bytes=len(data),
        ops=_ops(counts, bits),
        backends=tuple(sorted({delegate.id for delegate in plan.delegates})),
        inputs=tuple(_pte_endpoint(f"input {i}", plan.values[index].val, 2) for i, index in enumerate(plan.inputs)),
        outputs=tuple(_pte_endpoint(f"output {i}", plan.values[index].val, 1) for i, index in enumerate(plan.outputs)),
        manifest=_pte_manifest(plans, path),
    )


def _pte_version(name: str, values: list[Any]) -> int | None:
    if name.startswith(_OURS):
        # The version is the last argument before the output, which the call names twice.
        integers = [value.int_val for value in values if type(value).__name__ == "Int"]
        return int(integers[-1])
    return None


def _pte_endpoint(name: str, value: Any, axes: int) -> Endpoint:
    # The planned sizes; which of them may shrink is not written per dimension, only that some may: of ours the first
    # `axes` that are more than 1.
    dynamic = value.shape_dynamism.name != "STATIC"
    sizes = tuple(-1 if dynamic and axis < axes and size > 1 else int(size) for axis, size in enumerate(value.sizes))
    return Endpoint(name=name, type=value.scalar_type.name.lower(), shape=sizes)


def _pte_manifest(plans: dict[str, Any], path: Path) -> ModelManifest | None:
    plan = plans.get(MANIFEST_KEY)
    if plan is None:
        return None
    value = plan.values[plan.outputs[0]].val
    return parse_manifest(str(value.string_val), path)


def _ops(counts: Counter[Any], bits: Counter[tuple[str, int]]) -> tuple[Op, ...]:
    return tuple(
        Op(
            name=name,
            version=version,
            count=count,
            custom=_is_custom(name),
            bits={width: layers for (op, width), layers in sorted(bits.items()) if op == name},
        )
        for (name, version), count in sorted(counts.items(), key=lambda item: str(item[0]))
    )


def _is_custom(name: str) -> bool:
    if "::" in name:
        return name.partition("::")[0] not in ("aten", "dim_order_ops", "executorch_prim", "quantized_decomposed")
    # Builtins of TFLite are upper case, "builtin N" is one that this schema does not know yet.
    return name != name.upper() and not name.startswith("builtin ")


def _names_of(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}


def frames_at_rest(contents: ModelContents) -> int:
    """A short length that the model takes: its shortest, or for a model of others what its input says."""
    if contents.manifest is not None:
        return contents.manifest.min_frames
    return math.prod(size for size in contents.inputs[0].shape[1:2] if size > 0) or 30
