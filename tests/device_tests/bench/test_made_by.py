from __future__ import annotations

from pathlib import Path

import pytest

from device_tests.bench import made_by
from device_tests.bench.made_by import EXPORTING, PEERS, VERIFYING, native_sha256, sources_sha256


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "exporters" / "pte").mkdir(parents=True)
    (tmp_path / "exporters" / "pte" / "emit.py").write_text("a = 1\n")
    (tmp_path / "exporters" / "README.md").write_text("words\n")
    monkeypatch.setattr(made_by, "_ROOT", tmp_path)
    return tmp_path


def _hash(*folders: str) -> str:
    sources_sha256.cache_clear()
    return sources_sha256(folders)


def test_any_line_and_any_name_of_a_source_counts_and_nothing_else(tree: Path) -> None:
    before = _hash("exporters")
    (tree / "exporters" / "README.md").write_text("other words\n")
    assert _hash("exporters") == before
    (tree / "exporters" / "pte" / "emit.py").write_text("a = 2\n")
    changed = _hash("exporters")
    (tree / "exporters" / "pte" / "emit.py").rename(tree / "exporters" / "pte" / "write.py")
    assert len({before, changed, _hash("exporters")}) == 3


def test_folders_are_those_of_the_tree() -> None:
    for folder in {*EXPORTING, *PEERS}:
        assert (made_by._ROOT / folder / "__init__.py").is_file(), folder
    sources_sha256.cache_clear()
    assert sources_sha256(EXPORTING) != sources_sha256(PEERS)
    assert len(native_sha256(VERIFYING)) == 64
