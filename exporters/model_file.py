"""What a model file says about itself, whichever its format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from exporters.manifest import ModelManifest
from exporters.native import native_chatter_held_back

if TYPE_CHECKING:
    from exporters.pte.run import PteRunner
    from exporters.tflite.run import TfliteRunner


def open_model(model: Path) -> PteRunner | TfliteRunner:
    """A .pte or .tflite file in its runtime. Raises InputError naming the file if it is none that VoxPress wrote."""
    # Each runtime is imported only for its own files.
    with native_chatter_held_back():
        if model.suffix == ".pte":
            from exporters.pte.run import PteRunner

            return PteRunner(model)
        from exporters.tflite.run import TfliteRunner

        return TfliteRunner(model)


def read_model_manifest(model: Path) -> ModelManifest:
    """The manifest inside a .pte or .tflite file.

    Raises InputError naming the file if it is none that VoxPress wrote.
    """
    return open_model(model).manifest
