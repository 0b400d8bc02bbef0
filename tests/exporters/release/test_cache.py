from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from exporters.bundle.contents import check_contents
from exporters.bundle.signature import make_key_pair, read_private_key
from exporters.bundle.trust import Trust
from exporters.release.cache import copy_out, default_cache, fetch
from exporters.release.registry import Registry
from pipeline.errors import InputError, VoxPressError
from tests.exporters.release.published import QUIET, publish


def _fetch(place: str, cache: Path, reference: str = "net", trust: Trust | None = None):
    return fetch(reference, Registry(place), cache, trust or Trust(), QUIET)


def test_a_bundle_is_fetched_once(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(place, tmp_path)
    first = _fetch(place, tmp_path / "cache")
    assert not first.from_cache
    assert check_contents(first.folder).version == "1.0.0"
    names = {path.name for path in (tmp_path / "cache" / "net").iterdir()}
    assert names == {first.folder.name, f"{first.folder.name}.json", ".lock"}
    monkeypatch.setattr(Registry, "read_part", None)
    second = _fetch(place, tmp_path / "cache")
    assert (second.from_cache, second.folder) == (True, first.folder)


def test_versions_and_channels_are_named(place: str, tmp_path: Path) -> None:
    publish(place, tmp_path / "1", "1.0.0")
    publish(place, tmp_path / "2", "1.1.0", salt="more")
    cache = tmp_path / "cache"
    assert _fetch(place, cache).record.version == "1.1.0"
    assert _fetch(place, cache, "net@1.0.0").record.version == "1.0.0"
    assert _fetch(place, cache, "net@latest").record.version == "1.1.0"
    for bad in ("", "@1.0.0", "net@", "net@nowhere", "net@1.0", "other", "net@1.0.0@2"):
        with pytest.raises(InputError):
            _fetch(place, cache, bad)


def test_a_version_that_is_here_needs_no_registry(tmp_path: Path) -> None:
    publish(str(tmp_path / "registry"), tmp_path)
    _fetch(str(tmp_path / "registry"), tmp_path / "cache")
    shutil.rmtree(tmp_path / "registry")
    assert _fetch(str(tmp_path / "registry"), tmp_path / "cache", "net@1.0.0").from_cache


@pytest.mark.parametrize("damage", ["changed", "missing", "extra", "record"])
def test_a_damaged_cache_is_fetched_again(tmp_path: Path, damage: str) -> None:
    place = str(tmp_path / "registry")
    publish(place, tmp_path)
    folder = _fetch(place, tmp_path / "cache").folder
    if damage == "changed":
        (folder / "frontend.json").write_bytes(b"[]\n")
    elif damage == "missing":
        (folder / "frontend.json").unlink()
    elif damage == "extra":
        (folder / "extra").touch()
    else:
        folder.with_name(f"{folder.name}.json").write_text("{")
    again = _fetch(place, tmp_path / "cache", "net@1.0.0")
    assert again.from_cache == (damage == "record")
    check_contents(again.folder)


def test_a_download_goes_on_where_it_was_stopped(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record = publish(place, tmp_path)
    read, wanted = Registry.read_part, []

    def failing(self: Registry, record, index: int) -> bytes:
        if len(wanted) == 4:
            raise VoxPressError("the line is dead")
        wanted.append(index)
        return read(self, record, index)

    monkeypatch.setattr(Registry, "read_part", failing)
    with pytest.raises(VoxPressError, match="the line is dead"):
        _fetch(place, tmp_path / "cache")
    (partial,) = (tmp_path / "cache" / "net").glob(".*.zip.part")
    with partial.open("r+b") as stream:  # a torn last write
        stream.truncate(3500)
    monkeypatch.setattr(
        Registry, "read_part", lambda self, record, index: wanted.append(index) or read(self, record, index)
    )
    fetched = _fetch(place, tmp_path / "cache")
    assert wanted == [0, 1, 2, 3, *range(3, len(record.parts))]
    check_contents(fetched.folder)
    assert not partial.exists()


@pytest.fixture
def key(tmp_path: Path) -> Ed25519PrivateKey:
    make_key_pair(tmp_path / "a.pem", tmp_path / "a.pub.pem")
    make_key_pair(tmp_path / "b.pem", tmp_path / "b.pub.pem")
    return read_private_key(tmp_path / "a.pem")


def test_a_bundle_that_is_not_to_be_trusted_is_not_kept(tmp_path: Path, key: Ed25519PrivateKey) -> None:
    place, cache = str(tmp_path / "registry"), tmp_path / "cache"
    publish(place, tmp_path, key=key)
    for trust in (Trust(keys=(tmp_path / "b.pub.pem",)), Trust(min_version="1.0.1")):
        with pytest.raises(InputError):
            _fetch(place, cache, trust=trust)
        assert not [path for path in (cache / "net").iterdir() if path.is_dir()]
    fetched = _fetch(place, cache, trust=Trust(keys=(tmp_path / "a.pub.pem",)))
    assert fetched.trusted.signed_by is not None
    with pytest.raises(InputError, match="signature of key"):  # whole and in the cache, and still not to be trusted
        _fetch(place, cache, trust=Trust(keys=(tmp_path / "b.pub.pem",)))
    assert fetched.folder.is_dir()


def test_a_record_that_names_another_bundle_is_refused(tmp_path: Path) -> None:
    """What a registry says is checked by the bundle itself: old bytes cannot be passed off as a new version."""
    place = str(tmp_path / "registry")
    record = publish(place, tmp_path)
    forged = record.model_copy(update={"version": "9.0.0"})
    path = tmp_path / "registry" / "net" / "versions" / "9.0.0.json"
    path.write_text(forged.model_dump_json())
    with pytest.raises(InputError, match=r"expected net 9.0.0, found net 1.0.0"):
        _fetch(place, tmp_path / "cache", "net@9.0.0")


def test_a_copy_is_whole_and_does_not_replace_another(tmp_path: Path) -> None:
    place = str(tmp_path / "registry")
    publish(place, tmp_path)
    fetched = _fetch(place, tmp_path / "cache")
    folder = copy_out(fetched, tmp_path / "out")
    assert folder.name == "net-1.0.0"
    check_contents(folder)
    copy_out(fetched, tmp_path / "out")
    (folder / "mine").touch()
    with pytest.raises(InputError, match="mine"):
        copy_out(fetched, tmp_path / "out")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VOXPRESS_CACHE", str(tmp_path / "mine"))
    assert default_cache() == tmp_path / "mine"
    monkeypatch.delenv("VOXPRESS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache() == tmp_path / "voxpress"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_cache() == Path.home() / ".cache" / "voxpress"
