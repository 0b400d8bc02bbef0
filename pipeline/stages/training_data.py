"""The training utterances of a run as crops, plain or augmented, and the order of their classes."""

from __future__ import annotations

from lhotse import CutSet

from pipeline.corpus.read import read_cuts, speakers_of
from pipeline.features.spec import FrontEndSpec
from pipeline.features.store import FeatureSource
from pipeline.files import sha256_file
from pipeline.recipe import Recipe
from pipeline.stages.augmentation import JOB as AUGMENTATION
from pipeline.stages.augmentation import read_augmentation
from pipeline.stages.corpus import JOB as CORPUS
from pipeline.stages.corpus import TRAIN_FILE
from pipeline.stages.job import JobContext
from pipeline.training.augment import Augmentation
from pipeline.training.crops import CropDataset
from pipeline.training.settings import TrainingSettings


def training_inputs(recipe: Recipe) -> tuple[str, ...]:
    """The jobs whose folders `training_crops` reads."""
    return (CORPUS,) if recipe.augmentation is None else (CORPUS, AUGMENTATION)


def training_crops(context: JobContext, settings: TrainingSettings) -> tuple[CropDataset, list[str]]:
    """Crops for a training run, augmented if the recipe says so, and the classes whose positions are the labels."""
    augmentation = None
    if AUGMENTATION in context.needs:
        augmentation = read_augmentation(context.needs[AUGMENTATION], context.recipe.frontend)
    return _crops(context, settings.crop_frames, augmentation)


def clean_crops(context: JobContext, frames: int) -> CropDataset:
    """Crops of the training utterances as they are."""
    return _crops(context, frames, None)[0]


def _crops(context: JobContext, frames: int, augmentation: Augmentation | None) -> tuple[CropDataset, list[str]]:
    recipe = context.recipe
    cuts = read_cuts(context.needs[CORPUS] / TRAIN_FILE)
    if recipe.corpus.cache == "memory":
        source = _kept_features(context, cuts)
    else:
        source = FeatureSource(cuts, recipe.frontend, cache="none")
    data = CropDataset(source, speakers_of(cuts), frames, recipe.seed, augmentation)
    return data, data.classes


# The features that the process's last job computed: the jobs of a run and the seeds of a sweep train on the same ones.
# One corpus at a time, since it may fill much of the memory.
_kept: dict[tuple[str, FrontEndSpec], FeatureSource] = {}


def _kept_features(context: JobContext, cuts: CutSet) -> FeatureSource:
    """Features of all cuts, computed unless the last job read a manifest with the same hash."""
    spec = context.recipe.frontend
    key = (sha256_file(context.needs[CORPUS] / TRAIN_FILE), spec)
    if key not in _kept:
        _kept.clear()
        source = FeatureSource(cuts, spec, cache="memory")
        with context.progress.task("features", len(cuts)) as task:
            source.preload(lambda done, total: task.advance())
        _kept[key] = source
    return _kept[key]
