"""What can be run over utterances: pre-trained models and artifacts in torch, model files by their engines, bundles."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from calibration.ranges import Mode
from calibration.record import Subject
from device_tests.drive.process import HostDevice
from device_tests.drive.run import embed_with_engine
from exporters.bundle.archive import opened_bundle
from exporters.bundle.contents import checked_file, read_manifest
from exporters.bundle.manifest import MANIFEST_FILE, Manifest
from exporters.manifest import ModelInput, ModelManifest
from exporters.model_file import read_model_manifest
from pipeline.artifact.decode import decode
from pipeline.artifact.embed import embed as embed_in_torch
from pipeline.artifact.store import HEADER_FILE as ARTIFACT_FILE
from pipeline.artifact.store import WEIGHTS_FILE, read_artifact
from pipeline.errors import InputError
from pipeline.features.fbank import frames_of, samples_of
from pipeline.features.spec import FrontEndSpec
from pipeline.files import sha256_file
from pipeline.models.store import HEADER_FILE as MODEL_FILE
from pipeline.models.store import read_pretrained
from pipeline.progress import Progress

Inputs = Mapping[str, npt.NDArray[np.float32]]  # by utterance: features [frames, mel] or samples [S]
Embeddings = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Embedded:
    """Embeddings [E] by utterance, and what made them."""

    embeddings: Embeddings
    runtime: str
    kernels: tuple[str, ...]


@dataclass(frozen=True)
class How:
    """How models are run; low_memory is of VoxPress ops only."""

    threads: int = 1
    low_memory: bool = False


@dataclass(frozen=True)
class Runnable:
    """Something that embeds utterances: what it is, what it takes of them, and `embed(inputs, how, progress)`."""

    subject: Subject
    frontend: FrontEndSpec
    input: ModelInput
    embed: Callable[[Inputs, How, Progress], Embedded]
    mode: Mode = "exact"

    @property
    def name(self) -> str:
        """The name that tables show."""
        return self.subject.name


@contextmanager
def runnables(model: Path, only: str | None = None) -> Iterator[list[Runnable]]:
    """What there is to run at a path, while the block lasts.

    model: folder of a pre-trained model or an artifact (run by the torch reference), a .pte or .tflite file (run by its
    device engine), or a bundle folder or zip (every model file in it, or the one named `only`).
    Raises InputError naming the file for anything else, and for a bundle's file whose bytes are not the manifest's.
    """
    if (model / MANIFEST_FILE).is_file() or (model.suffix == ".zip" and model.is_file()):
        with opened_bundle(model) as folder:
            yield _of_bundle(folder, read_manifest(folder), only)
    elif (model / ARTIFACT_FILE).is_file():
        artifact = read_artifact(model)
        subject = Subject(name=model.resolve().name, kind="artifact", sha256=sha256_file(model / WEIGHTS_FILE))
        yield [_in_torch(subject, decode(artifact), artifact.header.frontend)]
    elif (model / MODEL_FILE).is_file():
        pretrained = read_pretrained(model)
        subject = Subject(name=model.resolve().name, kind="pre-trained model", sha256=pretrained.sha256)
        yield [_in_torch(subject, pretrained.network, pretrained.frontend)]
    elif model.suffix in (".pte", ".tflite"):
        yield [_by_engine(model)]
    else:
        what = "a pre-trained model, an artifact, a .pte, a .tflite or a bundle"
        found = "none of these" if model.exists() else "no such file or folder"
        raise InputError(model, expected=what, found=found)


@contextmanager
def one_runnable(model: Path, only: str | None = None) -> Iterator[Runnable]:
    """The one thing to run at a path. Raises InputError as `runnables`, and if there are several."""
    with runnables(model, only) as found:
        if len(found) != 1:
            raise InputError(model, expected="one model (--only)", found=f"{len(found)}")
        yield found[0]


def _of_bundle(folder: Path, manifest: Manifest, only: str | None) -> list[Runnable]:
    chosen = [entry for entry in manifest.models if only in (None, Path(entry.file).name)]
    if not chosen:
        names = ", ".join(Path(entry.file).name for entry in manifest.models)
        raise InputError(folder / MANIFEST_FILE, expected=f"one of the models {names}", found=str(only))
    return [_by_engine(checked_file(folder, manifest, entry.file)) for entry in chosen]


def _by_engine(path: Path) -> Runnable:
    manifest = read_model_manifest(path)

    def embed(inputs: Inputs, how: How, progress: Progress) -> Embedded:
        _require_lengths(path, manifest, inputs)
        embeddings, record = embed_with_engine(
            HostDevice(), path, inputs, threads=how.threads, low_memory=how.low_memory, progress=progress
        )
        return Embedded(embeddings, f"{record.engine} {record.runtime_version}", record.kernels)

    subject = Subject(name=path.name, kind="model file", sha256=sha256_file(path))
    return Runnable(subject, manifest.frontend, manifest.input, embed, manifest.mode)


def _require_lengths(path: Path, manifest: ModelManifest, inputs: Inputs) -> None:
    """Raise InputError naming an utterance that is too long for a model without a policy for long audio."""
    if manifest.max_frames is None or manifest.long_audio is not None:
        return
    spec = manifest.frontend
    for name, utterance in inputs.items():
        frames = len(utterance) if utterance.ndim == 2 else frames_of(len(utterance), spec)
        if frames > manifest.max_frames:
            longest = (samples_of(manifest.max_frames + 1, spec) - 1) / spec.sample_rate_hz
            instead = "cut it with --crop-seconds, or export with --chunk-seconds or a longer --max-seconds"
            raise InputError(
                name,
                expected=f"at most {longest:.3g} s, which {path.name} takes ({instead})",
                found=f"{samples_of(frames, spec) / spec.sample_rate_hz:.3g} s",
            )


def _in_torch(subject: Subject, network: nn.Module, frontend: FrontEndSpec) -> Runnable:
    def embed(inputs: Inputs, how: How, progress: Progress) -> Embedded:
        torch.set_num_threads(how.threads)
        return Embedded(embed_in_torch(network, inputs, progress, "embedding, torch"), f"torch {torch.__version__}", ())

    return Runnable(subject, frontend, "fbank", embed)
