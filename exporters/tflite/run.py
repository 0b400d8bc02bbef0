"""Runs a .tflite file of ours on the stock LiteRT interpreter, with our delegate where the file has our ops."""

from __future__ import annotations

import ctypes
import mmap
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Delegate, Interpreter, load_delegate

from exporters.manifest import MANIFEST_KEY, WAVEFORM_NAME, ModelInput, ModelManifest, parse_manifest
from exporters.native import native_path
from exporters.tflite.emit import OUR_OPS, OUTPUT_NAME
from exporters.tflite.graph import FILE_IDENTIFIER, SIGNATURE
from pipeline.artifact.schema import INPUT_NAME
from pipeline.errors import InputError, MissingToolError

Floats = npt.NDArray[np.float32]

# The root table of the smallest flatbuffer lies behind its offset and the identifier.
_SMALLEST_FILE_BYTES = 16


class TfliteRunner:
    """One interpreter over one model file: features [T, mel] or samples [S] -> embedding [E], any length.

    A file given by its path is mapped, not read, so that its weights cost no anonymous memory. Not for use from
    several threads at once; several runners may work side by side.
    """

    def __init__(self, model: Path | bytes, threads: int = 1, *, low_memory: bool = False) -> None:
        """Load and check a model. low_memory: weights stay packed and are expanded at each call.

        Raises InputError, naming the file, if it is missing, corrupt, asks for ops that are neither stock nor ours, or
        has not our input and output; MissingToolError if it has our ops and the delegate is not built.
        """
        if threads < 1:
            raise InputError("threads", expected="at least 1", found=str(threads))
        self._model = model
        self._name: str | Path = model if isinstance(model, Path) else "model in memory"
        delegates = [_load_delegate(low_memory)] if _has_our_ops(model, self._name) else []
        source = {"model_path": str(model)} if isinstance(model, Path) else {"model_content": model}
        try:
            self._interpreter = Interpreter(**source, num_threads=threads, experimental_delegates=delegates)
            self._input, self._output = self._endpoints()
            self._length = int(self._input["shape"][1])
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise InputError(self._name, expected="a model that LiteRT can run", found=str(error)) from error

    @property
    def input(self) -> ModelInput:
        """What the model takes."""
        return "waveform" if len(self._input["shape"]) == 2 else "fbank"

    @property
    def delegates(self) -> tuple[str, ...]:
        """Delegates that run at least one node, sorted: "voxpress", "xnnpack"."""
        # LiteRT tells delegated nodes from others nowhere else. Ours takes each of our nodes by itself; what else is
        # delegated is XNNPACK's, which LiteRT applies of its own accord.
        names = [str(node["op_name"]) for node in self._interpreter._get_ops_details()]
        ours = sum(name in OUR_OPS for name in names)
        return (*(("voxpress",) if ours else ()), *(("xnnpack",) if names.count("DELEGATE") > ours else ()))

    @property
    def manifest(self) -> ModelManifest:
        """What the file says about itself. Raises InputError if VoxPress did not write it."""
        found = self.find_manifest()
        if found is None:
            raise InputError(self._name, expected="a model that VoxPress wrote", found="no manifest in it")
        return found

    def find_manifest(self) -> ModelManifest | None:
        """What the file says about itself; None if VoxPress did not write it."""
        data = _mapped(self._model) if isinstance(self._model, Path) else self._model
        root = schema.Model.GetRootAs(data, 0)
        for index in range(root.MetadataLength()):
            entry = root.Metadata(index)
            if entry.Name() == MANIFEST_KEY.encode():
                text = root.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
                return parse_manifest(text.decode(errors="replace"), self._name)
        return None

    def embed(self, utterance: Floats) -> Floats:
        """The embedding, float32 [E], of log-mel features [T, mel] or samples [S] of one utterance, in one pass.

        Raises InputError if the utterance has another shape or type, or the model refuses its length.
        """
        kind, rest = ("features", tuple(self._input["shape"][2:])) if self.input == "fbank" else ("waveform", ())
        if utterance.shape[1:] != rest or utterance.ndim < 1 or len(utterance) < 1 or utterance.dtype != np.float32:
            wanted = f"float32 [T, {rest[0]}]" if rest else "float32 [S]"
            raise InputError(kind, expected=wanted, found=f"{utterance.dtype} {list(utterance.shape)}")
        try:
            if len(utterance) != self._length:
                # Forgotten until the resize has worked: after a refusal the interpreter must be resized again.
                self._length = 0
                self._interpreter.resize_tensor_input(self._input["index"], (1, *utterance.shape))
                self._interpreter.allocate_tensors()
                self._length = len(utterance)
            self._interpreter.set_tensor(self._input["index"], utterance[None])
            self._interpreter.invoke()
        except (ValueError, RuntimeError) as error:
            what = "frames" if rest else "samples"
            raise InputError(
                self._name, expected=f"a model that runs on {len(utterance)} {what}", found=str(error)
            ) from error
        return np.asarray(self._interpreter.get_tensor(self._output["index"])[0], np.float32)

    def _endpoints(self) -> tuple[dict[str, npt.NDArray[np.int32]], dict[str, npt.NDArray[np.int32]]]:
        """Details of the input and the output tensor, after checking that they are the ones our files have."""
        names = self._interpreter.get_signature_list().get(SIGNATURE, {})
        takes = names.get("inputs", [])
        if takes not in ([INPUT_NAME], [WAVEFORM_NAME]) or names.get("outputs") != [OUTPUT_NAME]:
            raise InputError(
                self._name, expected=f"signature {SIGNATURE}({INPUT_NAME}) -> {OUTPUT_NAME}", found=str(names or "none")
            )
        inputs, outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        if (len(inputs), len(outputs)) != (1, 1):
            raise InputError(self._name, expected="one input and one output", found=f"{len(inputs)} and {len(outputs)}")
        source, target = inputs[0], outputs[0]
        for details, shape in ((source, "[1, T, mel]" if takes == [INPUT_NAME] else "[1, S]"), (target, "[1, E]")):
            sizes = details["shape"]
            if details["dtype"] is not np.float32 or len(sizes) != shape.count(",") + 1 or sizes[0] != 1:
                raise InputError(
                    self._name, expected=f"{details['name']} float32 {shape}", found=f"{details['dtype']} {list(sizes)}"
                )
        return source, target


def _load_delegate(low_memory: bool) -> Delegate:
    path = native_path("tflite_delegate")
    try:
        ctypes.CDLL(str(path))  # first alone: LiteRT's wrapper of a library that does not load dies noisily
        return load_delegate(str(path), {"low_memory": "1"} if low_memory else None)
    except (OSError, ValueError) as error:
        raise MissingToolError(f"{path}: expected a delegate that loads, found: {error}") from error


def _has_our_ops(model: Path | bytes, name: str | Path) -> bool:
    """Whether the file names our custom ops. Raises InputError for other custom ops, or if this is no .tflite file."""
    data: bytes | mmap.mmap = _mapped(model) if isinstance(model, Path) else model
    if len(data) < _SMALLEST_FILE_BYTES or data[4:8] != FILE_IDENTIFIER:
        raise InputError(name, expected="a .tflite file (identifier TFL3)", found=f"{data[4:8]!r}")
    try:
        root = schema.Model.GetRootAs(data, 0)
        codes = {root.OperatorCodes(i).CustomCode() for i in range(root.OperatorCodesLength())} - {None}
    except (struct.error, ValueError, TypeError, IndexError, OverflowError) as error:
        raise InputError(name, expected="a whole .tflite file", found=f"a broken one ({error})") from error
    foreign = sorted(code.decode(errors="replace") for code in codes - {op.encode() for op in OUR_OPS})
    if foreign:
        raise InputError(name, expected="stock ops and those of VoxPress", found=f"custom op {foreign[0]!r}")
    return bool(codes)


def _mapped(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as stream:
            return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError:
        raise InputError(path, expected="a .tflite file", found="no such file") from None
    except (OSError, ValueError) as error:  # ValueError: mmap's word for an empty file
        raise InputError(path, expected="a .tflite file", found=str(error)) from error
