"""Artifacts with bytes changed, cut and repeated: read, or refused in one line that names the file.

Mutated bundles are in tests/exporters/bundle/test_archive.py.
"""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.artifact.decode import decode
from pipeline.artifact.store import HEADER_FILE, WEIGHTS_FILE, read_artifact, write_artifact
from pipeline.errors import InputError
from tests.factories import tiny_artifact

ODD_TEXT = [b"-1", b"1e400", b"null", b'"', b"}", b"[", b"9" * 30, b"\xff"]
BOUNDED = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes with up to eight changes."""
    raw = bytearray(data)
    for _ in range(draw(st.integers(1, 8))):
        place = draw(st.integers(0, max(0, len(raw) - 1)))
        match draw(st.sampled_from(["set", "text", "cut", "repeat"])):
            case "set":
                raw[place : place + 1] = draw(st.binary(min_size=1, max_size=1))
            case "text":
                raw[place:place] = draw(st.sampled_from(ODD_TEXT))
            case "cut":
                del raw[place : place + draw(st.integers(1, 64))]
            case _:
                raw[place:place] = raw[place : place + draw(st.integers(1, 64))]
    return bytes(raw)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    write_artifact(folder, tiny_artifact(4))
    return folder


@pytest.mark.parametrize("name", [HEADER_FILE, WEIGHTS_FILE])
@BOUNDED
@given(data=st.data())
def test_a_mutated_artifact_is_read_or_refused(name: str, data: st.DataObject, artifact: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mutated"
    shutil.copytree(artifact, folder, dirs_exist_ok=True)
    (folder / name).write_bytes(data.draw(mutations((artifact / name).read_bytes())))
    with suppress(InputError):
        decode(read_artifact(folder))
