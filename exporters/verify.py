"""Is an emitted model the network it was made from? Its embeddings are compared with the reference's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from exporters.exported import TOLERANCE, Agreement, Format
from exporters.fast import FastProgram
from exporters.long_audio import embed_long
from exporters.manifest import ModelManifest
from exporters.native import native_chatter_held_back
from exporters.pte.emit import PressedNetwork
from exporters.pte.run import PteRunner
from exporters.tflite.run import TfliteRunner
from pipeline.artifact.decode import decode
from pipeline.artifact.store import LoadedArtifact
from pipeline.errors import VerificationError
from pipeline.features.fbank import features, max_frames, min_frames, samples_of
from pipeline.features.spec import FrontEndSpec

Floats = npt.NDArray[np.float32]

# Mode fast, cosines of embeddings. To decode(artifact) on speech, as the kernels' accuracy is promised; to the same u8
# network computed in fp32, which leaves only the kernels' own roundings, at every length of noise as well.
LEAST_COSINE = 0.99
LEAST_MEAN_COSINE = 0.999
LEAST_KERNEL_COSINE = 0.995

# Lengths around everything that could round differently: odd, even, one more than a multiple of the total stride of 8.
_FRAME_COUNTS = (98, 200, 301)
_SPEECH_FRAMES = 400  # of an utterance
_CHECKED_BATCH = 4


def verify_model(
    data: bytes,
    file_format: Format,
    artifact: LoadedArtifact,
    *,
    max_seconds: float,
    name: str,
    weights: Path | None = None,
) -> Agreement:
    """How far the model's embeddings are from the reference's, for files of fp32 activations.

    Checked on seeded noise of the shortest and the longest length allowed (at most 1000 frames) and some between, and
    of two and a half chunks if the model has a policy for long audio. What a model that takes samples is compared with
    are the reference's embeddings of the features that training computes (kaldi-native-fbank).
    Raises VerificationError if a relative error max|e - r| / max|r| exceeds 1e-4.
    """
    with native_chatter_held_back():
        runner, reference = _runner(data, file_format, weights), decode(artifact)
        pairs = []
        manifest, wanted_of = runner.manifest, _embedder(reference, artifact.header.frontend)
        for utterance in _noise(artifact, max_seconds, manifest):
            wanted = embed_long(wanted_of, utterance, manifest)
            pairs.append((embed_long(runner.embed, utterance, manifest), wanted))
            error = agreement(pairs[-1:]).max_relative_error
            if not error <= TOLERANCE:  # also catches NaN
                length = f"{len(utterance)} {'frames' if manifest.input == 'fbank' else 'samples'}"
                what = f"embeddings within {TOLERANCE:g} of the reference's at {length}"
                raise VerificationError(f"{name}: expected {what}, found {error:.3g}")
            _check_batch(runner, utterance, name)
    return agreement(pairs)


class FastReference:
    """What the files of one artifact in mode `fast` are made of and checked against.

    They are made of `rounded`, the artifact with palettes as integer kernels want them (see `calibration.int8`), and
    `program`. References are embeddings of `utterances` (features [frames, mel] by name, the first 400 frames) by
    decode(artifact), and of these and of noise by the rounded program in fp32 arithmetic on u8 activations; the first
    file that passes is the reference of the others, which must give the same bytes.
    """

    def __init__(
        self,
        artifact: LoadedArtifact,
        rounded: LoadedArtifact,
        program: FastProgram,
        utterances: Mapping[str, Floats],
        *,
        max_seconds: float,
    ) -> None:
        spec = artifact.header.frontend
        longest = max_frames(max_seconds, spec)
        self.rounded, self.program = rounded, program
        self._inputs = {name: features[: min(longest, _SPEECH_FRAMES)] for name, features in utterances.items()}
        self._inputs |= {f"noise of {len(noise)} frames": noise for noise in _noise(artifact, max_seconds)}
        self._speech = tuple(utterances)
        exact, u8 = decode(artifact), PressedNetwork(rounded, program).eval()
        with torch.inference_mode():
            self._exact = {name: exact(torch.from_numpy(self._inputs[name])[None])[0].numpy() for name in self._speech}
            self._u8 = {
                name: u8(torch.from_numpy(features)[None])[0].numpy() for name, features in self._inputs.items()
            }
        self._first: tuple[str, dict[str, Floats]] | None = None

    def verify(self, data: bytes, file_format: Format, *, name: str, weights: Path | None = None) -> Agreement:
        """How far the model's embeddings of the utterances are from those of decode(artifact).

        Raises VerificationError if a cosine to them is below 0.99 or their mean below 0.999, if one to the u8 network
        in fp32 arithmetic is below 0.995, or if embeddings are not, bit by bit, those of the first file checked.
        """
        with native_chatter_held_back():
            runner = _runner(data, file_format, weights)
            found = {key: runner.embed(features) for key, features in self._inputs.items()}
            for one in self._inputs.values():
                _check_batch(runner, one, name)
        for key, wanted in self._u8.items():
            cosine = agreement([(found[key], wanted)]).cosine_min
            if not cosine >= LEAST_KERNEL_COSINE:
                _refuse(name, f"{LEAST_KERNEL_COSINE:g} to the u8 network in fp32 arithmetic for {key}", cosine)
        result = agreement([(found[key], self._exact[key]) for key in self._speech])
        if not result.cosine_min >= LEAST_COSINE:
            worst = min(self._speech, key=lambda key: agreement([(found[key], self._exact[key])]).cosine_min)
            _refuse(name, f"{LEAST_COSINE:g} to the reference for {worst}", result.cosine_min)
        if not result.cosine_mean >= LEAST_MEAN_COSINE:
            _refuse(name, f"{LEAST_MEAN_COSINE:g} to the reference on the mean", result.cosine_mean)
        if self._first is None:
            self._first = (name, found)
        for key, embedding in self._first[1].items():
            if embedding.tobytes() != found[key].tobytes():
                raise VerificationError(f"{name}: expected the embeddings of {self._first[0]}, found others for {key}")
        return result

    def verify_waveform(
        self, data: bytes, file_format: Format, *, name: str, max_seconds: float, weights: Path | None = None
    ) -> None:
        """Check a model that takes samples against the u8 network in fp32 arithmetic on the features of noise.

        Raises VerificationError if a cosine is below 0.995.
        """
        with native_chatter_held_back():
            runner = _runner(data, file_format, weights)
            rounded = _embedder(PressedNetwork(self.rounded, self.program).eval(), self.rounded.header.frontend)
            for utterance in _noise(self.rounded, max_seconds, runner.manifest):
                pair = (
                    embed_long(runner.embed, utterance, runner.manifest),
                    embed_long(rounded, utterance, runner.manifest),
                )
                cosine = agreement([pair]).cosine_min
                if not cosine >= LEAST_KERNEL_COSINE:
                    what = f"{LEAST_KERNEL_COSINE:g} to the u8 network in fp32 arithmetic at {len(utterance)} samples"
                    _refuse(name, what, cosine)
                _check_batch(runner, utterance, name)


def _check_batch(runner: PteRunner | TfliteRunner, utterance: Floats, name: str) -> None:
    """Check a .pte that takes several utterances: a batch of louder and softer ones against each by itself.

    Raises VerificationError if one differs by more than 1e-4 relative, or at all where our own ops compute.
    """
    if not isinstance(runner, PteRunner) or runner.max_batch == 1 or not runner.takes(utterance.shape):
        return
    batch = np.stack([utterance / np.float32(1 + index) for index in range(min(runner.max_batch, _CHECKED_BATCH))])
    alone = np.stack([runner.embed(one) for one in batch])
    error = agreement([(runner.embed_batch(batch).ravel(), alone.ravel())]).max_relative_error
    limit = TOLERANCE if runner.manifest.lowering == "stock" else 0.0
    if not error <= limit:
        what = f"embeddings of {len(batch)} utterances at once within {limit:g} of each by itself"
        raise VerificationError(f"{name}: expected {what}, found {error:.3g}")


def agreement(pairs: Sequence[tuple[Floats, Floats]]) -> Agreement:
    """Relative errors and cosines of embeddings [E] to references [E], given in pairs."""
    errors, cosines = [], []
    for embedding, wanted in pairs:
        e, r = embedding.astype(np.float64), wanted.astype(np.float64)
        errors.append(float(np.abs(e - r).max() / np.abs(r).max()))
        cosines.append(float(e @ r / (np.linalg.norm(e) * np.linalg.norm(r))))
    return Agreement(
        checked=len(pairs),
        max_relative_error=max(errors),
        cosine_mean=float(np.mean(cosines)),
        cosine_min=min(cosines),
    )


def _refuse(name: str, expected: str, found: float) -> None:
    raise VerificationError(f"{name}: expected embeddings of a cosine of at least {expected}, found {found:.5f}")


def _runner(
    data: bytes, file_format: Literal["pte", "tflite"], weights: Path | None = None
) -> PteRunner | TfliteRunner:
    return PteRunner(data, weights) if file_format == "pte" else TfliteRunner(data)


def _embedder(network: nn.Module, spec: FrontEndSpec) -> Callable[[Floats], Floats]:
    """The embedding [E] of features [frames, mel], or of the features of samples [S], by a network in torch."""

    def embed(utterance: Floats) -> Floats:
        frames = utterance if utterance.ndim == 2 else features(utterance, spec)
        with torch.inference_mode():
            embedding: Floats = network(torch.from_numpy(frames)[None])[0].numpy()
        return embedding

    return embed


def _noise(artifact: LoadedArtifact, max_seconds: float, manifest: ModelManifest | None = None) -> Iterator[Floats]:
    """Seeded noise of the shortest and the longest length allowed, at most 1000 frames, and some between.

    What the model of the manifest takes, features or samples, and longer than a chunk if it has a policy for that.
    """
    spec = artifact.header.frontend
    longest = max_frames(max_seconds, spec)
    counts = {min_frames(spec), min(longest, 1000), *(count for count in _FRAME_COUNTS if count <= longest)}
    if manifest is not None and manifest.long_audio is not None:
        counts.add(manifest.long_audio.chunk_frames * 5 // 2)
    rng = np.random.default_rng(0)
    for count in sorted(counts):
        if manifest is not None and manifest.input == "waveform":
            samples = samples_of(count, spec)
            loudness = np.abs(np.sin(np.arange(samples) / 2e3))
            yield np.clip(rng.normal(0.0, 0.1, samples) * loudness, -1, 1).astype(np.float32)
        else:
            yield rng.normal(0.0, 2.0, (count, spec.num_mel_bins)).astype(np.float32)
