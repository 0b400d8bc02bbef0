"""The artifacts that a recipe makes, from whichever stage, in the order in which tables show them."""

from __future__ import annotations

from pipeline.recipe import Recipe
from pipeline.stages import binary, mixed, msft, uniform


def artifact_jobs(recipe: Recipe) -> dict[str, str]:
    """Label -> job, for example "4bit" -> "uniform/4bit"."""
    return {
        **uniform.artifacts(recipe),
        **mixed.artifacts(recipe),
        **msft.artifacts(recipe),
        **binary.artifacts(recipe),
    }
