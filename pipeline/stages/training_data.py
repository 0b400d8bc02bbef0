"""The training utterances of a run as crops, and the order of their speakers."""

from __future__ import annotations

from pipeline.corpus.read import read_cuts, speakers_of
from pipeline.features.store import FeatureSource
from pipeline.stages.corpus import JOB as CORPUS
from pipeline.stages.corpus import TRAIN_FILE
from pipeline.stages.job import JobContext
from pipeline.training.crops import CropDataset
from pipeline.training.settings import TrainingSettings


def training_crops(context: JobContext, settings: TrainingSettings) -> tuple[CropDataset, list[str]]:
    """Crops for a training run and the speakers, sorted, whose positions are the labels."""
    recipe = context.recipe
    cuts = read_cuts(context.needs[CORPUS] / TRAIN_FILE)
    source = FeatureSource(cuts, recipe.frontend, cache=recipe.corpus.cache)
    if recipe.corpus.cache == "memory":
        with context.progress.task("features", len(cuts)) as task:
            source.preload(lambda done, total: task.advance())
    labels = speakers_of(cuts)
    return CropDataset(source, labels, settings.crop_frames, recipe.seed), sorted(set(labels.values()))
