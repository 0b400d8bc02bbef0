"""Files that are whole or not there: written beside their place and renamed into it, hashed, read with clear errors."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import pydantic

from pipeline.errors import InputError, VoxPressError

Model = TypeVar("Model", bound=pydantic.BaseModel)

# Folders that are being written carry this mark; what a killed process left behind is recognised and removed by it.
PARTIAL_MARK = ".partial-"


def sha256_file(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write `data` to `path` so that a reader sees the old file or the new one, never a part.

    Raises VoxPressError naming the file if the disk does not take it (full, read-only); the old file stays.
    """
    raw = data.encode() if isinstance(data, str) else data
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}{PARTIAL_MARK}", dir=path.parent)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(raw)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise VoxPressError(f"{path}: could not be written: {error.strerror or error}") from error


@contextmanager
def folder_written_whole(path: Path) -> Iterator[Path]:
    """A fresh folder beside `path` to write into; it takes the place of `path` when the block ends without an error.

    An old folder at `path` is replaced only then. Leftovers of killed runs are removed first.
    """
    missing = [parent for parent in path.parents if not parent.exists()]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for leftover in path.parent.glob(f".{path.name}{PARTIAL_MARK}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{path.name}{PARTIAL_MARK}", dir=path.parent))
        partial.chmod(0o755)
    except OSError as error:
        raise VoxPressError(f"{path}: could not be written: {error.strerror or error}") from error
    try:
        yield partial
        _take_the_place(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        with suppress(OSError):  # the folders made for this one, unless there is something else in them by now
            for parent in missing:
                parent.rmdir()
        raise


def _take_the_place(partial: Path, path: Path) -> None:
    try:
        old = Path(tempfile.mkdtemp(prefix=f".{path.name}{PARTIAL_MARK}", dir=path.parent))
        if path.exists():
            os.replace(path, old)
        os.replace(partial, path)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise VoxPressError(f"{path}: could not be written: {error.strerror or error}") from error


def read_json(path: Path, model: type[Model], *, what: str) -> Model:
    """Validated content of a JSON file. Raises InputError that names the file and the first thing wrong in it."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(path, expected=what, found="no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(path, expected=what, found=str(error)) from error
    try:
        return model.model_validate_json(text)
    except pydantic.ValidationError as error:
        raise InputError(path, expected=what, found=first_problem(error)) from None


def first_problem(error: pydantic.ValidationError) -> str:
    """The first thing a validation found wrong, on one line: where, what, and how many more."""
    problems = error.errors(include_url=False, include_context=False)
    place = ".".join(str(part) for part in problems[0]["loc"]) or "the whole"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{place}: {problems[0]['msg']}{more}"
