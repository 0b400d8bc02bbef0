"""Recipes: one TOML file that says everything about a run, from the corpus to the bundle."""

from __future__ import annotations

import difflib
import tomllib
import typing
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.files import first_problem
from pipeline.models.spec import ModelSpec
from pipeline.training.settings import AugmentationSettings, TrainingSettings

Order = Literal["front-to-back", "back-to-front", "sensitivity-ascending", "sensitivity-descending"]
Width = Annotated[int, Field(ge=1, le=8)]
RECIPE_FILE = "recipe.json"  # a run's recipe, with every default, in the run's folder and in bundles
STAGES = ("corpus", "pretrain", "uniform", "mixed", "msft", "binary", "export", "device-test", "bundle")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SyntheticSettings(_Section):
    """The embedded corpus of synthetic voices, made when no corpus is given."""

    speakers: Annotated[int, Field(ge=4, le=10000)] = 48
    sessions: Annotated[int, Field(ge=1, le=100)] = 3
    utterances_per_session: Annotated[int, Field(ge=1, le=1000)] = 3


class CorpusSettings(_Section):
    """How a corpus is divided into training speakers and held-out speakers with trials."""

    heldout_share: Annotated[float, Field(gt=0, lt=1)] = 0.25  # of the speakers, chosen by a hash of their names
    segment_seconds: Annotated[float, Field(ge=0)] = 0.0  # cut held-out utterances into such segments; 0: leave whole
    max_trials: Annotated[int, Field(ge=2)] = 20000  # at most so many trials, all targets first
    # Of the synthetic voices and of the drawing of trials; none: the recipe's. The split itself has no seed.
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    cache: Literal["memory", "none"] = "memory"  # keep features of the training utterances in memory, or read on demand
    synthetic: SyntheticSettings = SyntheticSettings()


class UniformSettings(_Section):
    """One palette of 2^bits values per layer, the same width everywhere; one artifact per width."""

    bits: tuple[Width, ...] = (8, 4, 2)
    keep_fp32: tuple[str, ...] = ()  # names of layers that are left unquantized
    palette_every: Annotated[int, Field(ge=1)] = 10  # steps between two moves of the palettes after the weights
    finetune: TrainingSettings = TrainingSettings(steps=0)  # no steps: post-training quantization


class SensitivitySettings(_Section):
    """How layer sensitivities are measured."""

    crops: Annotated[int, Field(ge=1)] = 32  # training crops
    crop_frames: Annotated[int, Field(ge=28, le=3000)] = 200
    probes: Annotated[int, Field(ge=1)] = 2  # random probes of each crop


class MixedSettings(_Section):
    """Each layer its own width; one artifact for each budget or plan."""

    # As many bytes as an artifact of this width in every layer; between two widths, interpolated.
    average_bits: tuple[Annotated[float, Field(ge=1, le=8)], ...] = ()
    budget_bytes: tuple[Annotated[int, Field(gt=0)], ...] = ()  # bytes of the artifact's tensors
    plans: tuple[str, ...] = ()  # plan files made by hand
    sensitivity: SensitivitySettings = SensitivitySettings()
    palette_every: Annotated[int, Field(ge=1)] = 10
    finetune: TrainingSettings = TrainingSettings(steps=0)


class MsftSettings(_Section):
    """Multi-stage fine-tuning of every plan of [mixed]."""

    order: Order = "back-to-front"  # measured: RESULTS.md, "MSFT's default order"
    compare_orders: tuple[Order, ...] = ()  # also make one artifact in each of these orders
    compare_plan: str = "2bit"  # of this plan, by its label
    groups: Annotated[int, Field(ge=1)] = 4
    palette_every: Annotated[int, Field(ge=1)] = 10
    finetune: TrainingSettings  # of each group

    @model_validator(mode="after")
    def _trains(self) -> MsftSettings:
        if self.finetune.steps == 0:
            raise ValueError("finetune.steps is 0, but the method is fine-tuning; leave the section out for none")
        return self


class BinarySettings(_Section):
    """One bit per weight; one artifact for each quantizer."""

    quantizers: tuple[Literal["adaptive", "static", "sign"], ...] = ()
    keep_fp32: tuple[str, ...] = ()
    palette_every: Annotated[int, Field(ge=1)] = 1
    finetune: TrainingSettings = TrainingSettings(steps=0)


class ActivationSettings(_Section):
    """How the u8 activations of mode fast get their ranges: from training utterances, see `calibration.ranges`."""

    utterances: Annotated[int, Field(ge=4, le=10000)] = 32  # spread evenly over all
    method: Literal["percentile", "min-max", "mse"] = "percentile"
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99  # of method percentile


class ExportSettings(_Section):
    """Which files are written for the runtimes."""

    # exact: fp32 activations. fast: u8 activations and integer kernels.
    modes: Annotated[tuple[Literal["exact", "fast"], ...], Field(min_length=1)] = ("exact",)
    activations: ActivationSettings = ActivationSettings()
    formats: Annotated[tuple[Literal["pte", "tflite"], ...], Field(min_length=1)] = ("pte", "tflite")
    max_seconds: Annotated[float, Field(ge=0.3, le=600)] = 10.0  # longest utterance; .pte plans its memory for it
    chunk_seconds: Annotated[float, Field(ge=0)] = 0.0  # longer audio: mean of chunks of this length; 0: no chunks
    split_weights: bool = False  # weights of .pte files with VoxPress ops in a .ptd that those of an artifact share
    fallback: tuple[str, ...] = ()  # artifacts, by label ("4bit"), that are also written with stock ops only

    @model_validator(mode="after")
    def _chunks_fit(self) -> ExportSettings:
        if self.chunk_seconds and not 0.3 <= self.chunk_seconds <= self.max_seconds:
            raise ValueError(f"chunk_seconds is {self.chunk_seconds:g}, not 0.3 to {self.max_seconds:g} (max_seconds)")
        return self


class DeviceTestSettings(_Section):
    """How the exported files are run on a device."""

    device: Literal["host"] = "host"
    warmup: Annotated[int, Field(ge=0)] = 2
    runs: Annotated[int, Field(ge=1)] = 10  # timed runs of each model in each round
    rounds: Annotated[int, Field(ge=1)] = 3  # rounds over all models, so that ratios come from the same time
    threads: Annotated[int, Field(ge=1)] = 1
    speed_frames: Annotated[int, Field(ge=28)] = 200
    low_memory: bool = False  # keep weights packed and expand them at each call
    crop_seconds: Annotated[float, Field(ge=0)] = 0.0  # use only the first seconds of every utterance; 0: all of it


class BundleSettings(_Section):
    """What is shipped."""

    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")] = "0.1.0"
    licence: str = "unspecified"
    zip: bool = True


class Recipe(_Section):
    """A whole run."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.\-]{1,64}$")]
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    corpus: CorpusSettings = CorpusSettings()
    frontend: FrontEndSpec = FrontEndSpec()
    model: ModelSpec = ModelSpec()
    augmentation: AugmentationSettings | None = None  # of the crops of every training run
    pretrain: TrainingSettings
    uniform: UniformSettings = UniformSettings()
    mixed: MixedSettings = MixedSettings()
    msft: MsftSettings | None = None
    binary: BinarySettings = BinarySettings()
    export: ExportSettings = ExportSettings()
    device_test: DeviceTestSettings = DeviceTestSettings()
    bundle: BundleSettings = BundleSettings()

    @property
    def corpus_seed(self) -> int:
        """Seed of the synthetic voices and of the drawing of trials."""
        return self.seed if self.corpus.seed is None else self.corpus.seed

    @model_validator(mode="after")
    def _makes_something(self) -> Recipe:
        plans = (*self.mixed.average_bits, *self.mixed.budget_bytes, *self.mixed.plans)
        if not (self.uniform.bits or plans or self.binary.quantizers):
            raise ValueError("no artifact is asked for: uniform.bits, [mixed] and binary.quantizers are all empty")
        if self.msft is not None and not plans:
            raise ValueError("[msft] needs a plan: mixed.average_bits, mixed.budget_bytes or mixed.plans")
        if self.msft is not None and self.msft.order in self.msft.compare_orders:
            raise ValueError(f"msft.compare_orders names {self.msft.order}, which is msft.order")
        if self.pretrain.frozen_statistics:
            raise ValueError("pretrain.frozen_statistics: a network that is not trained yet has none to keep")
        if self.augmentation is not None and self.corpus.cache != "none":
            raise ValueError('[augmentation] alters samples, not features: it needs corpus.cache = "none"')
        return self


def recipe_text(recipe: Recipe) -> str:
    """A recipe as JSON with every default filled in."""
    return recipe.model_dump_json(indent=2) + "\n"


def builtin_recipes() -> list[str]:
    """Names of the recipes that come with VoxPress."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in _builtin_folder().iterdir() if entry.name.endswith(".toml")
    )


def load_recipe(recipe: str) -> Recipe:
    """The recipe at a path, or a built-in one by its name.

    Raises InputError naming the file for a missing file, broken TOML, an unknown key (with the nearest known one) or a
    value out of range.
    """
    path = Path(recipe)
    if path.is_file() or path.suffix == ".toml":
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise InputError(path, expected="a recipe", found="no such file") from None
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(path, expected="a recipe", found=str(error)) from None
    elif recipe in builtin_recipes():
        path = Path(f"{recipe}.toml")
        text = (_builtin_folder() / f"{recipe}.toml").read_text(encoding="utf-8")
    else:
        raise InputError(recipe, expected=f"a .toml file or one of {', '.join(builtin_recipes())}", found="neither")
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(path, expected="TOML", found=str(error)) from None
    refuse_unknown_keys(path, content, Recipe)
    try:
        return Recipe.model_validate(content)
    except pydantic.ValidationError as error:
        raise InputError(path, expected="a recipe", found=first_problem(error)) from None


def _builtin_folder() -> Any:
    return resources.files("pipeline") / "recipes"


def refuse_unknown_keys(path: Path, content: dict[str, Any], model: type[BaseModel], prefix: str = "") -> None:
    """Raise InputError for the first key that is no field of `model`, naming the nearest one that is."""
    for key, value in content.items():
        if key not in model.model_fields:
            near = difflib.get_close_matches(key, model.model_fields, n=1)
            known = f"{prefix}{near[0]}" if near else f"one of {', '.join(model.model_fields)}"
            raise InputError(path, expected=f"known keys ({known}?)", found=f"unknown key {prefix}{key}")
        annotation = model.model_fields[key].annotation
        for kind in (annotation, *typing.get_args(annotation)):
            if isinstance(value, dict) and isinstance(kind, type) and issubclass(kind, BaseModel):
                refuse_unknown_keys(path, value, kind, f"{prefix}{key}.")
