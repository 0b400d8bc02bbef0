"""A bundle on a device: its model files run there, and all that is needed to judge them kept beside the run.

The folder of a run holds `run.json`, `embeddings/` as the device gave them, `references/` (the same utterances by the
decoded artifacts, in torch) and `context.json` (trials, speakers, thresholds, golden vectors). A report is made of that
folder alone.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from device_tests.drive.device import Device
from device_tests.drive.run import ModelFile, run_on_device
from device_tests.evaluate import speakers_by_folder, trial_features, trials_between
from device_tests.gates import DEFAULT_GATES, Verdicts, judge, read_gates
from device_tests.records import BundleIdentity, Embedding, Protocol, RunRecord, read_embeddings, read_run
from device_tests.report.build import Golden, build_report
from device_tests.report.figures import Report
from exporters.bundle import (
    GOLDEN_EMBEDDINGS,
    GOLDEN_FBANK,
    GOLDEN_WAV,
    MANIFEST_FILE,
    Manifest,
    checked_file,
    read_manifest,
    unzip_bundle,
    verify_bundle,
)
from pipeline.artifact.decode import decode
from pipeline.artifact.embed import embed
from pipeline.artifact.store import read_artifact
from pipeline.corpus.audio import read_utterance
from pipeline.corpus.read import read_corpus, speakers_of
from pipeline.corpus.synthetic import make_synthetic_corpus
from pipeline.corpus.trials import Trial, all_pairs_trials
from pipeline.errors import InputError
from pipeline.features.fbank import features as make_features
from pipeline.features.spec import FrontEndSpec
from pipeline.features.store import extract_features
from pipeline.files import read_json, sha256_file, write_atomically
from pipeline.progress import Progress

CONTEXT_FILE = "context.json"
REFERENCES = "references"
GOLDEN_UTTERANCE = "golden/utterance.wav"
_GOLDEN_REFERENCES = "golden.safetensors"
_REFERENCE_LABEL = "fp32"

# Embedded voices, where no speech is given: enough trials to see that nothing is broken, too few to rank anything.
_VOICES = {"speakers": 8, "sessions": 1, "utterances_per_session": 3, "seconds": (1.0, 2.0), "seed": 0}

Features = Mapping[str, npt.NDArray[np.float32]]


class RunContext(BaseModel):
    """What a run is judged by, beside its references."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    speech: str
    trials: tuple[Trial, ...]
    speakers: dict[str, str] | None
    thresholds: dict[str, float]
    front_end_difference: float


@dataclass(frozen=True)
class Speech:
    """Utterances to run, and the trials between them."""

    name: str
    features: Features
    trials: Sequence[Trial]
    speakers: Mapping[str, str] | None
    crop_seconds: float | None  # to which utterances were cut; None: whole


@dataclass(frozen=True)
class SpeechChoice:
    """Which speech: a trial list between files below `audio`, or, without both, embedded voices."""

    audio: Path | None = None
    trials: Path | None = None
    crop_seconds: float | None = None  # None: as much of an utterance as every model takes

    def load(self, spec: FrontEndSpec, max_seconds: float, progress: Progress) -> Speech:
        """Features by the bundle's front end. Raises InputError for half a choice or files that are not there."""
        crop = min(max_seconds, self.crop_seconds or max_seconds)
        if self.audio is not None and self.trials is not None:
            trials, names = trials_between(self.audio, self.trials)
            made = trial_features(self.audio, names, spec, crop, progress)
            return Speech(f"{self.trials.name}, first {crop:g} s", made, trials, speakers_by_folder(names), crop)
        if self.audio is not None or self.trials is not None:
            found = "only --trials" if self.audio is None else "only --audio"
            raise InputError("--audio and --trials", expected="both or neither", found=found)
        with tempfile.TemporaryDirectory(prefix="voxpress-") as name:
            folder = Path(name) / "voices"
            make_synthetic_corpus(folder, **_VOICES)  # type: ignore[arg-type]
            cuts = read_corpus(folder, sample_rate_hz=spec.sample_rate_hz, min_seconds=spec.min_seconds)
            return Speech(
                "embedded synthetic voices, which say nothing about real speech",
                extract_features(cuts, spec),
                all_pairs_trials(cuts),
                speakers_of(cuts),
                None,
            )


@dataclass(frozen=True)
class PreparedBundle:
    """A bundle ready to run: what a device gets, and what its results are judged by."""

    folder: Path
    manifest: Manifest
    models: Sequence[ModelFile]
    features: Features  # the speech's, and the golden utterance's
    speech: Speech
    identity: BundleIdentity

    def write_judgement(self, out: Path, progress: Progress) -> None:
        """Write `references/` and, last, `context.json`."""
        golden = _tensors(checked_file(self.folder, self.manifest, GOLDEN_EMBEDDINGS))
        for label in sorted({_REFERENCE_LABEL, *(model.bits for model in self.models)}):
            network = decode(read_artifact(self.folder / "artifacts" / label))
            made = embed(network, self.features, progress, f"reference {label}")
            write_atomically(out / REFERENCES / f"{label}.safetensors", save(dict(made)))
        write_atomically(out / REFERENCES / _GOLDEN_REFERENCES, save(golden))
        context = RunContext(
            title=f"{self.manifest.name} {self.manifest.version}",
            speech=self.speech.name,
            trials=tuple(self.speech.trials),
            speakers=None if self.speech.speakers is None else dict(self.speech.speakers),
            thresholds={},
            front_end_difference=front_end_difference(self.folder, self.manifest),
        )
        write_atomically(out / CONTEXT_FILE, context.model_dump_json(indent=1) + "\n")


@contextmanager
def prepared_bundle(
    bundle: Path, speech: SpeechChoice, progress: Progress, only: Sequence[str] = ()
) -> Iterator[PreparedBundle]:
    """A bundle's model files (or those named `only`) and the features to run them on.

    Raises InputError if the bundle is not what its manifest says or has no such files.
    """
    with opened_bundle(bundle) as folder:
        manifest = verify_bundle(folder)
        entries = [entry for entry in manifest.models if not only or Path(entry.file).name in only]
        if not entries:
            names = ", ".join(Path(entry.file).name for entry in manifest.models)
            raise InputError(folder / MANIFEST_FILE, expected=f"models among {names}", found=", ".join(only))
        loaded = speech.load(manifest.frontend, min(entry.max_seconds for entry in entries), progress)
        golden = load_file(checked_file(folder, manifest, GOLDEN_FBANK))["fbank"]
        models = [
            ModelFile(
                path=checked_file(folder, manifest, entry.file),
                format=entry.format,
                bits=entry.label,
                lowering=entry.lowering,
                is_control=entry.label == _REFERENCE_LABEL and entry.lowering == "stock",
            )
            for entry in entries
        ]
        identity = BundleIdentity(
            name=manifest.name, version=manifest.version, manifest_sha256=sha256_file(folder / MANIFEST_FILE)
        )
        features = {**loaded.features, GOLDEN_UTTERANCE: golden}
        yield PreparedBundle(folder, manifest, models, features, loaded, identity)


def run_bundle(
    device: Device, bundle: PreparedBundle, out: Path, *, protocol: Protocol, progress: Progress
) -> RunRecord:
    """Run a bundle's model files on a device, into `out`. Raises what `run_on_device` raises."""
    run = run_on_device(
        device,
        bundle.models,
        bundle.features,
        out,
        protocol=protocol.model_copy(update={"crop_seconds": bundle.speech.crop_seconds}),
        progress=progress,
        bundle=bundle.identity,
    )
    bundle.write_judgement(out, progress)
    return run


def front_end_difference(folder: Path, manifest: Manifest) -> float:
    """Largest |f - g|: f are the features that the manifest's front end makes of the golden wav, g the golden ones.

    Infinite if they have not even the same shape.
    """
    spec = manifest.frontend
    samples = read_utterance(checked_file(folder, manifest, GOLDEN_WAV), spec.sample_rate_hz, spec.min_seconds)
    golden = load_file(checked_file(folder, manifest, GOLDEN_FBANK))["fbank"]
    made = make_features(samples, spec)
    return float(np.abs(made - golden).max()) if made.shape == golden.shape else float("inf")


def report_run(folder: Path, gates_file: Path = DEFAULT_GATES) -> tuple[Report, Verdicts]:
    """Make the report of a run's folder, in it, and judge it. Raises InputError."""
    run = read_run(folder)
    context = read_json(folder / CONTEXT_FILE, RunContext, what="the context of a run")
    labels = sorted({_REFERENCE_LABEL, *(model.bits for model in run.models)})
    references = {label: read_embeddings(folder / REFERENCES / f"{label}.safetensors") for label in labels}
    golden = Golden(
        GOLDEN_UTTERANCE,
        context.front_end_difference,
        _tensors(folder / REFERENCES / _GOLDEN_REFERENCES),
    )
    gates = read_gates(gates_file, run.device_class)
    run = run.model_copy(update={"notes": (*run.notes, f"speech: {context.speech}")})
    report = build_report(
        run,
        folder,
        references[_REFERENCE_LABEL],
        references,
        context.trials,
        folder,
        title=f"{context.title} on {run.device}",
        speakers=context.speakers,
        golden=golden,
        thresholds=context.thresholds,
        gates=gates,
    )
    return report, judge(report, gates)


@contextmanager
def opened_bundle(bundle: Path) -> Iterator[Path]:
    """The folder of a bundle: itself, or what its zip holds. Raises InputError if it is neither."""
    if bundle.suffix == ".zip" and bundle.is_file():
        with tempfile.TemporaryDirectory(prefix="voxpress-") as name:
            unzip_bundle(bundle, Path(name))
            yield Path(name)
    elif (bundle / MANIFEST_FILE).is_file():
        read_manifest(bundle)
        yield bundle
    else:
        found = "none of both" if bundle.exists() else "no such file or folder"
        raise InputError(bundle, expected="a bundle's folder or zip", found=found)


def _tensors(path: Path) -> dict[str, Embedding]:
    try:
        tensors: dict[str, Embedding] = load_file(path)
    except FileNotFoundError:
        raise InputError(path, expected="golden embeddings", found="no such file") from None
    except (OSError, SafetensorError) as error:
        raise InputError(path, expected="golden embeddings", found=str(error)) from error
    return tensors
