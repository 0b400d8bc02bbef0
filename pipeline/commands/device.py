"""`voxpress device ...`: run bundles on devices, judge what comes back, and follow it over versions."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.commands import options
from pipeline.commands.terminal import show

if TYPE_CHECKING:
    from device_tests.bundle_run import PreparedBundle
    from device_tests.drive.device import Device
    from device_tests.gates import Verdicts
    from device_tests.records import Protocol
    from device_tests.report.figures import Report

app = typer.Typer(help="Run bundles on devices, and judge parity, size and latency.", no_args_is_help=True)

GatesFile = Annotated[Path | None, typer.Option("--gates", help="Limits of one's own, over those that come along.")]
History = Annotated[Path, typer.Option("--history", help="The SQLite file that results are kept in.")]
Trials = Annotated[Path | None, typer.Option(help="Trial list. [default: embedded synthetic voices]")]
Crop = Annotated[
    float | None, typer.Option(min=0.3, help="Use only the first seconds. [default: what every model takes]")
]
Only = Annotated[list[str] | None, typer.Option(help="Model file of the bundle to run; may be repeated.")]
Warmup = Annotated[int, typer.Option(min=0, help="Runs of each process that are not timed.")]
Runs = Annotated[int, typer.Option(min=1, help="Timed runs of each file in each round.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds over all files.")]
LowMemory = Annotated[bool, typer.Option("--low-memory", help="Keep the weights of VoxPress ops packed.")]
SpeedFrames = Annotated[int, typer.Option(min=28, help="Frames of the utterance that is timed.")]
DEFAULT_HISTORY = Path("out") / "device-history.sqlite"


@app.command("list", epilog="Example: voxpress device list --json")
def list_devices(json: options.Json = False) -> None:
    """Every device there is now: this machine, the emulator, and what adb and Xcode see."""
    from json import dumps

    from rich.table import Table

    from device_tests.drive.choose import Choice, known_devices

    rows = [(device.name, device.device_class, device.describe()) for device in known_devices(Choice())]
    if json:
        typer.echo(dumps([dict(zip(("name", "class", "what"), row, strict=True)) for row in rows], indent=1))
        return
    table = Table("device", "class", "what it is")
    for row in rows:
        table.add_row(*row)
    show(table)


@app.command(epilog="Example: voxpress device run --device host --device adb:* bundles/speaker-1.0.0.zip")
def run(
    bundle: options.BundleArgument,
    device: Annotated[
        list[str] | None,
        typer.Option(help="host, qemu-aarch64, adb:SERIAL, adb:*, ios:ID; may be repeated. [default: host]"),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs; each gets <bundle>-<version>/<device>.")] = Path("out")
    / "device-runs",
    audio: options.AudioIfAny = None,
    trials: Trials = None,
    crop_seconds: Crop = None,
    only: Only = None,
    warmup: Warmup = 2,
    runs: Runs = 10,
    rounds: Rounds = 3,
    threads: options.Threads = 1,
    speed_frames: SpeedFrames = 200,
    low_memory: LowMemory = False,
    gates: GatesFile = None,
    history: History = DEFAULT_HISTORY,
    build: Annotated[
        str, typer.Option(help="Programs for adb devices: android, host, aarch64, or a folder of native/ and runtime/.")
    ] = "android",
    android_app: Annotated[
        str | None, typer.Option(help="PACKAGE/ACTIVITY to start by intent instead of the runner.")
    ] = None,
    ios_app: Annotated[str, typer.Option(help="Bundle identifier of the benchmark app.")] = "org.voxpress.benchmark",
    max_celsius: Annotated[float, typer.Option(help="Wait until a phone is no hotter before it is timed.")] = 40.0,
    cool_down_seconds: Annotated[float, typer.Option(min=0, help="How long to wait for that.")] = 180.0,
    json: options.Json = False,
) -> None:
    """Run a bundle on devices (several at the same time), report, and judge: exit code 3 if a gate fails."""
    from device_tests.bundle_run import SpeechChoice, prepared_bundle
    from device_tests.drive.adb import AdbSettings
    from device_tests.drive.choose import Choice, chosen_devices
    from device_tests.gates import DEFAULT_GATES, read_gates
    from device_tests.history import check
    from device_tests.records import Protocol
    from pipeline.progress import Progress

    progress = Progress()
    # Before hours of running, not after.
    read_gates(gates or DEFAULT_GATES, "host")
    check(history)
    settings = AdbSettings(max_start_celsius=max_celsius, cool_down_seconds=cool_down_seconds, app=android_app)
    devices = chosen_devices(device or ["host"], Choice(build=build, adb=settings, ios_app=ios_app))
    protocol = Protocol(
        warmup=warmup,
        runs=runs,
        rounds=rounds,
        threads=threads,
        speed_frames=speed_frames,
        low_memory=low_memory,
    )
    speech = SpeechChoice(audio, trials, crop_seconds)
    with prepared_bundle(bundle, speech, progress, only or ()) as prepared:
        base = out / f"{prepared.manifest.name}-{prepared.manifest.version}"
        folders = [(one, base / re.sub(r"[^A-Za-z0-9_.-]", "-", one.name)) for one in devices]
        errors = _run_all(folders, prepared, protocol)
    done = [folder for one, folder in folders if one.name not in errors]
    judged = [_judge(folder, gates, history) for folder in done]
    _finish(judged, done, json=json, errors=list(errors.values()))


def _run_all(folders: list[tuple[Device, Path]], prepared: PreparedBundle, protocol: Protocol) -> dict[str, Exception]:
    """Run on all devices, those other than processes of this machine at the same time; errors by device name."""
    from concurrent.futures import ThreadPoolExecutor

    from device_tests.bundle_run import run_bundle
    from pipeline.errors import VoxPressError
    from pipeline.progress import Progress

    def once(device: Device, folder: Path, progress: Progress) -> Exception | None:
        try:
            fitting = protocol
            if not device.latency_valid:
                fitting = protocol.model_copy(update={"warmup": 0, "runs": 1, "rounds": 1})
            run_bundle(device, prepared, folder, protocol=fitting, progress=progress)
        except VoxPressError as error:
            return error
        return None

    here = [entry for entry in folders if entry[0].device_class in ("host", "emulator")]
    attached = [entry for entry in folders if entry not in here]
    errors = {device.name: once(device, folder, Progress()) for device, folder in here}
    with ThreadPoolExecutor(max(1, len(attached))) as pool:
        started = {
            device.name: pool.submit(once, device, folder, Progress() if len(attached) == 1 else Progress.silent())
            for device, folder in attached
        }
        errors |= {name: future.result() for name, future in started.items()}
    return {name: error for name, error in errors.items() if error is not None}


@app.command(epilog="Example: voxpress device report out/device-runs/speaker-1.0.0/* --out matrix")
def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of runs.")],
    out: Annotated[Path | None, typer.Option(help="Folder of the page over all runs.")] = None,
    gates: GatesFile = None,
    json: options.Json = False,
) -> None:
    """Report and judge runs anew, each in its folder, and all on one page (--out): exit code 3 if a gate fails."""
    from device_tests.bundle_run import report_run
    from device_tests.gates import DEFAULT_GATES

    judged = [report_run(folder, gates or DEFAULT_GATES) for folder in runs]
    _finish(judged, runs, json=json, matrix=out)


@app.command("gates", epilog="Example: voxpress device gates out/device-runs/speaker-1.0.0/host* > gates.toml")
def write_gates(runs: Annotated[list[Path], typer.Argument(help="Folders of at least two reported runs.")]) -> None:
    """Limits for latency and memory ratios, from how far they spread over runs of one class of device."""
    from device_tests.gates import gates_from, read_verdicts
    from device_tests.report.build import read_report

    typer.echo(gates_from([(read_report(folder), read_verdicts(folder)) for folder in runs]))


@app.command(epilog="Example: voxpress device trend --bundle speaker --device host")
def trend(
    history: History = DEFAULT_HISTORY,
    bundle: Annotated[str | None, typer.Option(help="Only this bundle.")] = None,
    device: Annotated[str | None, typer.Option(help="Only this device.")] = None,
    json: options.Json = False,
) -> None:
    """A model's EER, size and latency over versions; exit code 3 if one got worse."""
    from device_tests.history import read_trend, trend_tables
    from pipeline.errors import GateError

    found = read_trend(history, bundle=bundle, device=device)
    if json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        show(*trend_tables(found))
    if found.regressions:
        raise GateError("\n".join(one.line() for one in found.regressions))


@app.command(epilog="Example: voxpress device package aws b.zip --app app.apk --tests test.apk --out job")
def package(
    farm: Annotated[str, typer.Argument(help="aws or firebase.")],
    bundle: options.BundleArgument,
    app_file: Annotated[Path, typer.Option("--app", help="The app, .apk or .ipa.")],
    tests: Annotated[Path, typer.Option(help="The tests: androidTest .apk, or a zip of .xctestrun and products.")],
    out: Annotated[Path, typer.Option(help="Folder of the job.")],
    platform: Annotated[str, typer.Option(help="android or ios.")] = "android",
    farm_device: Annotated[
        list[str] | None, typer.Option(help="Firebase: model=...,version=...; may be repeated.")
    ] = None,
    build: Annotated[str, typer.Option(help="Programs for the device: android, or a folder.")] = "android",
    audio: options.AudioIfAny = None,
    trials: Trials = None,
    crop_seconds: Crop = None,
    only: Only = None,
    warmup: Warmup = 2,
    runs: Runs = 10,
    rounds: Rounds = 3,
    threads: options.Threads = 1,
    speed_frames: SpeedFrames = 200,
    low_memory: LowMemory = False,
) -> None:
    """Everything that a farm needs to run a bundle: the job, test specs, and arguments of its command line."""
    from device_tests.bundle_run import SpeechChoice, prepared_bundle
    from device_tests.drive.choose import build_named
    from device_tests.drive.farm import FarmApps, aws_package, firebase_devices, firebase_package, write_job
    from device_tests.records import Protocol
    from pipeline.errors import InputError
    from pipeline.progress import Progress

    if farm not in ("aws", "firebase"):
        raise InputError("FARM", expected="aws or firebase", found=farm)
    if platform not in ("android", "ios"):
        raise InputError("--platform", expected="android or ios", found=platform)
    apps = FarmApps(app_file, tests)
    apps.check("ios" if platform == "ios" else "android")
    if farm == "firebase":
        firebase_devices("ios" if platform == "ios" else "android", farm_device or ())
    progress = Progress()
    protocol = Protocol(
        warmup=warmup,
        runs=runs,
        rounds=rounds,
        threads=threads,
        speed_frames=speed_frames,
        low_memory=low_memory,
    )
    with prepared_bundle(bundle, SpeechChoice(audio, trials, crop_seconds), progress, only or ()) as prepared:
        # On AWS the farm's host reaches the device with adb; elsewhere the app runs the engines.
        shelled = farm == "aws" and platform == "android"
        formats = {model.format for model in prepared.models} if shelled else set()
        job = write_job(
            out,
            "ios" if platform == "ios" else "android",
            prepared.models,
            prepared.features,
            protocol=protocol.model_copy(update={"crop_seconds": prepared.speech.crop_seconds}),
            bundle=prepared.identity,
            builds={one: build_named(build)(one) for one in formats},
            waveform=prepared.waveform,
        )
        prepared.write_judgement(out, progress)
    written = aws_package(out, job, apps) if farm == "aws" else firebase_package(out, job, apps, farm_device or ())
    for path in written:
        typer.echo(path)


@app.command(
    epilog="Example: voxpress device ingest Customer_Artifacts.zip --job job --device pixel8 --out runs/pixel8"
)
def ingest(
    results: Annotated[Path, typer.Argument(help="What the farm gave back: a zip or a folder.")],
    job: Annotated[Path, typer.Option(help="Folder that `voxpress device package` wrote.")],
    device: Annotated[str, typer.Option(help="Name of the device the results are from.")],
    out: Annotated[Path, typer.Option(help="Folder of the run.")],
    gates: GatesFile = None,
    history: History = DEFAULT_HISTORY,
    json: options.Json = False,
) -> None:
    """A farm's results as a run, reported and judged; what is missing is named, and fails a gate."""
    import shutil

    from device_tests.bundle_run import CONTEXT_FILE, REFERENCES
    from device_tests.drive.farm import ingest as read_results
    from device_tests.drive.farm import read_job

    read_results(results, read_job(job), f"farm:{device}", out)
    shutil.copytree(job / REFERENCES, out / REFERENCES, dirs_exist_ok=True)
    shutil.copyfile(job / CONTEXT_FILE, out / CONTEXT_FILE)
    _finish([_judge(out, gates, history)], [out], json=json)


@app.command(
    epilog="Example: voxpress device xctest Benchmark.xctestrun 00008120-1 --out bench.xcresult --argument=--runs=3"
)
def xctest(
    tests: Annotated[Path, typer.Argument(help="The .xctestrun of a built test bundle.")],
    identifier: Annotated[str, typer.Argument(help="The device, as `voxpress device list` names it behind ios:.")],
    out: Annotated[Path, typer.Option(help="The result bundle that xcodebuild is to write.")],
    argument: Annotated[
        list[str] | None, typer.Option(help="Of VOXPRESS_ARGUMENTS, the runner's options; may be repeated.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Run a built test bundle on an iPhone (macOS, xcodebuild test-without-building)."""
    from dataclasses import asdict
    from json import dumps

    from rich.table import Table

    from device_tests.drive.ios import run_xctest

    cases = run_xctest(tests, identifier.removeprefix("ios:"), argument or [], out)
    if json:
        typer.echo(dumps([asdict(case) for case in cases], indent=1))
        return
    table = Table("test", "seconds")
    for case in cases:
        table.add_row(case.name, f"{case.seconds:.1f}")
    show(table)


@app.command(epilog="Example: voxpress device schema > run.schema.json")
def schema() -> None:
    """The JSON Schema of run.json."""
    from device_tests.schema import schema_text

    typer.echo(schema_text(), nl=False)


def _judge(folder: Path, gates: Path | None, history: Path) -> tuple[Report, Verdicts]:
    from device_tests import history as store
    from device_tests.bundle_run import report_run
    from device_tests.gates import DEFAULT_GATES

    found, verdicts = report_run(folder, gates or DEFAULT_GATES)
    store.append(history, found, verdicts)
    return found, verdicts


def _finish(
    judged: list[tuple[Report, Verdicts]],
    folders: list[Path],
    *,
    json: bool,
    matrix: Path | None = None,
    errors: list[Exception] | None = None,
) -> None:
    """Print what was found, write the page over all runs, and end with the code that it deserves."""
    from json import dumps, loads

    from device_tests.report.build import report_table
    from device_tests.report.matrix import build_matrix, terminal_tables
    from pipeline.errors import GateError

    made = build_matrix(judged, matrix) if matrix is not None else None
    if json:
        found = [
            {"report": loads(one.model_dump_json()), "verdicts": loads(verdicts.model_dump_json())}
            for one, verdicts in judged
        ]
        typer.echo(dumps(found, indent=1))
    elif made is not None:
        show(*terminal_tables(made))
    else:
        for one, _ in judged:
            show(f"[bold]{one.title}[/bold]", report_table(one))
        typer.echo("\n".join(f"{folder / 'report.html'}" for folder in folders if (folder / "report.html").is_file()))
    lines = [f"{one.device}: {result.line()}" for one, verdicts in judged for result in verdicts.failed]
    if errors:
        for text in (*lines, *errors[:-1]):
            typer.echo(f"voxpress: {text}", err=True)
        raise errors[-1]
    if lines:
        raise GateError("\n".join(lines))
