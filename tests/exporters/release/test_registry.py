from __future__ import annotations

import threading
from pathlib import Path

import fsspec
import pytest
from s3fs import S3FileSystem

from exporters.bundle.version import Version
from exporters.release import registry as module
from exporters.release.registry import Registry, VersionRecord
from pipeline.errors import GateError, InputError, VoxPressError
from tests.exporters.release.published import QUIET, prepared, publish


def test_what_was_published_is_there(place: str, tmp_path: Path) -> None:
    registry = Registry(place)
    assert (registry.names(), registry.versions("net"), registry.channels("net")) == ([], [], {})
    record = publish(place, tmp_path)
    assert len(record.parts) > 5
    again = Registry(place)
    assert again.names() == ["net"]
    assert again.versions("net") == [Version(1, 0, 0)]
    assert again.channels("net") == {"latest": "1.0.0"}
    assert again.record("net", "1.0.0") == record
    whole = b"".join(again.read_part(record, index) for index in range(len(record.parts)))
    assert whole == (tmp_path / "net-1.0.0.zip").read_bytes()


def test_a_version_is_never_overwritten(place: str, tmp_path: Path) -> None:
    publish(place, tmp_path / "one")
    archive, record = prepared(tmp_path / "two", salt="other")
    with pytest.raises(GateError, match="expected a version that is not taken, found another bundle"):
        Registry(place).publish(archive, record, QUIET)
    archive, record = prepared(tmp_path / "one")
    assert not Registry(place).publish(archive, record, QUIET)  # the same bytes: nothing to do


def test_of_two_publishers_at_once_one_wins(place: str, tmp_path: Path) -> None:
    """Both find the version free, both upload; the record of the first stays."""
    one, first = prepared(tmp_path / "one")
    two, second = prepared(tmp_path / "two", salt="other")
    slow = Registry(place)
    put = slow._put_part

    def overtaken(archive: Path, record: VersionRecord, index: int) -> None:
        put(archive, record, index)
        if index == 0:
            assert Registry(place).publish(one, first, QUIET)

    slow._put_part = overtaken  # type: ignore[method-assign]
    with pytest.raises(GateError, match="not taken"):
        slow.publish(two, second, QUIET)
    assert Registry(place).record("net", "1.0.0") == first


def test_versions_are_in_order_and_latest_only_moves_forward(place: str, tmp_path: Path) -> None:
    for version in ("1.0.0", "1.10.0", "1.9.0"):
        publish(place, tmp_path / version, version)
    registry = Registry(place)
    assert [str(version) for version in registry.versions("net")] == ["1.0.0", "1.9.0", "1.10.0"]
    assert registry.channel("net", "latest") == "1.10.0"
    assert registry.resolve("net", "latest") == "1.10.0"
    assert registry.advance("net", "latest", "1.9.0") == "1.10.0"
    registry.set_channel("net", "latest", "1.0.0")  # the way back has to be asked for
    assert registry.channel("net", "latest") == "1.0.0"
    registry.set_channel("net", "beta", "1.9.0")
    assert registry.channels("net") == {"beta": "1.9.0", "latest": "1.0.0"}


def test_an_upload_goes_on_where_it_was_stopped(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive, record = prepared(tmp_path)
    registry = Registry(place)
    put, written = registry._put, []

    def failing(path: str, data: bytes, *, replace: bool) -> bool:
        if len(written) == 4:
            raise VoxPressError("the line is dead")
        written.append(path)
        return put(path, data, replace=replace)

    monkeypatch.setattr(registry, "_put", failing)
    with pytest.raises(VoxPressError, match="the line is dead"):
        registry.publish(archive, record, QUIET)
    assert registry.versions("net") == []
    first, written = list(written), []
    monkeypatch.setattr(
        registry, "_put", lambda path, data, *, replace: written.append(path) or put(path, data, replace=replace)
    )
    assert registry.publish(archive, record, QUIET)
    assert not set(first) & set(written)
    assert len(first) + len(written) == len(record.parts) + 1  # every piece once, and the record


def test_a_damaged_piece_is_put_again_and_never_read(place: str, tmp_path: Path) -> None:
    archive, record = prepared(tmp_path)
    registry = Registry(place)
    path = registry._part_path(record, 2)
    registry._put(path, b"damage", replace=True)
    with pytest.raises(InputError, match="expected sha256"):
        registry.read_part(record, 2)
    assert registry.publish(archive, record, QUIET)
    assert registry.read_part(record, 2) == archive.read_bytes()[2000:3000]


def test_what_is_not_there(place: str, tmp_path: Path) -> None:
    record = publish(place, tmp_path)
    registry = Registry(place)
    with pytest.raises(InputError, match=r"net: expected a version among 1.0.0, found 2.0.0"):
        registry.record("net", "2.0.0")
    with pytest.raises(InputError, match=r"net: expected a channel among latest, found stable"):
        registry.resolve("net", "stable")
    with pytest.raises(InputError, match=r"expected a version among 1.0.0"):
        registry.set_channel("net", "stable", "3.0.0")
    with pytest.raises(InputError, match="a piece of a published bundle"):
        registry.read_part(record.model_copy(update={"sha256": "0" * 64}), 0)


@pytest.mark.parametrize("name", ["../net", "net/..", "", "Net", "a b", "/etc", "-net", "x" * 65])
def test_names_that_lead_elsewhere(tmp_path: Path, name: str) -> None:
    registry = Registry(tmp_path / "registry")
    for ask in (registry.versions, lambda name: registry.channel(name, "latest"), registry.channels):
        with pytest.raises(InputError, match="name: expected"):
            ask(name)
    with pytest.raises(InputError, match="channel: expected"):
        registry.channel("net", "../x")


def test_a_record_that_is_none(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    (tmp_path / "net" / "versions").mkdir(parents=True)
    (tmp_path / "net" / "versions" / "1.0.0.json").write_text("{}")
    with pytest.raises(InputError, match=r"1.0.0.json: expected a registry's record"):
        registry.record("net", "1.0.0")


def test_urls_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"nope://x: expected a directory, or a URL"):
        Registry("nope://x")
    (tmp_path / "file").touch()
    with pytest.raises(VoxPressError, match="file"):
        Registry(tmp_path / "file").publish(*prepared(tmp_path / "made"), QUIET)

    def without_package(url: str, **options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", without_package)
    with pytest.raises(InputError, match=r"s3://x: expected .*, found Install s3fs to access S3"):
        Registry("s3://x")


def test_a_server_that_is_not_there_is_one_line(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    S3FileSystem.clear_instance_cache()
    try:
        with pytest.raises(VoxPressError, match=r"s3://models/x: ") as caught:
            Registry("s3://models/x").versions("net")
    finally:
        S3FileSystem.clear_instance_cache()
    assert "\n" not in str(caught.value)


def test_a_bucket_that_is_not_there_is_one_line(s3_server: str, tmp_path: Path) -> None:
    with pytest.raises(VoxPressError, match=r"s3://nowhere/x: ") as caught:
        Registry("s3://nowhere/x").publish(*prepared(tmp_path), QUIET)
    assert "\n" not in str(caught.value)


def test_a_channel_that_others_keep_moving_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(str(tmp_path / "registry"), tmp_path)
    registry = Registry(tmp_path / "registry")
    monkeypatch.setattr(registry, "_put", lambda path, data, *, replace: True)
    with pytest.raises(VoxPressError, match="is being moved by others"):
        registry.advance("net", "latest", "1.1.0")


def test_many_publishers_of_one_directory(tmp_path: Path) -> None:
    """Threads with bundles of their own race for one version: one is published, whole, the others are refused."""
    place = str(tmp_path / "registry")
    made = [prepared(tmp_path / str(number), salt=str(number)) for number in range(8)]
    outcomes: list[object] = []

    def run(archive: Path, record: VersionRecord) -> None:
        try:
            outcomes.append(Registry(place).publish(archive, record, QUIET))
        except GateError as error:
            outcomes.append(error)

    threads = [threading.Thread(target=run, args=one) for one in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count(True) == 1
    assert sum(isinstance(outcome, GateError) for outcome in outcomes) == 7
    winner = Registry(place).record("net", "1.0.0")
    (archive,) = [archive for archive, record in made if record == winner]
    whole = b"".join(Registry(place).read_part(winner, index) for index in range(len(winner.parts)))
    assert whole == archive.read_bytes()


def test_pieces_are_of_eight_mebibytes() -> None:
    assert module.PART_BYTES == 8 * 1024 * 1024
