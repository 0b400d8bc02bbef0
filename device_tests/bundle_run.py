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
from device_tests.drive.inputs import Waveform
from device_tests.drive.run import ModelFile, run_on_device
from device_tests.evaluate import read_cohort
from device_tests.gates import DEFAULT_GATES, Verdicts, judge, read_gates
from device_tests.records import BundleIdentity, Embedding, Protocol, RunRecord, read_embeddings, read_run
from device_tests.report.build import Golden, build_report
from device_tests.report.decision import Cohort, Decision
from device_tests.report.figures import Report
from device_tests.trial_set import extract_inputs, read_trial_set
from exporters.bundle.archive import opened_bundle
from exporters.bundle.contents import check_contents, checked_file
from exporters.bundle.manifest import MANIFEST_FILE, BundledCalibration, BundledModel, Manifest
from exporters.long_audio import embed_by_policy
from pipeline.artifact.decode import decode
from pipeline.artifact.store import read_artifact
from pipeline.corpus.audio import read_utterance
from pipeline.corpus.read import read_corpus, speakers_of
from pipeline.corpus.synthetic import make_synthetic_corpus
from pipeline.corpus.trials import Trial, all_pairs_trials
from pipeline.errors import InputError
from pipeline.features.fbank import features as make_features
from pipeline.features.fbank import samples_of
from pipeline.features.spec import FrontEndSpec
from pipeline.files import read_json, sha256_file, write_atomically
from pipeline.progress import Progress

CONTEXT_FILE = "context.json"
REFERENCES = "references"
GOLDEN_UTTERANCE = "golden/utterance.wav"
_GOLDEN_REFERENCES = "golden.safetensors"
FLOAT_LABEL = "fp32"

# Embedded voices, where no speech is given: enough trials to see that nothing is broken, too few to rank anything.
_VOICES = {"speakers": 8, "sessions": 1, "utterances_per_session": 3, "seconds": (1.0, 2.0), "seed": 0}

Features = Mapping[str, npt.NDArray[np.float32]]


class StoredThreshold(BaseModel):
    """A calibrated decision threshold; of AS-Norm scores if there is a cohort for these."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    threshold: float
    cohort: str | None  # its file's name among the references
    top: int | None  # nearest speakers of the cohort that are taken

    def decision(self, references: Path) -> Decision:
        """It with its cohort read. Raises InputError naming the cohort's file."""
        if self.cohort is None or self.top is None:
            return Decision(self.threshold)
        return Decision(self.threshold, Cohort(read_cohort(references / self.cohort), self.top))


class RunContext(BaseModel):
    """What a run is judged by, beside its references."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str
    speech: str
    trials: tuple[Trial, ...]
    speakers: dict[str, str] | None
    reference: str  # label of the artifact that is the reference of all: fp32 where the bundle has one
    thresholds: dict[str, StoredThreshold]  # the bundle's calibrated ones at the EER, by file
    front_end_difference: float


@dataclass(frozen=True)
class Speech:
    """Utterances to run, and the trials between them."""

    name: str
    features: Features
    samples: Features | None  # None: no model takes them
    trials: Sequence[Trial]
    speakers: Mapping[str, str] | None
    crop_seconds: float | None  # to which utterances were cut; None: whole


@dataclass(frozen=True)
class SpeechChoice:
    """Which speech: a trial list between files below `audio`, or, without both, embedded voices."""

    audio: Path | None = None
    trials: Path | None = None
    crop_seconds: float | None = None  # None: as much of an utterance as every model takes

    def load(self, spec: FrontEndSpec, max_seconds: float | None, progress: Progress, *, samples: bool) -> Speech:
        """Features by the bundle's front end, and samples if they are wanted, of at most `max_seconds`; None: no limit.

        Raises InputError for half a choice or files that are not there.
        """
        crop = min((limit for limit in (max_seconds, self.crop_seconds) if limit is not None), default=None)
        if self.audio is not None and self.trials is not None:
            trial_set = read_trial_set(self.audio, self.trials, crop_seconds=crop or 0.0)
            return Speech(
                self.trials.name if crop is None else f"{self.trials.name}, first {crop:g} s",
                trial_set.features(spec, progress),
                trial_set.inputs(spec, "waveform", progress) if samples else None,
                trial_set.trials,
                trial_set.speakers,
                crop,
            )
        if self.audio is not None or self.trials is not None:
            found = "only --trials" if self.audio is None else "only --audio"
            raise InputError("--audio and --trials", expected="both or neither", found=found)
        with tempfile.TemporaryDirectory(prefix="voxpress-") as name:
            folder = Path(name) / "voices"
            make_synthetic_corpus(folder, **_VOICES)  # type: ignore[arg-type]
            cuts = read_corpus(folder, sample_rate_hz=spec.sample_rate_hz, min_seconds=spec.min_seconds)
            return Speech(
                "embedded synthetic voices, which say nothing about real speech",
                extract_inputs(cuts, spec, "fbank"),
                extract_inputs(cuts, spec, "waveform") if samples else None,
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
    waveform: Waveform | None  # likewise
    speech: Speech
    identity: BundleIdentity
    chunk_frames: int | None  # the length of chunks that all models embed long audio in; None: no utterance is so long

    def write_judgement(self, out: Path, progress: Progress) -> None:
        """Write `references/` and, last, `context.json`."""
        manifest = self.manifest
        golden = _tensors(checked_file(self.folder, manifest, manifest.golden.embeddings))
        reference = reference_label(manifest)
        for label in sorted({reference, *(model.bits for model in self.models)}):
            network = decode(read_artifact(self.folder / manifest.artifact(label).folder))
            made = embed_by_policy(
                network, self.features, self.chunk_frames, manifest.frontend, progress, f"reference {label}"
            )
            write_atomically(out / REFERENCES / f"{label}.safetensors", save(dict(made)))
        write_atomically(out / REFERENCES / _GOLDEN_REFERENCES, save(golden))
        for calibration in manifest.calibrations:
            if calibration.cohort is not None:
                cohort = checked_file(self.folder, manifest, calibration.cohort)
                write_atomically(out / REFERENCES / _cohort_name(calibration), cohort.read_bytes())
        context = RunContext(
            title=f"{manifest.name} {manifest.version}",
            speech=self.speech.name,
            trials=tuple(self.speech.trials),
            speakers=None if self.speech.speakers is None else dict(self.speech.speakers),
            reference=reference,
            thresholds=thresholds(manifest),
            front_end_difference=front_end_difference(self.folder, manifest),
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
        manifest = check_contents(folder)
        entries = [entry for entry in manifest.models if not only or Path(entry.file).name in only]
        if not entries:
            names = ", ".join(Path(entry.file).name for entry in manifest.models)
            raise InputError(folder / MANIFEST_FILE, expected=f"models among {names}", found=", ".join(only))
        spec = manifest.frontend
        wants_samples = any(entry.input == "waveform" for entry in entries)
        loaded = speech.load(spec, _longest_seconds(entries, spec), progress, samples=wants_samples)
        golden = load_file(checked_file(folder, manifest, manifest.golden.fbank))["fbank"]
        models = [
            ModelFile(
                path=checked_file(folder, manifest, entry.file),
                format=entry.format,
                bits=entry.label,
                lowering=entry.lowering,
                mode=entry.mode,
                input=entry.input,
                is_control=entry.label == FLOAT_LABEL and entry.lowering == "stock",
                weights=None if entry.weights is None else checked_file(folder, manifest, entry.weights),
            )
            for entry in entries
        ]
        identity = BundleIdentity(
            name=manifest.name, version=manifest.version, manifest_sha256=sha256_file(folder / MANIFEST_FILE)
        )
        features = {**loaded.features, GOLDEN_UTTERANCE: golden}
        waveform = None
        if loaded.samples is not None:
            wav = checked_file(folder, manifest, manifest.golden.wav)
            said = read_utterance(wav, spec.sample_rate_hz, spec.min_seconds)
            waveform = Waveform({**loaded.samples, GOLDEN_UTTERANCE: said}, spec)
        lengths = {entry.chunk_frames for entry in entries}
        chunk_frames = lengths.pop() if len(lengths) == 1 else None
        yield PreparedBundle(folder, manifest, models, features, waveform, loaded, identity, chunk_frames)


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
        waveform=bundle.waveform,
    )
    bundle.write_judgement(out, progress)
    return run


def front_end_difference(folder: Path, manifest: Manifest) -> float:
    """Largest |f - g|: f are the features that the manifest's front end makes of the golden wav, g the golden ones.

    Infinite if they have not even the same shape.
    """
    spec = manifest.frontend
    wav = checked_file(folder, manifest, manifest.golden.wav)
    samples = read_utterance(wav, spec.sample_rate_hz, spec.min_seconds)
    golden = load_file(checked_file(folder, manifest, manifest.golden.fbank))["fbank"]
    made = make_features(samples, spec)
    return float(np.abs(made - golden).max()) if made.shape == golden.shape else float("inf")


def report_run(folder: Path, gates_file: Path = DEFAULT_GATES) -> tuple[Report, Verdicts]:
    """Make the report of a run's folder, in it, and judge it. Raises InputError."""
    run = read_run(folder)
    context = read_json(folder / CONTEXT_FILE, RunContext, what="the context of a run")
    labels = sorted({context.reference, *(model.bits for model in run.models)})
    references = {label: read_embeddings(folder / REFERENCES / f"{label}.safetensors") for label in labels}
    golden = Golden(
        GOLDEN_UTTERANCE,
        context.front_end_difference,
        _tensors(folder / REFERENCES / _GOLDEN_REFERENCES),
    )
    gates = read_gates(gates_file, run.device_class)
    notes = [*run.notes, f"speech: {context.speech}"]
    if context.reference != FLOAT_LABEL:
        notes.append(f"the bundle has no {FLOAT_LABEL} artifact: the reference of all files is {context.reference}")
    notes += _threshold_notes(run, context)
    run = run.model_copy(update={"notes": tuple(notes)})
    report = build_report(
        run,
        folder,
        references[context.reference],
        references,
        context.trials,
        folder,
        title=f"{context.title} on {run.device}",
        speakers=context.speakers,
        golden=golden,
        decisions={file: one.decision(folder / REFERENCES) for file, one in context.thresholds.items()},
        gates=gates,
        reference_label=context.reference,
    )
    return report, judge(report, gates)


def reference_label(manifest: Manifest) -> str:
    """Label of the artifact that all files are compared with: fp32, or in a bundle without it the one of most bits."""
    labels = [artifact.label for artifact in manifest.artifacts]
    if FLOAT_LABEL in labels:
        return FLOAT_LABEL
    return max(manifest.artifacts, key=lambda artifact: (artifact.bits_per_weight, artifact.label)).label


def thresholds(manifest: Manifest) -> dict[str, StoredThreshold]:
    """Calibrated decision thresholds at the EER, by bare file name."""
    found: dict[str, StoredThreshold] = {}
    for calibration in manifest.calibrations:
        at_eer = [one.threshold for one in calibration.thresholds if one.name == "eer"]
        if not at_eer:
            continue
        stored = StoredThreshold(
            threshold=at_eer[0],
            cohort=None if calibration.cohort is None else _cohort_name(calibration),
            top=None if calibration.cohort_info is None else calibration.cohort_info.top,
        )
        found |= {Path(name).name: stored for name in calibration.models}
    return found


def _cohort_name(calibration: BundledCalibration) -> str:
    return f"cohort-{calibration.label}-{calibration.mode}.safetensors"


def _threshold_notes(run: RunRecord, context: RunContext) -> list[str]:
    """Which thresholds decisions are compared at, and why, where they are not the bundle's of cosines."""
    files = [model.file for model in run.models]
    without = [file for file in files if file not in context.thresholds]
    normalised = [file for file in files if file in context.thresholds and context.thresholds[file].cohort is not None]
    notes = []
    if without:
        notes.append(
            f"{', '.join(without)}: the bundle has no calibrated threshold at the EER for them, so decision flips are "
            "counted at that of the EER found here"
        )
    if normalised:
        notes.append(
            f"{', '.join(normalised)}: calibrated for AS-Norm scores. Flips to the artifact are of such scores, with "
            f"the bundle's cohort, at its threshold; those to {context.reference}, of which there is no cohort, and "
            "all error rates are of cosines"
        )
    return notes


def _longest_seconds(entries: Sequence[BundledModel], spec: FrontEndSpec) -> float | None:
    """The longest utterance that all models take, in chunks if all take it in the same ones; None: any."""
    limits = [entry.max_frames for entry in entries if entry.max_frames is not None and entry.chunk_frames is None]
    lengths = {entry.chunk_frames for entry in entries}
    if len(lengths) > 1:
        limits += [length for length in lengths if length is not None]
    return samples_of(min(limits), spec) / spec.sample_rate_hz if limits else None


def _tensors(path: Path) -> dict[str, Embedding]:
    try:
        tensors: dict[str, Embedding] = load_file(path)
    except FileNotFoundError:
        raise InputError(path, expected="golden embeddings", found="no such file") from None
    except (OSError, SafetensorError) as error:
        raise InputError(path, expected="golden embeddings", found=str(error)) from error
    return tensors
