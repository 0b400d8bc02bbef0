"""Artifacts to Core ML files: written, read back and compared, and only then kept."""

from __future__ import annotations

import shutil
from pathlib import Path

from exporters.coreml.emit import Precision, emit_coreml
from exporters.coreml.verify import CoremlFile, verify_coreml
from exporters.exported import check_max_seconds
from exporters.native import native_chatter_held_back
from pipeline.artifact.store import read_artifact
from pipeline.errors import VoxPressError
from pipeline.files import folder_written_whole


def export_coreml(artifact_folder: Path, out: Path, *, max_seconds: float, precision: Precision) -> CoremlFile:
    """Write an artifact as `<net>-<width>.mlpackage` into `out`.

    Raises InputError for a `max_seconds` that no file can be made for. Raises VerificationError, and writes nothing, if
    what is read back is not the artifact.
    """
    artifact = read_artifact(artifact_folder)
    check_max_seconds(max_seconds, artifact.header.frontend)
    path = out / f"{artifact.header.name}.mlpackage"
    with folder_written_whole(path) as partial, native_chatter_held_back():
        inside = partial / path.name
        try:
            emit_coreml(artifact, inside, max_seconds=max_seconds, precision=precision)
        except OSError as error:
            # Files are copied into place together: such an error lists each with its reason.
            reason = error.args[0][0][-1] if isinstance(error, shutil.Error) else error
            raise VoxPressError(f"{path}: could not be written: {reason}") from None
        found = verify_coreml(inside, artifact, precision=precision)
        for child in inside.iterdir():
            child.rename(partial / child.name)
        inside.rmdir()
    return found
