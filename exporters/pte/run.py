"""Runs a .pte in this process, on ExecuTorch's Python runtime, to check what was just written."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from exporters.manifest import MANIFEST_KEY, ModelInput, ModelManifest, parse_manifest
from exporters.native import native_path
from pipeline.errors import InputError

Floats = npt.NDArray[np.float32]


class PteRunner:
    """A loaded .pte: features [frames, mel] or samples [S] -> embedding [E], one utterance at a time or several.

    Weights that lie in a .ptd are taken from `weights`, else from where the .pte says, beside it. Raises InputError
    naming the file if it cannot be loaded, MissingToolError if our op library is not built.
    """

    def __init__(self, model: Path | bytes, weights: Path | None = None) -> None:
        self.name = str(model) if isinstance(model, Path) else "model in memory"
        try:
            data = model.read_bytes() if isinstance(model, Path) else model
        except OSError as error:
            raise InputError(self.name, expected="an ExecuTorch file", found=error.strerror or str(error)) from error
        try:
            self._program = runtime().load_program(data)
            self.weights: Path | None = None  # the .ptd that its weights are taken from; None: they are in it
            if "weights_file" in self._program.method_names:
                self.weights = self._weights(model, weights)
                self._program = runtime().load_program(data, data_path=self.weights)
            self._forward = self._program.load_method("forward")
            sizes = self._forward.metadata.input_tensor_meta(0).sizes()
        except (RuntimeError, KeyError, IndexError) as error:
            raise InputError(self.name, expected="a whole ExecuTorch file", found=str(error)) from error
        if len(sizes) not in (2, 3) or sizes[0] < 1:
            raise InputError(self.name, expected="an input [N, frames, mel] or [N, samples]", found=str(list(sizes)))
        self.max_batch = int(sizes[0])
        self.input: ModelInput = "fbank" if len(sizes) == 3 else "waveform"
        self._rest = tuple(int(size) for size in sizes[2:])
        # A program exported elsewhere does not say its limits; its input's planned size is one.
        self.max_frames = int(self._answer("max_frames", sizes[1]))
        self.min_frames = int(self._answer("min_frames", 1))
        self._limits = (self.min_frames, min(self.max_frames, int(sizes[1])))
        if self.input == "waveform":
            window, shift = (int(self._answer(f"{name}_samples", 1)) for name in ("window", "shift"))
            self._limits = ((self.min_frames - 1) * shift + window, int(sizes[1]))

    def _weights(self, model: Path | bytes, given: Path | None) -> Path:
        name = str(self._answer("weights_file", ""))
        path = given if given is not None else (model.parent if isinstance(model, Path) else Path()) / Path(name).name
        if not path.is_file():
            raise InputError(self.name, expected=f"its weights in {path}", found="no such file")
        return path

    @property
    def manifest(self) -> ModelManifest:
        """What the file says about itself. Raises InputError if VoxPress did not write it."""
        found = self.find_manifest()
        if found is None:
            raise InputError(self.name, expected="a model that VoxPress wrote", found="no manifest in it")
        return found

    def find_manifest(self) -> ModelManifest | None:
        """What the file says about itself; None if VoxPress did not write it."""
        text = self._answer(MANIFEST_KEY, None)
        return None if text is None else parse_manifest(text, self.name)

    def takes(self, shape: Sequence[int]) -> bool:
        """Whether features [frames, mel] or samples [S] of this shape go through the model in one pass."""
        shortest, longest = self._limits
        return len(shape) == 1 + len(self._rest) and tuple(shape[1:]) == self._rest and shortest <= shape[0] <= longest

    def embed(self, utterance: Floats) -> Floats:
        """Embedding float32 [E] of features float32 [frames, mel] or samples float32 [S] in one pass.

        Raises InputError if the model does not take an utterance of this shape, or fails on it.
        """
        embedding: Floats = self.embed_batch(utterance[None])[0]
        return embedding

    def embed_batch(self, utterances: Floats) -> Floats:
        """Embeddings float32 [N, E] of features [N, frames, mel] or samples [N, S] in one pass.

        Raises InputError if the model does not take utterances of this shape, or so many, or fails on them.
        """
        count, *shape = utterances.shape
        expected = f"[{', '.join(['{}..{}'.format(*self._limits), *map(str, self._rest)])}]"
        if not self.takes(shape):
            kind = "features" if self._rest else "waveform"
            raise InputError(f"{self.name}: {kind}", expected=expected, found=str(shape))
        if not 1 <= count <= self.max_batch:
            raise InputError(self.name, expected=f"1 to {self.max_batch} utterances at once", found=str(count))
        values = torch.from_numpy(np.ascontiguousarray(utterances, dtype=np.float32))
        try:
            (embeddings,) = self._forward.execute([values])
        except RuntimeError as error:
            raise InputError(self.name, expected=f"a model that runs {expected}", found=str(error)) from error
        return np.array(embeddings.numpy().reshape(count, -1), dtype=np.float32)

    def _answer(self, method: str, missing: Any) -> Any:
        if method not in self._program.method_names:
            return missing
        try:
            (value,) = self._program.load_method(method).execute([])
        except (RuntimeError, ValueError) as error:
            raise InputError(self.name, expected=f"an answer from its method {method}", found=str(error)) from error
        return value


@functools.cache
def runtime() -> Any:
    """ExecuTorch's Python runtime with our ops in it. Raises MissingToolError if our op library is not built."""
    # Before the runtime is asked for a program: the library's ops go into the one registry of libexecutorch.so, which
    # both sides must see as the same library.
    ctypes.CDLL(str(native_path("pte_ops")), mode=ctypes.RTLD_GLOBAL)
    from executorch.runtime import Runtime

    return Runtime.get()
