"""Model files of contenders, each in a folder of its own; what is there and was made alike is kept."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from safetensors.numpy import save

from device_tests.bench.contenders import Contender
from device_tests.bench.made_by import EXPORTING, PEERS, VERIFYING, native_sha256, sources_sha256
from device_tests.bench.process import engine_environment
from device_tests.bench.subject import Subject, features_digest, write_reference
from exporters.export import ExportRequest, export_artifact, prepare_fast
from exporters.peers.build import FILES_LIST
from exporters.peers.catalogue import INSTALL_HINT
from exporters.verify import FastReference
from pipeline.artifact.store import WEIGHTS_FILE, LoadedArtifact, read_artifact
from pipeline.errors import InputError, VerificationError, VoxPressError
from pipeline.files import folder_written_whole, sha256_file, write_atomically
from pipeline.progress import Progress
from pipeline.stamp import STAMP_FILE, current_stamp, make_stamp, write_stamp

Floats = npt.NDArray[np.float32]

# Minutes are usual for a large network on a busy machine; what takes longer hangs.
BUILD_WITHIN_SECONDS = 1800.0
_LAST_LINES = 3


@dataclass(frozen=True)
class Built:
    """Files of a contender for one length, the one to be loaded first; or why there are none."""

    files: tuple[Path, ...] = ()
    failure: str | None = None


class _Settings(BaseModel):
    """What a built folder depends on beside its inputs."""

    model_config = ConfigDict(frozen=True)

    contender: str
    frames: int | None
    max_seconds: float
    packages: dict[str, str]
    made_by: dict[str, str]


class Builder:
    """Builds contenders of one subject below a work folder."""

    def __init__(self, subject: Subject, work: Path, *, max_seconds: float, progress: Progress) -> None:
        """`max_seconds`: the longest utterance that will be measured."""
        self.subject, self.work, self.max_seconds, self.progress = subject, work, max_seconds, progress
        self._fast: dict[str, FastReference] = {}
        self._reference = work / "reference"
        write_reference(subject, self._reference)
        self._calibration = work / "calibration.safetensors"
        write_atomically(self._calibration, save(dict(subject.calibration)))
        self._reference_sha256 = sha256_file(self._reference / WEIGHTS_FILE)
        self._calibration_sha256 = features_digest(subject.calibration)

    def build(self, contender: Contender, frames: int) -> Built:
        """The files of a contender for utterances of `frames` frames.

        What goes wrong with a peer is in the result, and so is one of our own files that is too far from its reference.
        """
        fixed = contender.peer is not None and contender.peer.fixed_length
        missing = contender.peer.missing_packages() if contender.peer is not None else ()
        if missing:
            return Built(failure=f"not installed: {', '.join(missing)} ({INSTALL_HINT})")
        settings = _Settings(
            contender=contender.name if contender.peer is not None else _file_name(contender),
            frames=frames if fixed else None,
            max_seconds=self.max_seconds,
            packages=_versions(contender),
            made_by=_made_by(contender),
        )
        inputs = self._inputs_of(contender)
        name = settings.contender if not fixed else f"{settings.contender}-{frames}"
        folder = self.work / "files" / name
        if current_stamp("bench", settings, inputs, folder) is None:
            try:
                with folder_written_whole(folder) as partial:
                    if contender.peer is not None:
                        self._build_peer(contender.peer.name, partial, frames)
                    else:
                        self._build_ours(contender, partial)
                    write_stamp(partial, make_stamp("bench", settings, inputs, partial))
            except (_PeerError, VerificationError) as failure:
                return Built(failure=str(failure))
        names = json.loads((folder / FILES_LIST).read_text(encoding="utf-8"))
        return Built(files=tuple(folder / name for name in names))

    def _build_ours(self, contender: Contender, folder: Path) -> None:
        if contender.bits is None or contender.format is None or contender.mode is None:
            raise ValueError(f"{contender.name} is none of our files")
        artifact = read_artifact(self.subject.pressed[contender.bits])
        fast = self._fast_reference(contender.bits, artifact) if contender.mode.mode == "fast" else None
        request = ExportRequest(artifact, contender.bits, contender.format, "voxpress", fast)
        exported = export_artifact(request, folder, max_seconds=self.max_seconds)
        write_atomically(folder / FILES_LIST, json.dumps([exported.file]) + "\n")

    def _fast_reference(self, bits: str, artifact: LoadedArtifact) -> FastReference:
        """What both formats' files of a width in mode fast are made by."""
        if bits not in self._fast:
            folder = self.work / "activations" / bits
            folder.mkdir(parents=True, exist_ok=True)
            utterances = dict(self.subject.calibration)
            self._fast[bits] = prepare_fast(
                artifact, utterances, folder, max_seconds=self.max_seconds, progress=self.progress
            )
        return self._fast[bits]

    def _build_peer(self, name: str, folder: Path, frames: int) -> None:
        command = [sys.executable, "-m", "exporters.peers.build", name, "--artifact", str(self._reference)]
        command += ["--calibration", str(self._calibration), "--out", str(folder), "--frames", str(frames)]
        command += ["--max-seconds", str(self.max_seconds)]
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=engine_environment(),
                timeout=BUILD_WITHIN_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise _PeerError(f"its converter did not end within {BUILD_WITHIN_SECONDS:g} s") from None
        said = [" ".join(line.split()) for line in done.stdout.splitlines() if line.strip()]
        if done.returncode == VoxPressError.exit_code and said:
            raise _PeerError(f"could not be built: {said[-1]}")
        if done.returncode != 0:
            raise _PeerError(f"its converter ended with code {done.returncode}: {' | '.join(said[-_LAST_LINES:])}")
        _keep_listed(folder)

    def _inputs_of(self, contender: Contender) -> dict[str, str]:
        """Hashes of what its files are made from: activation ranges come from the calibration crops."""
        weights = self._reference_sha256 if contender.peer is not None else self._pressed_sha256(contender)
        exact = contender.kind in ("fp32", "weight-only") or (
            contender.mode is not None and contender.mode.mode == "exact"
        )
        return {"weights": weights} if exact else {"weights": weights, "calibration": self._calibration_sha256}

    def _pressed_sha256(self, contender: Contender) -> str:
        folder = self.subject.pressed.get(contender.bits or "")
        if folder is None:
            raise InputError("width", expected=f"one of {', '.join(self.subject.pressed)}", found=str(contender.bits))
        return sha256_file(folder / WEIGHTS_FILE)


class _PeerError(Exception):
    """Why a peer has no files."""


def build_all(
    builder: Builder, contenders: Sequence[Contender], lengths: Sequence[int], progress: Progress
) -> dict[tuple[str, int], Built]:
    """Files of every contender for every length, by name and frames."""
    built = {}
    with progress.task("build", len(contenders) * len(lengths)) as task:
        for contender in contenders:
            for frames in lengths:
                task.note(contender.name)
                built[contender.name, frames] = builder.build(contender, frames)
                task.advance()
    return built


def _keep_listed(folder: Path) -> None:
    """Remove what a converter left beside the files it lists."""
    kept = {*json.loads((folder / FILES_LIST).read_text(encoding="utf-8")), FILES_LIST, STAMP_FILE}
    for path in folder.iterdir():
        if path.name in kept:
            continue
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _file_name(contender: Contender) -> str:
    """Name of our file, which modes with and without low memory share."""
    return f"{contender.bits}-{contender.mode.mode if contender.mode else ''}.{contender.format}"


def _versions(contender: Contender) -> dict[str, str]:
    return {name: version(name) for name in contender.peer.packages} if contender.peer is not None else {}


def _made_by(contender: Contender) -> dict[str, str]:
    """Hashes of the code that makes its files."""
    if contender.peer is not None:
        return {"sources": sources_sha256(PEERS)}
    return {"sources": sources_sha256(EXPORTING), "native": native_sha256(VERIFYING)}
