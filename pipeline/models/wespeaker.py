"""Checkpoints of the public wespeaker toolkit as VoxPress models: its ResNets and Gemini DF-ResNets with TSTP."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

import pydantic
import torch
import yaml
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.files import first_problem, folder_written_whole, sha256_file
from pipeline.models.checkpoint import read_checkpoint
from pipeline.models.registry import architectures, build_model
from pipeline.models.spec import ModelSpec
from pipeline.models.store import ModelHeader, check_replaceable, load_strictly, write_pretrained

# Classifiers over training speakers, which a checkpoint of a whole training run carries behind the embedding.
_HEADS = ("projection.", "classifier.", "head.")
_POOLING = "TSTP"
# How many batches a norm has seen: no part of what a network computes. Averaged checkpoints hold fractions here, very
# old ones lack it, so it is neither asked for nor taken over.
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class ImportedModel:
    """What was imported, and what the user should know about it."""

    header: ModelHeader
    frontend: FrontEndSpec
    parameters: int
    notes: tuple[str, ...]


def import_wespeaker(checkpoint: Path, *, architecture: str, config: Path | None, out: Path) -> ImportedModel:
    """Write a toolkit checkpoint as a pre-trained model folder at `out`.

    `architecture` is a network's name here or in the toolkit (resnet34, ResNet34). Base channels, embedding size, mel
    bins and the number of embedding layers are read from the tensors' shapes. `config`, the toolkit's YAML, is checked
    against them, and says how the features were computed; without it they are taken to be the toolkit's defaults.

    A classifier is dropped and said so in the notes. Raises InputError naming the file for a checkpoint that cannot be
    read, the first key that is missing, extra or of another shape, and any setting that VoxPress does not compute.
    """
    check_replaceable(out)
    name = _own_name(architecture)
    tensors = read_checkpoint(checkpoint)
    heads = {key: tensors.pop(key) for key in list(tensors) if key.startswith(_HEADS)}
    # Without a configuration an empty one: everything as the toolkit does it by default. Pooling is looked at before
    # shapes are: another one gives the embedding layer another width, which would be misread.
    named = config or checkpoint
    settings = _Config() if config is None else _read_config(config)
    _check_pooling(named, settings)
    _account_for_keys(checkpoint, tensors, name)
    spec = _infer_spec(checkpoint, tensors, name)
    frontend, notes = _front_end(named, settings, spec)
    network = build_model(spec)
    counters = {key: value for key, value in network.state_dict().items() if key.endswith(_COUNTER)}
    load_strictly(network, _float_tensors(checkpoint, tensors) | counters, checkpoint)
    header = ModelHeader(
        spec=spec,
        created_by=f"voxpress {importlib.metadata.version('voxpress')}",
        source_sha256=sha256_file(checkpoint),
    )
    with folder_written_whole(out) as folder:
        write_pretrained(folder, header, network, frontend, None)
    dropped = [f"dropped the classifier: {key} {list(value.shape)}" for key, value in heads.items()]
    if config is None:
        notes.append("no --yaml: features are taken to be the toolkit's own, 16 kHz, 25 and 10 ms, Hamming window")
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return ImportedModel(header, frontend, parameters, (*dropped, *notes))


class _Section(BaseModel):
    # What else a configuration says is about training.
    model_config = ConfigDict(frozen=True, extra="ignore")


class _ModelArgs(_Section):
    feat_dim: int | None = None
    embed_dim: int | None = None
    pooling_func: str | None = None
    two_emb_layer: bool | None = None


class _FbankArgs(_Section):
    num_mel_bins: int | None = None
    frame_length: float | None = None
    frame_shift: float | None = None
    window_type: str | None = None
    dither: float | None = None


class _CmvnArgs(_Section):
    norm_mean: bool = True
    norm_var: bool = False


class _DatasetArgs(_Section):
    frontend: str | None = None
    resample_rate: int | None = None
    fbank_args: _FbankArgs | None = None
    cmvn: bool = True
    cmvn_args: _CmvnArgs | None = None


class _Config(_Section):
    model: str | None = None
    model_args: _ModelArgs | None = None
    dataset_args: _DatasetArgs | None = None


def _read_config(path: Path) -> _Config:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(path, expected="the toolkit's configuration", found="no such file") from None
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise InputError(path, expected="the toolkit's configuration in YAML", found=str(error)) from None
    try:
        return _Config.model_validate(content)
    except pydantic.ValidationError as error:
        raise InputError(path, expected="the toolkit's configuration", found=first_problem(error)) from None


def _bare(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _own_name(architecture: str) -> str:
    """Our name of a network: the toolkit's differ in capitals, underscores and hyphens only."""
    for name in architectures():
        if _bare(name) == _bare(architecture):
            return name
    raise InputError("--arch", expected=f"one of {', '.join(architectures())}", found=architecture)


def _check_pooling(path: Path, settings: _Config) -> None:
    pooling = settings.model_args.pooling_func if settings.model_args else None
    if pooling not in (None, _POOLING):
        raise InputError(path, expected=f"model_args.pooling_func {_POOLING}, the only one supported", found=pooling)


def _keys(architecture: str, layers: int) -> set[str]:
    with torch.device("meta"):
        return set(
            build_model(ModelSpec(architecture=architecture, base_channels=1, embedding_layers=layers)).state_dict()
        )


def _embedding_layers(tensors: dict[str, Tensor]) -> int:
    return 2 if any(key.startswith("seg_2.") for key in tensors) else 1


def _account_for_keys(path: Path, tensors: dict[str, Tensor], architecture: str) -> None:
    """Refuse a key that is missing or extra, naming the first one. Counters may be missing."""
    for key in tensors:
        if key.startswith("pool."):
            raise InputError(path, expected=f"{_POOLING} pooling, which has no weights", found=key)
    layers = _embedding_layers(tensors)
    own = _keys(architecture, layers)
    missing = sorted(key for key in own if key not in tensors and not key.endswith(_COUNTER))
    extra = [key for key in tensors if key not in own]
    if not missing and not extra:
        return
    first = f"no {missing[0]}" if missing else f"an extra {extra[0]}"
    given = {key for key in tensors if not key.endswith(_COUNTER)}
    hint = ""
    for name in architectures():
        if given == {key for key in _keys(name, layers) if not key.endswith(_COUNTER)}:
            hint = f"; these are the keys of a {name}"
            break
    counts = f"{len(missing)} missing, {len(extra)} extra"
    raise InputError(path, expected=f"the tensors of a {architecture}", found=f"{first} ({counts}){hint}")


def _infer_spec(path: Path, tensors: dict[str, Tensor], architecture: str) -> ModelSpec:
    """Base channels, embedding size and layers, and mel bins from the shapes of the stem and of the embedding layer.

    The toolkit's networks take multiples of their mel stride (8 or 16) only, so the mel bins that reach the pooling
    times that stride are the mel bins of the features.
    """
    stem_key = "conv1.weight" if architecture.startswith("resnet") else "downsample_layers.0.0.weight"
    stem, embedding = list(tensors[stem_key].shape), list(tensors["seg_1.weight"].shape)
    for key, shape, rank in ((stem_key, stem, 4), ("seg_1.weight", embedding, 2)):
        if len(shape) != rank:
            raise InputError(path, expected=f"{key} of {rank} dimensions", found=str(shape))
    try:
        spec = ModelSpec(
            architecture=architecture,
            base_channels=stem[0],
            embedding_dim=embedding[0],
            embedding_layers=_embedding_layers(tensors),
        )
        with torch.device("meta"):
            probe = build_model(spec)
        per_bin = 2 * probe.pooled_channels  # mean and deviation
        stride = spec.num_mel_bins * per_bin // probe.seg_1.in_features
        bins, rest = divmod(embedding[1], per_bin)
        if rest:
            raise InputError(path, expected=f"seg_1.weight with a multiple of {per_bin} inputs", found=str(embedding))
        return ModelSpec.model_validate(spec.model_dump() | {"num_mel_bins": bins * stride})
    except pydantic.ValidationError as error:
        raise InputError(path, expected=f"a {architecture}", found=first_problem(error)) from None


def _front_end(path: Path, settings: _Config, spec: ModelSpec) -> tuple[FrontEndSpec, list[str]]:
    """The front end that a configuration describes, and notes; it must agree with the network's shapes."""
    if settings.model is not None and _bare(settings.model) != _bare(spec.architecture):
        raise InputError(path, expected=f"model {spec.architecture}, as --arch says", found=settings.model)
    model, data = settings.model_args or _ModelArgs(), settings.dataset_args or _DatasetArgs()
    fbank, cmvn = data.fbank_args or _FbankArgs(), data.cmvn_args or _CmvnArgs()
    facts: list[tuple[str, object, object]] = [
        ("model_args.feat_dim", model.feat_dim, spec.num_mel_bins),
        ("model_args.embed_dim", model.embed_dim, spec.embedding_dim),
        ("model_args.two_emb_layer", model.two_emb_layer, spec.embedding_layers == 2),
        ("dataset_args.fbank_args.num_mel_bins", fbank.num_mel_bins, spec.num_mel_bins),
    ]
    for key, said, found in facts:
        if said is not None and said != found:
            raise InputError(path, expected=f"{key} {found}, as the checkpoint has it", found=str(said))
    if data.frontend not in (None, "fbank"):
        raise InputError(path, expected="dataset_args.frontend fbank, the only one supported", found=data.frontend)
    if not data.cmvn or not cmvn.norm_mean or cmvn.norm_var:
        raise InputError(
            path,
            expected="features normalised by their mean only (dataset_args.cmvn, cmvn_args)",
            found=f"cmvn {data.cmvn}, norm_mean {cmvn.norm_mean}, norm_var {cmvn.norm_var}",
        )
    options = {
        "num_mel_bins": spec.num_mel_bins,
        "frame_length_ms": fbank.frame_length,
        "frame_shift_ms": fbank.frame_shift,
        "window": fbank.window_type,
        "sample_rate_hz": data.resample_rate,
    }
    try:
        frontend = FrontEndSpec.model_validate({key: value for key, value in options.items() if value is not None})
    except pydantic.ValidationError as error:
        raise InputError(path, expected="a front end that VoxPress computes", found=first_problem(error)) from None
    notes = [f"trained with dither {fbank.dither:g}; features are computed without"] if fbank.dither else []
    return frontend, notes


def _float_tensors(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in fp32. Raises InputError for one that holds no real numbers, or any that are not finite."""
    converted = {}
    for key, value in tensors.items():
        if key.endswith(_COUNTER):
            converted[key] = value
            continue
        if value.layout != torch.strided or not value.is_floating_point() or value.is_meta:
            raise InputError(path, expected=f"{key} of floats", found=f"{value.layout} {value.dtype}")
        if not value.isfinite().all():
            raise InputError(path, expected=f"{key} finite", found="NaN or infinity")
        converted[key] = value.float()
    return converted
