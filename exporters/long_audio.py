"""Long recordings in bounded memory: equally long chunks, evenly spread, and the mean of their directions.

An utterance of T > C frames is cut into n = ceil(T / C) chunks of C frames that begin at floor(i (T - C) / (n - 1)),
i < n; the result is the mean of e_i / |e_i|. Features are mean-normalised over each chunk, so that a model that takes
samples and one that takes features see the same. An utterance of at most C frames is embedded as it is. The same policy
in C++ is exporters/kernels/frontend/chunks.h, which apps and runners call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
from torch import nn

from exporters.manifest import ModelManifest
from pipeline.artifact.embed import embed as embed_whole
from pipeline.features.fbank import frames_of, mean_normalise, samples_of
from pipeline.features.spec import FrontEndSpec
from pipeline.progress import Progress

Floats = npt.NDArray[np.float32]


def chunk_starts(frames: int, chunk_frames: int) -> list[int]:
    """First frames of the chunks of an utterance of so many frames."""
    count = -(-frames // chunk_frames)
    return [0] if count < 2 else [index * (frames - chunk_frames) // (count - 1) for index in range(count)]


def chunks(utterance: Floats, chunk_frames: int, spec: FrontEndSpec) -> Iterator[Floats]:
    """The chunks of samples [S], or of features [T, mel], as the model takes them."""
    if utterance.ndim == 1:
        frames = frames_of(len(utterance), spec)
        if frames <= chunk_frames:
            yield utterance
            return
        for start in chunk_starts(frames, chunk_frames):
            first = start * spec.shift_samples
            yield utterance[first : first + samples_of(chunk_frames, spec)]
    elif len(utterance) <= chunk_frames:
        yield utterance
    else:
        for start in chunk_starts(len(utterance), chunk_frames):
            yield mean_normalise(utterance[start : start + chunk_frames])


def embed_long(embed: Callable[[Floats], Floats], utterance: Floats, manifest: ModelManifest | None) -> Floats:
    """Embedding [E] of samples [S] or features [T, mel] of any length, by `embed`, as the model's manifest says.

    Without a manifest, or if it has no policy for long audio, the utterance is embedded whole.
    """
    if manifest is None or manifest.long_audio is None:
        return embed(utterance)
    return _embed_in_chunks(embed, utterance, manifest.long_audio.chunk_frames, manifest.frontend)


def embed_by_policy(
    network: nn.Module,
    features: Mapping[str, Floats],
    chunk_frames: int | None,
    spec: FrontEndSpec,
    progress: Progress,
    label: str,
) -> dict[str, Floats]:
    """What `pipeline.artifact.embed.embed` gives, by models' policy for long audio: None has none."""
    if chunk_frames is None:
        return embed_whole(network, features, progress, label)
    quiet = Progress.silent()
    found = {}
    with progress.task(label, len(features)) as task:
        for name, utterance in features.items():
            found[name] = _embed_in_chunks(
                lambda chunk: embed_whole(network, {"": chunk}, quiet, label)[""], utterance, chunk_frames, spec
            )
            task.advance()
    return found


def _embed_in_chunks(
    embed: Callable[[Floats], Floats], utterance: Floats, chunk_frames: int, spec: FrontEndSpec
) -> Floats:
    found = [embed(chunk) for chunk in chunks(utterance, chunk_frames, spec)]
    if len(found) == 1:
        return found[0]
    # An embedding of length 0 has no direction and adds nothing.
    lengths = [float(np.linalg.norm(e.astype(np.float64))) for e in found]
    total = sum(e.astype(np.float64) / length for e, length in zip(found, lengths, strict=True) if length > 0)
    mean: Floats = (total / len(found) * np.ones(found[0].shape)).astype(np.float32)
    return mean
