"""A trial list with the speech it is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from lhotse import CutSet, MonoCut

from exporters.manifest import ModelInput
from pipeline.corpus.read import read_cuts, read_utterances, speakers_of
from pipeline.corpus.trials import Trial, check_trials_against, read_trials
from pipeline.features.spec import FrontEndSpec
from pipeline.features.store import FeatureSource, extract_features
from pipeline.files import sha256_file
from pipeline.progress import Progress

Inputs = Mapping[str, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class TrialSet:
    """Trials, the utterances they are between (sorted) and, where it is known, the speaker of each."""

    audio: Path
    file: Path
    crop_seconds: float
    trials: tuple[Trial, ...]
    utterances: tuple[str, ...]
    speakers: Mapping[str, str] | None

    @property
    def sha256(self) -> str:
        """Of the list's bytes."""
        return sha256_file(self.file)

    def features(self, spec: FrontEndSpec, progress: Progress) -> Inputs:
        """Mean-normalised features [frames, mel] by utterance; of the first `crop_seconds` if that is not 0."""
        return self.inputs(spec, "fbank", progress)

    def inputs(self, spec: FrontEndSpec, model_input: ModelInput, progress: Progress) -> Inputs:
        """What a model takes of each utterance, features [frames, mel] or samples [S]; see `features`."""
        if self.audio.is_file():
            cuts = _cuts_of(self.audio, self.utterances)
        else:
            cuts = read_utterances(
                self.audio, self.utterances, sample_rate_hz=spec.sample_rate_hz, min_seconds=spec.min_seconds
            )
        if self.crop_seconds:
            cuts = cuts.truncate(max_duration=self.crop_seconds, offset_type="start", preserve_id=True)
        with progress.task("features" if model_input == "fbank" else "audio", len(self.utterances)) as task:
            return extract_inputs(cuts, spec, model_input, task.advance)


def extract_inputs(
    cuts: Iterable[MonoCut], spec: FrontEndSpec, model_input: ModelInput, on_step: Callable[[], None] = lambda: None
) -> Inputs:
    """Features [frames, mel] or samples [S] by utterance."""
    if model_input == "fbank":
        return extract_features(cuts, spec, lambda done, total: on_step())
    source, samples = FeatureSource(cuts, spec, cache="none"), {}
    for cut_id in source.ids:
        samples[cut_id] = source.samples(cut_id, 0, source.sample_count(cut_id))
        on_step()
    return samples


def read_trial_set(audio: Path, trials_file: Path, *, crop_seconds: float = 0.0) -> TrialSet:
    """Trials of a list and the speech below `audio`.

    audio: a folder that the list's paths are relative to, or a lhotse cut manifest whose ids the list names (a run's
    `corpus/heldout.jsonl.gz` with its `corpus/trials.txt`). Speakers are those of the manifest, or the first folder of
    every path; None if a path has no folder.

    Raises InputError naming the list's line for an utterance that is not there.
    """
    trials = read_trials(trials_file)
    names = sorted({name for trial in trials for name in (trial.enrolment, trial.test)})
    if audio.is_file():
        of_cut = speakers_of(read_cuts(audio))
        present = set(of_cut) & set(names)
        check_trials_against(trials, present, trials_path=trials_file, corpus=audio)
        speakers: dict[str, str] | None = {name: of_cut[name] for name in names}
    else:
        present = {name for name in names if (audio / name).is_file()}
        check_trials_against(trials, present, trials_path=trials_file, corpus=audio)
        by_folder = all("/" in name for name in names)
        speakers = {name: name.partition("/")[0] for name in names} if by_folder else None
    return TrialSet(audio, trials_file, crop_seconds, tuple(trials), tuple(names), speakers)


def _cuts_of(manifest: Path, names: tuple[str, ...]) -> CutSet:
    wanted = set(names)
    return CutSet.from_cuts(cut for cut in read_cuts(manifest) if cut.id in wanted)
