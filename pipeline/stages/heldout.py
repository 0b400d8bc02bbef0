"""The held-out utterances of a run and how a network does on their trials."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

from pipeline.artifact.embed import embed
from pipeline.corpus.read import read_cuts, speakers_of
from pipeline.corpus.trials import Trial, read_trials
from pipeline.features.spec import FrontEndSpec
from pipeline.features.store import extract_features
from pipeline.progress import Progress
from pipeline.scoring.score import Evaluation, evaluate_embeddings
from pipeline.stages.corpus import HELDOUT_FILE, TRIALS_FILE

Features = Mapping[str, npt.NDArray[np.float32]]


def heldout_trials(corpus: Path) -> list[Trial]:
    """Trials of a run's corpus folder."""
    return read_trials(corpus / TRIALS_FILE)


def heldout_speakers(corpus: Path) -> dict[str, str]:
    """Speaker of every held-out utterance, whom bootstrap intervals resample."""
    return speakers_of(read_cuts(corpus / HELDOUT_FILE))


def heldout_features(corpus: Path, spec: FrontEndSpec, progress: Progress, *, crop_seconds: float = 0.0) -> Features:
    """Mean-normalised features of the held-out utterances; of their first `crop_seconds` if that is not 0."""
    cuts = read_cuts(corpus / HELDOUT_FILE)
    if crop_seconds:
        cuts = cuts.truncate(max_duration=crop_seconds, offset_type="start", preserve_id=True)
    with progress.task("features", len(cuts)) as task:
        return extract_features(cuts, spec, lambda done, total: task.advance())


def evaluate_heldout(
    network: nn.Module, corpus: Path, spec: FrontEndSpec, progress: Progress, label: str
) -> Evaluation:
    """EER and minDCF of a network on a run's held-out trials."""
    features = heldout_features(corpus, spec, progress)
    embeddings = embed(network, features, progress, label)
    return evaluate_embeddings(embeddings, heldout_trials(corpus), speakers=heldout_speakers(corpus))
