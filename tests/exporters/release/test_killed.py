"""Publishing and fetching, killed at random points: there is never a half version, and nothing is lost."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest

from exporters.bundle.contents import check_contents
from exporters.bundle.trust import Trust
from exporters.release.cache import fetch
from exporters.release.registry import Registry, VersionRecord
from tests.exporters.release.killed import lines_of, run_and_die
from tests.exporters.release.published import QUIET, prepared, publish

POINTS = 50
S3_POINTS = 8  # each a process that connects anew


def _publish(place: str, archive: Path, record: VersionRecord) -> None:
    registry = Registry(place)
    registry.publish(archive, record, QUIET)
    registry.advance(record.name, "latest", record.version)


def _check(place: str, scratch: Path, record: VersionRecord) -> None:
    """Whatever versions are listed can be fetched whole; the earlier one is; latest means one of them."""
    registry = Registry(place)
    versions = [str(version) for version in registry.versions("net")]
    assert versions in (["1.0.0"], ["1.0.0", record.version])
    assert registry.channel("net", "latest") in versions
    for version in versions:
        fetched = fetch(f"net@{version}", registry, scratch, Trust(), QUIET)
        assert check_contents(fetched.folder).version == version


def test_a_publication_that_is_killed(tmp_path: Path) -> None:
    archive, record = prepared(tmp_path, "1.1.0", salt="new")
    publish(str(tmp_path / "dry"), tmp_path)
    total = lines_of(lambda: _publish(str(tmp_path / "dry"), archive, record))
    rng = random.Random(3)
    died = 0
    for number in range(POINTS):
        place = str(tmp_path / f"registry-{number}")
        publish(place, tmp_path)
        died += run_and_die(lambda place=place: _publish(place, archive, record), rng.randrange(total))
        _check(place, tmp_path / f"cache-{number}", record)
        _publish(place, archive, record)  # the same command again
        assert Registry(place).channel("net", "latest") == "1.1.0"
        _check(place, tmp_path / f"cache-{number}", record)
    assert died == POINTS


def test_a_fetch_that_is_killed(tmp_path: Path) -> None:
    place = str(tmp_path / "registry")
    publish(place, tmp_path)

    def get(cache: Path) -> Path:
        return fetch("net", Registry(place), cache, Trust(), QUIET).folder

    total = lines_of(lambda: get(tmp_path / "dry"))
    rng = random.Random(4)
    died = 0
    for number in range(POINTS):
        cache = tmp_path / f"cache-{number}"
        died += run_and_die(lambda cache=cache: get(cache), rng.randrange(total))
        for folder in [path for path in cache.glob("net/[0-9]*") if path.is_dir()]:
            check_contents(folder)
        check_contents(get(cache))
        folder = get(cache)
        assert {path.name for path in (cache / "net").iterdir()} == {folder.name, f"{folder.name}.json", ".lock"}
    assert died == POINTS


def _s3_publish(place: str, archive: Path, record: VersionRecord, started: multiprocessing.synchronize.Event) -> None:
    registry = Registry(place)
    registry.versions("net")  # connected
    started.set()
    _publish(place, archive, record)


def _s3_fetch(place: str, cache: Path, started: multiprocessing.synchronize.Event) -> None:
    registry = Registry(place)
    registry.versions("net")
    started.set()
    fetch("net", registry, cache, Trust(), QUIET)


def _killed_after(target, arguments: tuple, seconds: float) -> bool:
    """Run `target` in a process and send it SIGKILL so long after it has connected; whether that ended it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["exporters.release.cache", "s3fs", "tests.exporters.release.test_killed"])
    started = context.Event()
    process = context.Process(target=target, args=(*arguments, started))
    process.start()
    assert started.wait(60)
    time.sleep(seconds)
    if process.pid is not None and process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


@pytest.mark.slow
def test_an_s3_registry_whose_publisher_is_killed(s3_server: str, tmp_path: Path) -> None:
    archive, record = prepared(tmp_path, "1.1.0", salt="new")
    rng, died = random.Random(5), 0
    started = time.monotonic()
    publish("s3://models/dry", tmp_path)
    _publish("s3://models/dry", archive, record)
    span = (time.monotonic() - started) / 2
    for number in range(S3_POINTS):
        place = f"s3://models/killed-{number}"
        publish(place, tmp_path)
        died += _killed_after(_s3_publish, (place, archive, record), rng.uniform(0, span))
        _check(place, tmp_path / f"cache-{number}", record)
        _publish(place, archive, record)
        _check(place, tmp_path / f"cache-{number}", record)
        assert Registry(place).channel("net", "latest") == "1.1.0"
    assert died > 0


@pytest.mark.slow
def test_a_fetch_from_s3_that_is_killed(s3_server: str, tmp_path: Path) -> None:
    place = "s3://models/fetched"
    publish(place, tmp_path)
    rng, died = random.Random(6), 0
    started = time.monotonic()
    fetch("net", Registry(place), tmp_path / "dry", Trust(), QUIET)
    span = time.monotonic() - started
    for number in range(S3_POINTS):
        cache = tmp_path / f"cache-{number}"
        died += _killed_after(_s3_fetch, (place, cache), rng.uniform(0, span))
        for folder in [path for path in cache.glob("net/[0-9]*") if path.is_dir()]:
            check_contents(folder)
        check_contents(fetch("net", Registry(place), cache, Trust(), QUIET).folder)
    assert died > 0
