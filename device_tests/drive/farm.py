"""Device farms: packages of everything that a device needs to work through a bundle by itself, and what comes back.

A job is a folder: `device/` goes to the farm (models, features, `run.sh`, `job.json`; where programs can be run, the
runner and its libraries), the references and the context beside it stay here, to judge the results by. On the device,
results lie as `results/accuracy/<file>/` and `results/rounds/<round>/<file>/`, each with an engine's files. What is
missing of them in the end is named, and the run counts as incomplete.
"""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import Base64Bytes, BaseModel, ConfigDict, ValidationError

from calibration.ranges import Mode
from device_tests.drive.build import Build
from device_tests.drive.device import EngineCall
from device_tests.drive.engine import checked_record
from device_tests.drive.environment import environment_notes, environment_of
from device_tests.drive.inputs import Waveform, check_inputs, features_digest, input_file, write_inputs
from device_tests.drive.run import ModelFile
from device_tests.records import (
    EMBEDDINGS_FILE,
    ENGINE_FILE,
    RUN_FILE,
    BareName,
    BitsLabel,
    BundleIdentity,
    DeviceClass,
    EngineRecord,
    ModelFormat,
    ModelRun,
    Protocol,
    RunRecord,
    Sha256,
)
from exporters.manifest import Lowering, ModelInput
from pipeline.errors import InputError, VoxPressError
from pipeline.files import first_problem, read_json, sha256_file, write_atomically

Features = npt.NDArray[np.float32]
Platform = Literal["android", "ios"]

JOB_FILE = "job.json"
_DEVICE_FOLDER = "/data/local/tmp/voxpress"
_SHARED_FOLDER = "/sdcard/voxpress"
_MOST_ENTRIES, _MOST_BYTES = 100_000, 1 << 34


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class JobModel(_Frozen):
    """One model file of a job."""

    file: BareName
    sha256: Sha256
    file_bytes: int
    weights_sha256: Sha256 | None = None
    bits: BitsLabel
    format: ModelFormat
    lowering: Lowering
    mode: Mode
    input: ModelInput
    is_control: bool


class Job(_Frozen):
    """What a device is to do (`job.json`)."""

    schema_version: Literal[1] = 1
    platform: Platform
    bundle: BundleIdentity
    protocol: Protocol
    features_sha256: Sha256
    utterances: tuple[str, ...]
    models: tuple[JobModel, ...]


@dataclass(frozen=True)
class FarmApps:
    """The app that the farm installs, and the tests that it runs; both built elsewhere."""

    app: Path  # .apk or .ipa
    tests: Path  # the androidTest .apk, or a zip of .xctestrun and its products

    def check(self, platform: Platform) -> None:
        """Raise InputError for a file that is missing or of another suffix than the platform's."""
        for path, suffixes in ((self.app, _APP_SUFFIXES[platform]), (self.tests, _TEST_SUFFIXES[platform])):
            if not path.is_file() or path.suffix not in suffixes:
                found = f"suffix {path.suffix!r}" if path.is_file() else "no such file"
                raise InputError(path, expected=f"a {' or '.join(suffixes)} file", found=found)


_APP_SUFFIXES: dict[Platform, tuple[str, ...]] = {"android": (".apk",), "ios": (".ipa",)}
_TEST_SUFFIXES: dict[Platform, tuple[str, ...]] = {"android": (".apk",), "ios": (".zip", ".xctestrun")}


def write_job(
    folder: Path,
    platform: Platform,
    models: Sequence[ModelFile],
    features: Mapping[str, Features],
    *,
    protocol: Protocol,
    bundle: BundleIdentity,
    builds: Mapping[ModelFormat, Build],
    waveform: Waveform | None = None,
) -> Job:
    """Write a job's `device/` folder and return the job. `builds`: programs by format; empty: an app runs engines."""
    check_inputs(features, waveform, {model.input for model in models})
    device = folder / "device"
    (device / "models").mkdir(parents=True, exist_ok=True)
    job = Job(
        platform=platform,
        bundle=bundle,
        protocol=protocol,
        features_sha256=features_digest(features),
        utterances=tuple(sorted(features)),
        models=tuple(
            JobModel(
                file=model.path.name,
                sha256=sha256_file(model.path),
                file_bytes=model.total_bytes,
                weights_sha256=None if model.weights is None else sha256_file(model.weights),
                bits=model.bits,
                format=model.format,
                lowering=model.lowering,
                mode=model.mode,
                input=model.input,
                is_control=model.is_control,
            )
            for model in models
        ),
    )
    for model in models:
        for path in model.files:
            shutil.copyfile(path, device / "models" / path.name)
    write_inputs(device, features, waveform, speed_frames=protocol.speed_frames)
    for build in builds.values():
        (device / "bin").mkdir(exist_ok=True)
        for path in build.files:
            shutil.copy(path, device / "bin" / path.name)
    write_atomically(device / "run.sh", run_script(job, builds))
    write_atomically(device / JOB_FILE, job.model_dump_json(indent=1) + "\n")
    return job


def run_script(job: Job, builds: Mapping[ModelFormat, Build]) -> str:
    """A shell script that does a job with the runners in `bin/`; what is done already is not done again."""
    lines = [
        "#!/bin/sh",
        "# Works through the job in this folder. Results that are there are kept: after a restart it goes on.",
        'cd "$(dirname "$0")" || exit 2',
        'export LD_LIBRARY_PATH="$PWD/bin"',
        "chmod 755 bin/* 2>/dev/null",
        "failures=0",
        "engine() { # folder, program, options",
        '  out="$1"; program="$2"; shift 2',
        '  [ -f "$out/engine.json" ] && return',
        '  mkdir -p "$out"',
        '  "./bin/$program" --out "$out" "$@" 2>"$out/log.txt" || failures=$((failures + 1))',
        "}",
    ]
    once = job.protocol.model_copy(update={"warmup": 0, "runs": 1, "rounds": 1})
    for model in job.models:
        lines.append(_script_line(model, builds, once, f"results/accuracy/{model.file}", skip_accuracy=False))
    for index in range(job.protocol.rounds):
        turn = index % len(job.models)
        for model in (*job.models[turn:], *job.models[:turn]):
            out = f"results/rounds/{index}/{model.file}"
            lines.append(_script_line(model, builds, job.protocol, out, skip_accuracy=True))
    return "\n".join([*lines, 'exit "$failures"']) + "\n"


def _script_line(
    model: JobModel, builds: Mapping[ModelFormat, Build], protocol: Protocol, out: str, *, skip_accuracy: bool
) -> str:
    call = _call(model, Path(out), protocol, skip_accuracy=skip_accuracy)
    build = builds.get(model.format, Build(Path(f"voxpress_{model.format}_runner")))
    source = input_file(model.input, speed=skip_accuracy)
    words = call.options(f"models/{model.file}", source, out)
    at = words.index("--out")
    options = [*words[:at], *words[at + 2 :], *build.options(lambda path: f"./bin/{path.name}")]
    return f"engine {shlex.quote(out)} {build.runner.name} {shlex.join(options)}"


def aws_package(folder: Path, job: Job, apps: FarmApps) -> list[Path]:
    """Write what AWS Device Farm takes: `job.zip` (extra data), `testspec.yml`, and `schedule-run.json`."""
    apps.check(job.platform)
    archive = _zip_job(folder)
    spec = folder / "testspec.yml"
    write_atomically(spec, yaml.safe_dump(_aws_spec(job.platform), sort_keys=False, width=1000))
    kinds = ("ANDROID_APP", "INSTRUMENTATION") if job.platform == "android" else ("IOS_APP", "XCTEST_UI")
    run = {
        "name": f"{job.bundle.name} {job.bundle.version}",
        "uploads": [
            {"file": str(apps.app.resolve()), "type": kinds[0]},
            {"file": str(apps.tests.resolve()), "type": f"{kinds[1]}_TEST_PACKAGE"},
            {"file": spec.name, "type": f"{kinds[1]}_TEST_SPEC"},
            {"file": archive.name, "type": "EXTERNAL_DATA"},
        ],
        "test": {"type": kinds[1]},
        "executionConfiguration": {"jobTimeoutMinutes": 60, "videoCapture": False},
    }
    schedule = folder / "schedule-run.json"
    write_atomically(schedule, json.dumps(run, indent=1) + "\n")
    return [archive, spec, schedule]


def _aws_spec(platform: Platform) -> dict[str, object]:
    """The test spec: what the farm's host does around the device, which it reaches with adb or xcodebuild."""
    if platform == "android":
        adb = 'adb -s "$DEVICEFARM_DEVICE_UDID"'
        test = [
            # Extra data arrives in shared storage, where nothing can be run.
            f'{adb} shell "rm -rf {_DEVICE_FOLDER} && mkdir -p {_DEVICE_FOLDER}"',
            f'{adb} shell "cp -r /sdcard/device/. {_DEVICE_FOLDER}/"',
            f'{adb} shell "sh {_DEVICE_FOLDER}/run.sh"',
        ]
        # Also after a failure: what there is, is wanted.
        after = [
            f'{adb} pull {_DEVICE_FOLDER}/results "$DEVICEFARM_LOG_DIR/voxpress" || true',
            f'{adb} pull {_DEVICE_FOLDER}/job.json "$DEVICEFARM_LOG_DIR/voxpress-job.json" || true',
            f'{adb} shell "rm -rf {_DEVICE_FOLDER}"',
        ]
    else:
        result = '"$DEVICEFARM_LOG_DIR/voxpress.xcresult"'
        test = [
            'xcodebuild test-without-building -xctestrun "$DEVICEFARM_XCTESTRUN_FILE" '
            f'-destination "platform=iOS,id=$DEVICEFARM_DEVICE_UDID" -resultBundlePath {result}'
        ]
        after = [
            f"xcrun xcresulttool export attachments --path {result} --output-path "
            '"$DEVICEFARM_LOG_DIR/voxpress" || true'
        ]
    return {
        "version": 0.1,
        "phases": {
            "install": {"commands": []},
            "pre_test": {"commands": []},
            "test": {"commands": test},
            "post_test": {"commands": after},
        },
        "artifacts": ["$DEVICEFARM_LOG_DIR"],
    }


def firebase_devices(platform: Platform, devices: Sequence[str]) -> list[dict[str, str]]:
    """Devices as gcloud takes them. Raises InputError for another platform than android, none, or a malformed one."""
    if platform != "android":
        raise InputError("--platform", expected="android, for firebase", found=platform)
    if not devices:
        raise InputError("--farm-device", expected="model=ID,version=NUMBER, once or more", found="none")
    return [_firebase_device(one) for one in devices]


def firebase_package(folder: Path, job: Job, apps: FarmApps, devices: Sequence[str]) -> list[Path]:
    """Write what Firebase Test Lab takes: `job.zip` and an argument file for gcloud, with the command in it."""
    chosen = firebase_devices(job.platform, devices)
    apps.check(job.platform)
    archive = _zip_job(folder)
    arguments = folder / "gcloud.yaml"
    content = {
        "voxpress": {
            "type": "instrumentation",
            "app": str(apps.app.resolve()),
            "test": str(apps.tests.resolve()),
            "device": chosen,
            "other-files": {f"{_SHARED_FOLDER}/job.zip": archive.name},
            "environment-variables": {"voxpressJob": f"{_SHARED_FOLDER}/job.zip"},
            "directories-to-pull": [f"{_SHARED_FOLDER}/results"],
            "timeout": "45m",
            "no-record-video": True,
            "no-auto-google-login": True,
        }
    }
    text = f"# gcloud firebase test android run {arguments.name}:voxpress\n" + yaml.safe_dump(content, sort_keys=False)
    write_atomically(arguments, text)
    return [archive, arguments]


def _firebase_device(text: str) -> dict[str, str]:
    pairs = [pair.partition("=") for pair in text.split(",")]
    found = {name: value for name, _, value in pairs}
    if not {"model", "version"} <= found.keys() or not all(found.values()):
        raise InputError("--farm-device", expected="model=ID,version=NUMBER", found=text)
    return found


def ingest(results: Path, job: Job, device: str, out: Path) -> RunRecord:
    """The run that a farm's results are, written to `out` as any other; what is missing is named in it.

    results: AWS's `Customer_Artifacts.zip` or a folder of results of either farm, at any depth in them; of an iPhone,
    the exported attachments of its test.
    Raises InputError if there is no result of this job in it, or one that is not what it should be.
    """
    device_class: DeviceClass = "android" if job.platform == "android" else "ios"
    missing: list[str] = []
    runs: list[ModelRun] = []
    embeddings: dict[str, Path] = {}
    with _unpacked(results) as folder, _attached(folder, job) as whole_folder:
        found = _results_folder(whole_folder, job)
        once = job.protocol.model_copy(update={"warmup": 0, "runs": 1, "rounds": 1})
        for model in job.models:
            accuracy = _record(model, found / "accuracy" / model.file, once, job.utterances, missing)
            rounds = [
                _record(model, found / "rounds" / str(index) / model.file, job.protocol, (), missing)
                for index in range(job.protocol.rounds)
            ]
            whole = tuple(record for record in rounds if record is not None)
            if accuracy is None or not whole:
                missing.append(f"{model.file}: left out of the report")
                continue
            embeddings[model.file] = found / "accuracy" / model.file / EMBEDDINGS_FILE
            runs.append(
                ModelRun(
                    **model.model_dump(),
                    accuracy=accuracy,
                    rounds=whole,
                    embeddings=f"embeddings/{model.file}.safetensors",
                )
            )
        if not runs:
            raise InputError(results, expected=f"results of {job.bundle.name}", found="; ".join(missing[:3]))
        (out / "embeddings").mkdir(parents=True, exist_ok=True)
        for file, path in embeddings.items():
            shutil.copyfile(path, out / "embeddings" / f"{file}.safetensors")
    environment = environment_of(runs[0].accuracy)
    run = RunRecord(
        device=device,
        device_class=device_class,
        latency_valid=True,
        bundle=job.bundle,
        started_at=datetime.now(UTC),
        environment=environment,
        protocol=job.protocol,
        features_sha256=job.features_sha256,
        utterances=len(job.utterances),
        models=tuple(runs),
        missing=tuple(missing),
        notes=(*environment_notes(environment), "from a farm: the time given is that of reading the results"),
    )
    write_atomically(out / RUN_FILE, run.model_dump_json(indent=2) + "\n")
    return run


def read_job(folder: Path) -> Job:
    """The job of a folder that `write_job` wrote. Raises InputError if it is missing or malformed."""
    return read_json(folder / "device" / JOB_FILE, Job, what="a farm job")


def _record(
    model: JobModel, folder: Path, protocol: Protocol, utterances: Sequence[str], missing: list[str]
) -> EngineRecord | None:
    call = _call(model, folder, protocol, skip_accuracy=not utterances)
    try:
        return checked_record(call, utterances)
    except VoxPressError as error:
        log, said = folder / "log.txt", []
        if log.is_file() and not (folder / ENGINE_FILE).exists():
            lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            said = [line for line in lines if not line.startswith("progress ")]
        place = "/".join(folder.parts[-3:] if folder.parts[-3:-2] == ("rounds",) else folder.parts[-2:])
        missing.append(f"{place}: {said[-1] if said else str(error).partition(': ')[2]}")
        return None


def _call(model: JobModel, out: Path, protocol: Protocol, *, skip_accuracy: bool) -> EngineCall:
    return EngineCall(
        model=Path(model.file),
        format=model.format,
        sha256=model.sha256,
        features=Path("features.safetensors"),
        out=out,
        protocol=protocol,
        skip_accuracy=skip_accuracy,
    )


def _results_folder(folder: Path, job: Job) -> Path:
    """Where `accuracy/` or `rounds/` with a file of the job lie, at whatever depth the farm put them."""
    names = {model.file for model in job.models}
    for part in ("accuracy", "rounds"):
        for path in sorted(folder.rglob(part)):
            if path.is_dir() and any(below.name in names for below in path.rglob("*") if below.is_dir()):
                return path.parent
    raise InputError(folder, expected=f"results of {', '.join(sorted(names))}", found="none of them")


class _Attachment(_Frozen):
    """The files of one engine's run, as the benchmark's XCTest attaches them to its result."""

    format: Literal["voxpress-attachment"]
    out: str
    files: dict[BareName, Base64Bytes]


@contextmanager
def _attached(folder: Path, job: Job) -> Iterator[Path]:
    """A folder of the files that are attachments in `folder`; itself, if there are none.

    They are known by what is in them, since exporting gives them names of its own.
    Raises InputError for an attachment that is damaged, or of another job.
    """
    places = {f"results/accuracy/{model.file}" for model in job.models}
    places |= {f"results/rounds/{index}/{model.file}" for index in range(job.protocol.rounds) for model in job.models}
    with tempfile.TemporaryDirectory(prefix="voxpress-") as name:
        target = Path(name)
        for path in sorted(folder.rglob("*.json")):
            text = path.read_bytes()
            if b'"voxpress-attachment"' not in text:
                continue
            try:
                attachment = _Attachment.model_validate_json(text)
            except ValidationError as error:
                raise InputError(path, expected="an attachment of results", found=first_problem(error)) from None
            if attachment.out not in places:
                raise InputError(path, expected=f"results of {job.bundle.name}", found=f"those of {attachment.out}")
            place = target / attachment.out
            place.mkdir(parents=True, exist_ok=True)
            for file, content in attachment.files.items():
                (place / file).write_bytes(content)
        yield target if any(target.iterdir()) else folder


def _zip_job(folder: Path) -> Path:
    archive = folder / "job.zip"
    beside = archive.with_suffix(".zip.tmp")
    with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as stream:
        for path in sorted((folder / "device").rglob("*")):
            if path.is_file():
                stream.write(path, path.relative_to(folder).as_posix())
    beside.replace(archive)
    return archive


@contextmanager
def _unpacked(results: Path) -> Iterator[Path]:
    if results.is_dir():
        yield results
        return
    with tempfile.TemporaryDirectory(prefix="voxpress-") as name:
        folder = Path(name)
        try:
            with zipfile.ZipFile(results) as archive:
                entries = archive.infolist()
                if len(entries) > _MOST_ENTRIES or sum(entry.file_size for entry in entries) > _MOST_BYTES:
                    raise InputError(results, expected="results of a farm", found="a zip of unlikely size")
                archive.extractall(folder)  # which keeps names inside the folder
        except FileNotFoundError:
            raise InputError(results, expected="a farm's zip or folder of results", found="no such file") from None
        except (zipfile.BadZipFile, OSError, NotImplementedError, RuntimeError, EOFError) as error:
            raise InputError(results, expected="a farm's zip or folder of results", found=str(error)) from None
        yield folder
