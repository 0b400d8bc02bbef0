"""The native programs and libraries that a device runs: which files, and the options that name them to each other."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from device_tests.records import ModelFormat
from exporters.native import native_path
from pipeline.errors import MissingToolError
from pipeline.files import sha256_file

_ROOT = Path(__file__).resolve().parents[2]
AARCH64_FOLDER = _ROOT / "build" / "aarch64"
_LITERT = "libLiteRt.so"
_DELEGATE = "libvoxpress_tflite_delegate.so"


@dataclass(frozen=True)
class Build:
    """What is needed to run one model format on one kind of machine."""

    runner: Path
    libraries: tuple[Path, ...] = ()  # what the runner is linked to
    runtime: Path | None = None  # what the runner loads by name: LiteRT
    delegate: Path | None = None
    runtime_version: str = ""

    @property
    def files(self) -> tuple[Path, ...]:
        """Everything that has to be on the device."""
        return (self.runner, *self.libraries, *(path for path in (self.runtime, self.delegate) if path is not None))

    @property
    def digest(self) -> str:
        """Hex sha256 over all files: another one measures something else."""
        return hashlib.sha256("\0".join(map(sha256_file, self.files)).encode()).hexdigest()

    def options(self, place: Callable[[Path], str]) -> list[str]:
        """The runner's options about its libraries; `place` says where a file is on the device."""
        words = []
        for option, path in (("--runtime-library", self.runtime), ("--delegate-library", self.delegate)):
            if path is not None:
                words += [option, place(path)]
        return [*words, "--runtime-version", self.runtime_version] if self.runtime_version else words


def host_build(model_format: ModelFormat) -> Build:
    """The build of this machine. Raises MissingToolError, saying how to make it, if it is not there."""
    if model_format == "pte":
        return Build(native_path("pte_runner"), _shared_libraries(_package("executorch") / "lib"))
    return Build(
        native_path("tflite_runner"),
        runtime=_package("ai_edge_litert") / _LITERT,
        delegate=native_path("tflite_delegate"),
        runtime_version=version("ai-edge-litert"),
    )


def aarch64_build(model_format: ModelFormat, folder: Path = AARCH64_FOLDER) -> Build:
    """The build for 64-bit ARM Linux. Raises MissingToolError, saying how to make it, if it is not there."""
    return build_in(folder / "native", folder / "runtime", model_format, made_by="run `make aarch64`")


def build_in(native: Path, runtime: Path, model_format: ModelFormat, *, made_by: str) -> Build:
    """The build in a folder `native` of the native build and a folder `runtime` of unpacked runtime libraries.

    Raises MissingToolError if a file is not there; the message ends with `made_by`.
    """
    runner = _existing(native / f"voxpress_{model_format}_runner", made_by)
    if model_format == "pte":
        # Where ExecuTorch is linked into the runner, as for phones, there are no libraries.
        return Build(runner, _shared_libraries(runtime / "executorch" / "lib"))
    litert = _existing(runtime / "ai_edge_litert" / _LITERT, made_by)
    wheels = sorted(runtime.glob("wheels/ai_edge_litert-*.whl"))
    return Build(
        runner,
        runtime=litert,
        delegate=_existing(native / _DELEGATE, made_by),
        runtime_version=wheels[-1].name.split("-")[1] if wheels else "",
    )


def _existing(path: Path, made_by: str) -> Path:
    if not path.exists():
        raise MissingToolError(f"{path}: expected a build for the device, found none; {made_by}")
    return path


def _shared_libraries(folder: Path) -> tuple[Path, ...]:
    # Of the wheel's libraries those that the runner is linked to; OpenVINO's backend needs what no phone has.
    names = ("", "_kernels_optimized", "_kernels_quantized", "_backend_xnnpack", "_threadpool")
    return tuple(path for name in names if (path := folder / f"libexecutorch{name}.so").is_file())


def _package(name: str) -> Path:
    # Found, not imported: the packages take seconds to import and their Python code is not what runs here.
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise MissingToolError(f"{name}: expected the installed package, found none; run `make native`")
    return Path(next(iter(spec.submodule_search_locations)))
