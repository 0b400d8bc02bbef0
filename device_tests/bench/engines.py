"""The runtimes of a comparison behind one face: a file and a number of threads in, embeddings out.

Each class imports its runtime when it is made ready, before anything is measured, and loads a model when it is called.
ExecuTorch and LiteRT are not here: the C++ runners serve their files.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.artifact.schema import INPUT_NAME
from pipeline.errors import InputError

Floats = npt.NDArray[np.float32]


class Engine(ABC):
    """A runtime, ready to load one model; `low_memory` is for the weights of our own ops."""

    distribution: str

    def __init__(self, *, low_memory: bool = False) -> None:
        self.low_memory = low_memory
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Import the runtime."""

    @property
    def runtime_version(self) -> str:
        """Version of the runtime."""
        return version(self.distribution)

    @abstractmethod
    def load(self, model: Path, threads: int, frames: int) -> None:
        """Load a model, to run on so many threads and utterances of so many frames."""

    @abstractmethod
    def embed(self, features: Floats) -> Floats:
        """Embedding float32 [E] of features float32 [frames, mel]."""

    def kernels(self) -> list[str]:
        """VoxPress kernels that ran so far, sorted."""
        return []

    def delegates(self) -> list[str]:
        """Delegates that run a part of the model, sorted."""
        return []


class OnnxRuntimeEngine(Engine):
    """ONNX Runtime's CPU provider."""

    distribution = "onnxruntime"

    def prepare(self) -> None:
        """See the base class."""
        import onnxruntime

        self._module = onnxruntime

    def load(self, model: Path, threads: int, frames: int) -> None:
        """Load the model; see the base class."""
        options = self._module.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        self._session = self._module.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])

    def embed(self, features: Floats) -> Floats:
        """See the base class."""
        return _vector(self._session.run(None, {INPUT_NAME: features[None]})[0])


class OpenVinoEngine(Engine):
    """OpenVINO's CPU plugin, told to keep fp32 where a model is fp32 and to run one request at a time."""

    distribution = "openvino"

    def prepare(self) -> None:
        """See the base class."""
        import openvino

        self._module = openvino

    def load(self, model: Path, threads: int, frames: int) -> None:
        """Load the model; see the base class."""
        settings = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
        }
        compiled = self._module.Core().compile_model(str(model), "CPU", settings)
        self._output, self._request = compiled.output(0), compiled.create_infer_request()

    def embed(self, features: Floats) -> Floats:
        """See the base class."""
        return _vector(self._request.infer({INPUT_NAME: features[None]})[self._output])


class NcnnEngine(Engine):
    """ncnn with half precision switched off. The model file is the .param, with its .bin beside it."""

    distribution = "ncnn"

    def prepare(self) -> None:
        """See the base class."""
        import ncnn

        self._module = ncnn

    def load(self, model: Path, threads: int, frames: int) -> None:
        """Load the model; see the base class."""
        self._net = self._module.Net()
        options = self._net.opt
        options.num_threads = threads
        # Memory is kept between runs, as ncnn's own benchmark does; the allocators must outlive the net.
        self._allocators = self._module.UnlockedPoolAllocator(), self._module.PoolAllocator()
        options.blob_allocator, options.workspace_allocator = self._allocators
        options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = False
        options.use_bf16_storage = False
        if self._net.load_param(str(model)) != 0 or self._net.load_model(str(model.with_suffix(".bin"))) != 0:
            raise InputError(model, expected="a model that ncnn can load", found="its refusal")

    def embed(self, features: Floats) -> Floats:
        """See the base class."""
        extractor = self._net.create_extractor()
        extractor.input("in0", self._module.Mat(features))
        status, output = extractor.extract("out0")
        if status != 0:
            raise InputError("ncnn", expected=f"a model that runs {features.shape[0]} frames", found=f"code {status}")
        return _vector(np.array(output))


class MnnEngine(Engine):
    """MNN's module interface."""

    distribution = "MNN"
    memory = "normal"

    def prepare(self) -> None:
        """See the base class."""
        import MNN.expr
        import MNN.nn

        self._expr, self._nn = MNN.expr, MNN.nn

    def load(self, model: Path, threads: int, frames: int) -> None:
        """Load the model; see the base class."""
        settings = {"backend": "CPU", "numThread": threads, "precision": "high", "memory": self.memory}
        self._manager = self._nn.create_runtime_manager((settings,))
        self._net = self._nn.load_module_from_file(
            str(model), [INPUT_NAME], ["embedding"], runtime_manager=self._manager
        )

    def embed(self, features: Floats) -> Floats:
        """See the base class."""
        value = self._expr.placeholder([1, *features.shape], self._expr.NCHW, self._expr.float)
        value.write(features[None])
        return _vector(self._net.forward([value])[0].read())


class MnnFewBitsEngine(MnnEngine):
    """MNN as its documents ask for on weights of few bits: they stay so in memory."""

    memory = "low"


ENGINES: dict[str, type[Engine]] = {
    "onnxruntime": OnnxRuntimeEngine,
    "openvino": OpenVinoEngine,
    "ncnn": NcnnEngine,
    "mnn": MnnEngine,
    "mnn-few-bits": MnnFewBitsEngine,
}


def _vector(value: Any) -> Floats:
    return np.array(value, dtype=np.float32).reshape(-1)
