"""`voxpress doctor`: will a model file run here, and in the stock builds for phones? What to link if not."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from rich.table import Table

from exporters.exported import Format
from exporters.inspect_model import ModelContents, Op, frames_at_rest, inspect_model
from exporters.manifest import CONV2D_U8_VERSION, CONV2D_VERSION, FBANK_VERSION, STATS_POOL_VERSION
from exporters.runtimes import RUNTIMES, LocalRuntime, RuntimeRefusedError, how_to_get, run_model
from pipeline.errors import InputError, MissingToolError, VoxPressError
from pipeline.features.fbank import samples_of

# The newest version of each of our ops that this build's kernels know, by the part of the name after "voxpress".
KNOWN_OPS = {
    "conv2d": CONV2D_VERSION,
    "conv2d_u8": CONV2D_U8_VERSION,
    "stats_pool": STATS_POOL_VERSION,
    "fbank": FBANK_VERSION,
}

Verdict = Literal["runs", "needs a library", "does not run", "not on this machine", "other format"]


class PhoneBuild(BaseModel):
    """A stock runtime for phones, as its vendor ships it, and what an app adds so that our ops run in it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    format: Format
    ours: str | None  # how our ops get in; None: they cannot
    quantized: bool = True  # whether int8 models of stock ops run without more


# Read from the vendors' build files and documents; nothing of this can be tried on a development machine.
PHONE_BUILDS = (
    PhoneBuild(
        name="executorch-android",
        format="pte",
        ours="its stock AAR exports JNI symbols only: ship a native library built from ExecuTorch's source with "
        "exporters/pte/native compiled in, and call voxpress_register_ops() before loading",
        quantized=False,
    ),
    PhoneBuild(
        name="executorch-ios",
        format="pte",
        ours="link voxpress_pte_ops_static (exporters/pte/native) beside the SwiftPM products executorch, "
        "backend_xnnpack and kernels_optimized, and call voxpress_register_ops() before loading",
        quantized=False,
    ),
    PhoneBuild(
        name="tflite-android",
        format="tflite",
        ours="add libvoxpress_tflite_delegate.so and give the interpreter its delegate: "
        "Interpreter.Options().addDelegate(...) (tensorflow-lite 2.17, litert 1.4)",
    ),
    PhoneBuild(
        name="litert-android",
        format="tflite",
        ours="add libvoxpress_tflite_delegate.so and register it through LiteRT 2's C API: "
        "voxpress_register_litert_accelerator()",
    ),
    PhoneBuild(name="tflite-play-services", format="tflite", ours=None),
    PhoneBuild(
        name="tflite-ios",
        format="tflite",
        ours="compile exporters/tflite/native into the app and give TensorFlowLiteSwift a Delegate whose cDelegate is "
        "tflite_plugin_create_delegate(...)",
    ),
)
RUNTIME_NAMES = (*RUNTIMES, *(build.name for build in PHONE_BUILDS))


class Diagnosis(BaseModel):
    """What one runtime makes of a model file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    runtime: str
    version: str | None
    tried: bool  # the model was run; else the verdict is from the table of phone builds
    verdict: Verdict
    advice: str

    @property
    def is_well(self) -> bool:
        """Whether the model runs, with a library of ours at most."""
        return self.verdict in ("runs", "needs a library")


class Report(BaseModel):
    """A model file's contents and what every runtime makes of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    contents: ModelContents
    diagnoses: tuple[Diagnosis, ...]
    asked: tuple[str, ...]

    @property
    def is_well(self) -> bool:
        """Whether the model runs in every runtime that was asked for."""
        return all(diagnosis.is_well for diagnosis in self.diagnoses if diagnosis.runtime in self.asked)


class WillNotRunError(VoxPressError):
    """A model does not run where it was asked to."""

    exit_code = 3


def examine(model: Path, runtimes: Sequence[str] = ()) -> Report:
    """Contents of a model file and a diagnosis for each runtime.

    runtimes: those that must run it; by default the runtimes of this machine for the file's format. The others are
    diagnosed too, phone builds by their table. Raises InputError for a file that is no model, or an unknown runtime.
    """
    for name in runtimes:
        if name not in RUNTIME_NAMES:
            raise InputError("--runtime", expected=f"one of {', '.join(RUNTIME_NAMES)}", found=name)
    contents = inspect_model(model)
    diagnoses = [
        _of_local(runtime, model, contents) for runtime in RUNTIMES.values() if not _skipped(runtime, runtimes)
    ]
    diagnoses += [_of_build(build, contents) for build in PHONE_BUILDS]
    found = [d.runtime for d in diagnoses if d.tried or d.verdict == "does not run"]
    local = tuple(name for name in found if name in RUNTIMES)
    return Report(contents=contents, diagnoses=tuple(diagnoses), asked=tuple(runtimes) or local)


def report_json(report: Report) -> str:
    """A report as JSON text."""
    return report.model_dump_json(indent=1)


def report_tables(report: Report) -> list[Table | str]:
    """A report for the terminal."""
    contents = report.contents
    lines = [f"{contents.file}  .{contents.format}, {contents.bytes} bytes"]
    for label, endpoints in (("input", contents.inputs), ("output", contents.outputs)):
        lines += [
            f"  {label:6} {e.name} {e.type} [{', '.join(_dimension(size) for size in e.shape)}]" for e in endpoints
        ]
    if contents.manifest is not None:
        made = contents.manifest
        lines.append(f"  made   by VoxPress from {made.artifact}: {made.lowering} ops, takes {made.input}")
        if made.long_audio is not None:
            lines.append(f"  long   audio in chunks of {made.long_audio.chunk_frames} frames, averaged")
    if contents.backends:
        lines.append(f"  for    {', '.join(contents.backends)}")
    ops = Table("op", "version", "nodes", "bits (layers)")
    for op in contents.ops:
        widths = ", ".join(f"{bits} ({layers})" for bits, layers in op.bits.items())
        ops.add_row(op.name, "" if op.version is None else str(op.version), str(op.count), widths)
    runtimes = Table("runtime", "version", "tried", "verdict", "what to do")
    for diagnosis in report.diagnoses:
        mark = "yes" if diagnosis.tried else ""
        runtimes.add_row(diagnosis.runtime, diagnosis.version or "", mark, diagnosis.verdict, diagnosis.advice)
    return ["\n".join(lines), ops, runtimes]


def require_well(report: Report) -> None:
    """Raise WillNotRunError, exit code 3, naming the first runtime asked for that does not run the model."""
    for diagnosis in report.diagnoses:
        if diagnosis.runtime in report.asked and not diagnosis.is_well:
            what = f"{report.contents.file}: expected a model that {diagnosis.runtime} runs"
            raise WillNotRunError(f"{what}, found: {diagnosis.verdict}: {diagnosis.advice}")


def _dimension(size: int) -> str:
    return "any" if size < 0 else str(size)


def _skipped(runtime: LocalRuntime, asked: Sequence[str]) -> bool:
    # TensorFlow takes 20 seconds to import; who asks for another runtime need not wait for it.
    return bool(asked) and runtime.name not in asked


def _of_local(runtime: LocalRuntime, model: Path, contents: ModelContents) -> Diagnosis:
    def diagnosis(verdict: Verdict, advice: str, tried: bool = False) -> Diagnosis:
        return Diagnosis(runtime=runtime.name, version=runtime.version, tried=tried, verdict=verdict, advice=advice)

    if runtime.format != contents.format:
        return diagnosis(
            "other format", f"it runs .{runtime.format} files; export the artifact with --format {runtime.format}"
        )
    if runtime.version is None:
        return diagnosis("not on this machine", how_to_get(runtime))
    problem = unknown_op(contents)
    if problem is not None:
        return diagnosis("does not run", problem)
    ours = any(op.ours for op in contents.ops)
    try:
        outputs = run_model(runtime, model, {"short": _short_input(contents)}, with_our_ops=ours)
    except (RuntimeRefusedError, MissingToolError) as error:
        return diagnosis("does not run", str(error), tried=True)
    if not all(np.isfinite(value).all() for value in outputs.values()):
        return diagnosis("does not run", "it gives values that are not finite", tried=True)
    if not ours:
        return diagnosis("runs", "", tried=True)
    library = "libvoxpress_pte_ops" if runtime.format == "pte" else "libvoxpress_tflite_delegate"
    return diagnosis("needs a library", f"load {library}; it was run with it here", tried=True)


def _of_build(build: PhoneBuild, contents: ModelContents) -> Diagnosis:
    def diagnosis(verdict: Verdict, advice: str) -> Diagnosis:
        return Diagnosis(runtime=build.name, version=None, tried=False, verdict=verdict, advice=advice)

    if build.format != contents.format:
        return diagnosis(
            "other format", f"it runs .{build.format} files; export the artifact with --format {build.format}"
        )
    problem = unknown_op(contents)
    if problem is not None:
        return diagnosis("does not run", problem)
    if any(op.ours for op in contents.ops):
        if build.ours is None:
            return diagnosis("does not run", "it takes no ops of others: use the fallback (voxpress export --fallback)")
        return diagnosis("needs a library", build.ours)
    quantized = [op.name for op in contents.ops if op.name.startswith("quantized_decomposed::")]
    if quantized and not build.quantized:
        return diagnosis("needs a library", f"link kernels_quantized for {quantized[0]}")
    return diagnosis("runs", "")


def unknown_op(contents: ModelContents) -> str | None:
    """What no runtime can mend: an op of ours that these kernels do not know, or a custom op of somebody else's."""
    for op in contents.ops:
        if op.ours:
            known = KNOWN_OPS.get(_bare(op))
            if known is None or op.version is None or not 1 <= op.version <= known:
                newest = "not an op of this build" if known is None else f"this build knows version 1 to {known}"
                return f"{op.name} version {op.version}: {newest}; take the kernels of the release that wrote the file"
        elif op.custom:
            return f"{op.name}: a custom op of others, which needs its own library"
    return None


def _bare(op: Op) -> str:
    return op.name.removeprefix("voxpress.").removeprefix("voxpress::").removesuffix(".out")


def _short_input(contents: ModelContents) -> npt.NDArray[np.float32]:
    """One utterance of noise, as short as the model takes it."""
    frames, shape = frames_at_rest(contents), contents.inputs[0].shape
    rows = frames
    if contents.manifest is not None and contents.manifest.input == "waveform":
        rows = samples_of(frames, contents.manifest.frontend)
    rng = np.random.default_rng(0)
    return rng.normal(0, 0.1, (1, rows, *(abs(size) for size in shape[2:]))).astype(np.float32)
