"""How a file's scores become decisions: at a bundle's calibrated threshold, of plain cosines or of AS-Norm scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from calibration.threshold import DecisionFlips, decision_flips
from device_tests.records import Embedding
from pipeline.corpus.trials import Trial
from pipeline.scoring.score import as_norm_scores, cosine_scores

ScoreKind = Literal["cosine", "as-norm"]


@dataclass(frozen=True)
class Cohort:
    """Embeddings [E] of the calibrated model by speaker, and how many of the nearest AS-Norm takes."""

    embeddings: Mapping[str, Embedding]
    top: int


@dataclass(frozen=True)
class Decision:
    """A calibrated threshold, and the cohort that scores are normalised with before; None: they are cosines."""

    threshold: float
    cohort: Cohort | None = None

    @property
    def score(self) -> ScoreKind:
        """What the threshold is of."""
        return "cosine" if self.cohort is None else "as-norm"

    def flips(
        self,
        reference: Mapping[str, Embedding],
        device: Mapping[str, Embedding],
        trials: Sequence[Trial],
        labels: NDArray[np.bool_],
    ) -> DecisionFlips:
        """Decisions by the device's embeddings that are others than by the reference's, at this threshold.

        Both are normalised with the same cohort, so the reference must be of the network that the cohort is of.
        Raises InputError if the cohort does not fit the embeddings.
        """
        return decision_flips(self._scores(reference, trials), self._scores(device, trials), labels, self.threshold)

    def _scores(self, embeddings: Mapping[str, Embedding], trials: Sequence[Trial]) -> NDArray[np.float64]:
        if self.cohort is None:
            return cosine_scores(embeddings, trials)
        return as_norm_scores(embeddings, trials, self.cohort.embeddings, top=self.cohort.top)
