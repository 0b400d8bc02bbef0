"""What both runners promise beside their engines: resuming, full disks, hashes, the machine they ran on."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from device_tests.drive.build import host_build
from device_tests.records import EngineRecord, read_embeddings
from exporters.manifest import Lowering
from exporters.tflite.emit import emit_tflite
from tests.factories import tiny_artifact

Features = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "4bit.tflite"
    path.write_bytes(emit_tflite(tiny_artifact(4), lowering="voxpress"))
    return path


def write_features(path: Path, count: int, frames: int = 30) -> Features:
    rng = np.random.default_rng(count)
    made = {f"u{i:04d}": rng.normal(size=(frames, 80)).astype(np.float32) for i in range(count)}
    save_file(made, path)
    return made


def command(model: Path, features: Path, out: Path, *words: str) -> list[str]:
    build = host_build("tflite")
    options = ["--model", str(model), "--features", str(features), "--out", str(out), "--warmup", "0", "--runs", "1"]
    return [str(build.runner), *options, *build.options(str), *words]


def run(model: Path, features: Path, out: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(model, features, out, *words), capture_output=True, text=True, check=False)


def record(out: Path) -> EngineRecord:
    return EngineRecord.model_validate_json((out / "engine.json").read_text())


def test_a_killed_run_goes_on_where_it_was(model: Path, tmp_path: Path) -> None:
    made = write_features(tmp_path / "f.safetensors", 400)
    with subprocess.Popen(
        command(model, tmp_path / "f.safetensors", tmp_path / "out"), stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if int(line.split()[1]) >= 60:
                process.send_signal(signal.SIGKILL)
                break
    assert not (tmp_path / "out" / "embeddings.safetensors").exists()
    journal = tmp_path / "out" / "embeddings.journal"
    # As a killed writer may leave it: torn in the middle of a record.
    journal.write_bytes(journal.read_bytes()[:-7])

    assert run(model, tmp_path / "f.safetensors", tmp_path / "out").returncode == 0
    resumed = record(tmp_path / "out").resumed
    assert 50 <= resumed < 400
    assert not journal.exists()
    run(model, tmp_path / "f.safetensors", tmp_path / "whole")
    assert record(tmp_path / "whole").resumed == 0
    found, wanted = (read_embeddings(tmp_path / name / "embeddings.safetensors") for name in ("out", "whole"))
    assert found.keys() == wanted.keys() == made.keys()
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)


def test_a_journal_of_other_features_is_not_believed(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "embeddings.journal").write_bytes(b"voxpress embeddings 1\n" + b"0" * 129 + b"\nand then something else")
    write_features(tmp_path / "f.safetensors", 3)
    assert run(model, tmp_path / "f.safetensors", out).returncode == 0
    assert record(out).resumed == 0


def test_a_full_disk_keeps_earlier_results(model: Path, tmp_path: Path) -> None:
    write_features(tmp_path / "few.safetensors", 2)
    write_features(tmp_path / "many.safetensors", 100)
    out = tmp_path / "out"
    assert run(model, tmp_path / "few.safetensors", out).returncode == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def small_files_only() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run(
        command(model, tmp_path / "many.safetensors", out),
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=small_files_only,
    )
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]
    assert last == f"{out}/embeddings.journal: expected a place to write to, found File too large"
    assert {name: (out / name).read_bytes() for name in before} == before
    # With room again it goes on with what is in the journal.
    assert run(model, tmp_path / "many.safetensors", out).returncode == 0
    assert record(out).resumed > 20
    assert len(load_file(out / "embeddings.safetensors")) == 100


def test_a_corrupt_model_is_named_with_its_hash(model: Path, tmp_path: Path) -> None:
    write_features(tmp_path / "f.safetensors", 1)
    damaged = tmp_path / "damaged.tflite"
    data = bytearray(model.read_bytes())
    data[4:8] = b"XXXX"
    damaged.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    done = run(damaged, tmp_path / "f.safetensors", tmp_path / "out")
    assert done.returncode == 2
    assert done.stderr.startswith(f"{damaged}: expected a model that the engine can load, found ")
    assert done.stderr.strip().endswith(f"(sha256 {sha256})")
    wanted = hashlib.sha256(model.read_bytes()).hexdigest()
    done = run(damaged, tmp_path / "f.safetensors", tmp_path / "out", "--sha256", wanted)
    assert (done.returncode, done.stderr) == (2, f"{damaged}: expected sha256 {wanted}, found {sha256}\n")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 1000])
def test_hashes_of_every_length_are_those_of_the_standard(model: Path, tmp_path: Path, size: int) -> None:
    write_features(tmp_path / "f.safetensors", 1)
    path = tmp_path / "model.tflite"
    path.write_bytes(bytes(range(256)) * 4)
    path.write_bytes(path.read_bytes()[:size])
    done = run(path, tmp_path / "f.safetensors", tmp_path / "out", "--sha256", "none")
    assert done.stderr == f"{path}: expected sha256 none, found {hashlib.sha256(path.read_bytes()).hexdigest()}\n"


def test_the_record_says_what_it_ran_on(model: Path, tmp_path: Path) -> None:
    write_features(tmp_path / "f.safetensors", 2)
    assert run(model, tmp_path / "f.safetensors", tmp_path / "out").returncode == 0
    found = record(tmp_path / "out")
    assert found.model_sha256 == hashlib.sha256(model.read_bytes()).hexdigest()
    assert found.machine.architecture == os.uname().machine
    assert found.machine.cores == os.cpu_count()
    assert found.machine.memory_bytes == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    features = set(Path("/proc/cpuinfo").read_text().split())
    assert set(found.machine.cpu_features) <= features | {"fp", "asimd"}
    for state in (found.before, found.after):
        assert state.load_milli is not None
        assert all(-100_000 < value < 200_000 for value in state.temperature_mc.values())
    assert found.engine == "litert"
    assert json.loads((tmp_path / "out" / "engine.json").read_text())["runtime_version"] == found.runtime_version != ""
    assert {name.split("_")[0] for name in found.kernels} >= {"conv2d", "statspool"}


def test_a_missing_runtime_or_delegate_is_one_line(model: Path, tmp_path: Path) -> None:
    write_features(tmp_path / "f.safetensors", 1)
    build = host_build("tflite")
    base = [str(build.runner), "--model", str(model), "--features", str(tmp_path / "f.safetensors")]
    base += ["--out", str(tmp_path / "out")]
    for words, reason in (
        (["--runtime-library", "/nowhere/libLiteRt.so"], "/nowhere/libLiteRt.so"),
        (
            ["--runtime-library", str(build.runtime), "--delegate-library", "/nowhere/delegate.so"],
            "/nowhere/delegate.so",
        ),
        (["--runtime-library", str(build.delegate)], "has no TfLiteVersion"),
    ):
        done = subprocess.run([*base, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith(f"{model}: expected a model that the engine can load, found ")
        assert reason in line


# Loaded before the runner's own libraries: a byte for every thread that is started, however briefly it lives.
COUNTS_THREADS = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

int pthread_create(pthread_t* thread, const pthread_attr_t* how, void* (*enter)(void*), void* with) {
  int (*create)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*) = dlsym(RTLD_NEXT, "pthread_create");
  const int file = open(getenv("THREADS_STARTED"), O_CREAT | O_WRONLY | O_APPEND, 0600);
  if (file < 0 || write(file, "t", 1) != 1 || close(file) != 0) abort();
  return create(thread, how, enter, with);
}
"""


def threads_started(words: list[str], folder: Path) -> int:
    source, library, started = folder / "count.c", folder / "count.so", folder / "started"
    source.write_text(COUNTS_THREADS)
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    started.write_bytes(b"")
    environment = os.environ | {"LD_PRELOAD": str(library), "THREADS_STARTED": str(started)}
    subprocess.run(words, env=environment, check=True)
    return started.stat().st_size


@pytest.mark.parametrize("lowering", ["voxpress", "stock"])
def test_litert_runs_on_as_many_threads_as_it_is_told(lowering: Lowering, tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(emit_tflite(tiny_artifact(4), lowering=lowering))
    write_features(tmp_path / "f.safetensors", 1, frames=100)
    started = {}
    for count in (1, 2, 4):
        out = tmp_path / str(count)
        words = command(path, tmp_path / "f.safetensors", out, "--threads", str(count), "--speed-frames", "100")
        started[count] = threads_started(words, tmp_path)
        assert record(out).threads == count
    # Helpers beside the calling thread; what else the runtime starts does not depend on their number.
    assert (started[2] - started[1], started[4] - started[1]) == (1, 3)
