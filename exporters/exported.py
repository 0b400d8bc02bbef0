"""The list of what an export wrote, without the converters that wrote it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from calibration.ranges import ACTIVATIONS_FILE, Mode
from exporters.manifest import Lowering, ModelInput
from pipeline.artifact.store import LoadedArtifact
from pipeline.errors import InputError
from pipeline.features.spec import FrontEndSpec
from pipeline.files import first_problem, write_atomically

EXPORT_LIST = "exports.json"

# Of a file's embeddings to the reference network's, max|e - r| / max|r|: fp32 sums in another order stay well below it,
# a wrong layout or padding far above.
TOLERANCE = 1e-4

Format = Literal["pte", "tflite"]

LONGEST_SECONDS = 600.0  # that a file can be made for


class Agreement(BaseModel):
    """How far a model file's embeddings e are from r, those of decode(artifact), over what was checked.

    Mode exact: seeded noise of several lengths. Mode fast: calibration utterances.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    checked: int  # embeddings
    max_relative_error: float  # largest max|e - r| / max|r|
    cosine_mean: float
    cosine_min: float


class ExportedFile(BaseModel):
    """A model file that was written, and how far it was from the reference network."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    file: str
    label: str
    format: Format
    weights: str | None = None  # the .ptd beside a .pte that its weights lie in; None: in it
    lowering: Lowering
    input: ModelInput = "fbank"
    mode: Mode
    bytes: int
    sha256: str
    max_seconds: float
    agreement: Agreement


def check_max_seconds(max_seconds: float, spec: FrontEndSpec) -> None:
    """Raise InputError for a longest utterance that is shorter than the front end's shortest, over 10 min, or NaN."""
    if not spec.min_seconds <= max_seconds <= LONGEST_SECONDS:
        expected = f"{spec.min_seconds:g} to {LONGEST_SECONDS:g}"
        raise InputError("--max-seconds", expected=expected, found=f"{max_seconds:g}")


def ranges_file(artifact: LoadedArtifact) -> str:
    """Name of the file of an artifact's activation ranges beside its model files."""
    return f"{artifact.header.name}-{ACTIVATIONS_FILE}"


def write_export_list(folder: Path, files: Sequence[ExportedFile]) -> None:
    """Write what was exported as `exports.json`."""
    write_atomically(folder / EXPORT_LIST, export_list_json(files) + "\n")


def export_list_json(files: Sequence[ExportedFile]) -> str:
    """What was exported as JSON text."""
    return _LIST.dump_json(list(files), indent=1).decode()


def read_export_list(folder: Path) -> list[ExportedFile]:
    """What `write_export_list` wrote. Raises InputError naming the file if it is missing or malformed."""
    path = folder / EXPORT_LIST
    try:
        return _LIST.validate_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(path, expected="a list of exported files", found="no such file") from None
    except ValidationError as error:
        raise InputError(path, expected="a list of exported files", found=first_problem(error)) from None


_LIST = TypeAdapter(list[ExportedFile])
