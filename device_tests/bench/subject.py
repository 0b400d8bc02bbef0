"""What is compared: one network's float weights, its pressed forms, and the crops that all contenders see."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from lhotse import MonoCut

from calibration.norms import recalibrate_norms
from calibration.post_training import MIN_UTTERANCES, Widths, quantize_model
from device_tests.bench.made_by import PRESSING, sources_sha256
from pipeline.artifact.decode import decode
from pipeline.artifact.store import HEADER_FILE as ARTIFACT_FILE
from pipeline.artifact.store import LoadedArtifact, read_artifact, write_artifact
from pipeline.corpus.read import read_corpus
from pipeline.corpus.synthetic import make_synthetic_corpus
from pipeline.errors import InputError
from pipeline.features.fbank import frames_of, mean_normalise
from pipeline.features.spec import FrontEndSpec
from pipeline.features.store import FeatureSource
from pipeline.files import folder_written_whole
from pipeline.models.registry import architectures, build_model
from pipeline.models.spec import ModelSpec
from pipeline.models.store import HEADER_FILE as MODEL_FILE
from pipeline.models.store import ModelHeader, read_pretrained, write_pretrained
from pipeline.progress import Progress
from pipeline.quantize.apply import press
from pipeline.stamp import tool_versions

Floats = npt.NDArray[np.float32]

# One crop of five is for comparison, the others are for activation ranges and batch-norm statistics.
CROPS = 40
_EVERY = 5
_SYNTHETIC_SPEAKERS, _SYNTHETIC_UTTERANCES = 8, 5


@dataclass(frozen=True)
class Subject:
    """A network to be measured.

    `reference` holds the weights that every peer starts from and whose embeddings are the reference: a 32-bit artifact
    of a network, or the given artifact itself. `pressed`: the artifacts of our own files, by width ("4bit"), in
    folders. `calibration` and `compared`: crops float32 [frames, mel] by utterance, of different utterances.
    """

    name: str
    weights: str
    audio: str
    reference: LoadedArtifact
    pressed: Mapping[str, Path]
    calibration: Mapping[str, Floats]
    compared: Mapping[str, Floats]

    def compared_at(self, frames: int) -> dict[str, Floats]:
        """The compared crops with so many frames: cut, or repeated where they are shorter."""
        return {name: _fitted(crop, frames) for name, crop in self.compared.items()}

    def reference_embeddings(self, frames: int) -> dict[str, Floats]:
        """Embeddings [E] of the compared crops at a length by the reference network, fp32 in torch."""
        network = decode(self.reference)
        with torch.inference_mode():
            return {
                name: network(torch.from_numpy(crop)[None])[0].numpy().copy()
                for name, crop in self.compared_at(frames).items()
            }


def make_subject(
    model: str, *, bits: Sequence[int], audio: Path | None, frames: int, seed: int, work: Path, progress: Progress
) -> Subject:
    """The subject of a word: an architecture's name, the folder of a pre-trained model, or that of an artifact.

    An architecture gets random weights and batch-norm statistics measured on the calibration crops; a network is
    pressed to every width of `bits` by post-training quantization, an artifact is taken as it is. Without `audio`
    crops come from synthetic voices. What takes long is kept in `work` and not made again for the same input.
    Raises InputError for a word that is none of these, and for fewer than twice 4 utterances.
    """
    folder = Path(model)
    if (folder / ARTIFACT_FILE).is_file():
        return _artifact_subject(folder, audio, frames, work, progress)
    if (folder / MODEL_FILE).is_file():
        return _network_subject(folder, f"model folder {folder.name}", bits, audio, frames, work, progress)
    if model not in architectures():
        expected = f"a model folder, an artifact folder or one of {', '.join(architectures())}"
        raise InputError("--model", expected=expected, found=model)
    speech = audio or _voices(work)
    made = work / f"random-{model}-{seed}-{_random_model_key(speech, frames)}"
    if not (made / MODEL_FILE).is_file():
        _write_random_model(model, speech, frames, seed, made)
    return _network_subject(made, f"random, seed {seed}", bits, audio, frames, work, progress)


def features_digest(crops: Mapping[str, Floats]) -> str:
    """Hex sha256 over names, shapes and values of crops."""
    digest = hashlib.sha256()
    for name, crop in sorted(crops.items()):
        digest.update(f"{name} {crop.shape}".encode())
        digest.update(np.ascontiguousarray(crop).tobytes())
    return digest.hexdigest()


def _artifact_subject(folder: Path, audio: Path | None, frames: int, work: Path, progress: Progress) -> Subject:
    artifact = read_artifact(folder)
    calibration, compared = _crops(audio or _voices(work), artifact.header.frontend, frames)
    widths = {node.bits for node in artifact.header.layers}
    label = f"{widths.pop()}bit" if len(widths) == 1 else f"mixed-{artifact.bits_per_weight:.2f}bit"
    return Subject(
        name=artifact.header.name,
        weights=f"artifact {artifact.header.name}",
        audio=_audio_text(audio),
        reference=artifact,
        pressed={label: folder},
        calibration=calibration,
        compared=compared,
    )


def _network_subject(
    folder: Path, weights: str, bits: Sequence[int], audio: Path | None, frames: int, work: Path, progress: Progress
) -> Subject:
    pretrained = read_pretrained(folder)
    speech = audio or _voices(work)
    calibration, compared = _crops(speech, pretrained.frontend, frames)
    reference = press(
        pretrained.network,
        name=f"{pretrained.header.spec.name}-fp32",
        architecture=pretrained.header.spec.architecture,
        frontend=pretrained.frontend,
        created_by=f"voxpress {tool_versions()['voxpress']}",
        source_sha256=pretrained.sha256,
    )
    # Pressing depends on the weights, on the speech that batch-norms are measured on, and on its own code.
    key = _short_key(pretrained.sha256, features_digest(calibration), sources_sha256(PRESSING))
    pressed = {}
    with progress.task("press", len(bits)) as task:
        for width in bits:
            place = work / "pressed" / f"{key}-{width}bit"
            if not (place / ARTIFACT_FILE).is_file():
                quantize_model(folder, Widths(bits=width, audio=speech), place, progress=Progress.silent())
            pressed[f"{width}bit"] = place
            task.advance()
    return Subject(
        name=pretrained.header.spec.name,
        weights=weights,
        audio=_audio_text(audio),
        reference=reference,
        pressed=pressed,
        calibration=calibration,
        compared=compared,
    )


def write_reference(subject: Subject, folder: Path) -> None:
    """Write the weights that peers start from as an artifact into `folder`."""
    write_artifact(folder, subject.reference)


def _write_random_model(architecture: str, speech: Path, frames: int, seed: int, folder: Path) -> None:
    spec, frontend = ModelSpec(architecture=architecture), FrontEndSpec()
    torch.manual_seed(seed)
    network = build_model(spec).eval()
    calibration, _ = _crops(speech, frontend, frames)
    # Without statistics of its own a deep random network overflows or fades, and is then timed on denormals.
    recalibrate_norms(network, [torch.from_numpy(crop) for crop in calibration.values()])
    header = ModelHeader(spec=spec, created_by=f"voxpress {tool_versions()['voxpress']}")
    with folder_written_whole(folder) as partial:
        write_pretrained(partial, header, network, frontend, None)


def _random_model_key(speech: Path, frames: int) -> str:
    """What batch-norm statistics come from, and the code that makes such a model."""
    calibration, _ = _crops(speech, FrontEndSpec(), frames)
    return _short_key(features_digest(calibration), sources_sha256(PRESSING))


def _short_key(*parts: str) -> str:
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:12]


def _voices(work: Path) -> Path:
    folder = work / f"voices-{_short_key(sources_sha256(PRESSING))}"
    if not folder.is_dir():
        make_synthetic_corpus(
            folder, speakers=_SYNTHETIC_SPEAKERS, sessions=1, utterances_per_session=_SYNTHETIC_UTTERANCES
        )
    return folder


def _audio_text(audio: Path | None) -> str:
    return "synthetic voices" if audio is None else f"folder {audio.name}"


def _crops(speech: Path, spec: FrontEndSpec, frames: int) -> tuple[dict[str, Floats], dict[str, Floats]]:
    """Calibration and compared crops: of each utterance its first frames, mean-normalised."""
    cuts: list[MonoCut] = list(read_corpus(speech, sample_rate_hz=spec.sample_rate_hz, min_seconds=spec.min_seconds))
    if len(cuts) < 2 * MIN_UTTERANCES:
        raise InputError(speech, expected=f"at least {2 * MIN_UTTERANCES} utterances", found=str(len(cuts)))
    # Spread over the corpus, and the longest of its neighbours, as short ones would be repeated.
    wanted = min(CROPS, len(cuts))
    groups = [cuts[index * len(cuts) // wanted : (index + 1) * len(cuts) // wanted] for index in range(wanted)]
    chosen = [max(group, key=lambda cut: (frames_of(cut.num_samples, spec), cut.id)) for group in groups]
    source = FeatureSource(chosen, spec, cache="none")
    # A crop is normalised by its own mean, as an utterance of that length would be.
    crops = {
        cut.id: _fitted(mean_normalise(source.crop(cut.id, 0, min(frames, frames_of(cut.num_samples, spec)))), frames)
        for cut in chosen
    }
    compared = set(list(crops)[::_EVERY])
    return (
        {name: crop for name, crop in crops.items() if name not in compared},
        {name: crop for name, crop in crops.items() if name in compared},
    )


def _fitted(crop: Floats, frames: int) -> Floats:
    return np.ascontiguousarray(np.tile(crop, (-(-frames // len(crop)), 1))[:frames])
