"""A job: one stage's work for one folder. A recipe unfolds into jobs; the runner does those that are not done yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from pipeline.progress import Progress
from pipeline.recipe import Recipe


@dataclass(frozen=True)
class JobContext:
    """What a job may touch."""

    recipe: Recipe
    folder: Path  # to be filled; takes its place in the run's folder when the job ends without an error
    needs: Mapping[str, Path]  # finished folders of the jobs this one reads
    work: Path  # scratch that survives a kill: checkpoints, finished parts
    progress: Progress
    identity: str  # of settings and inputs; what another identity left in `work` is not gone on from
    leads: bool = True  # whether this process evaluates and writes; the others only train with it


@dataclass(frozen=True)
class Job:
    """One stage's work for one folder."""

    name: str  # its folder inside the run's folder, e.g. "uniform/4bit"
    stage: str
    settings: BaseModel  # all that the job depends on beside the folders it needs
    needs: tuple[str, ...]
    run: Callable[[JobContext], None]
    sources: Mapping[str, str]  # hashes of what it reads from outside the run's folder
    trains: bool = False  # every process takes part; else the first does it alone
