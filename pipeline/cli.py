"""The command line. Each command parses its words and calls one function; heavy imports happen inside."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from pipeline.commands import bundle, device, options, release
from pipeline.commands.calibrate import calibrate
from pipeline.commands.terminal import show
from pipeline.errors import VoxPressError

if TYPE_CHECKING:
    from exporters.exported import ExportedFile
    from exporters.int8_control import Int8Control

app = typer.Typer(
    name="voxpress",
    help="Low-bit speaker verification for phones: a network in, small verified .pte and .tflite files out.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
recipe_app = typer.Typer(help="Look at recipes.", no_args_is_help=True)
app.add_typer(recipe_app, name="recipe")
import_app = typer.Typer(help="Take over models that others trained.", no_args_is_help=True)
app.add_typer(import_app, name="import")
prepare_app = typer.Typer(help="Turn downloaded corpora into manifests.", no_args_is_help=True)
app.add_typer(prepare_app, name="prepare")
app.add_typer(bundle.app, name="bundle")
app.add_typer(release.registry_app, name="registry")

app.command(
    epilog="Example: voxpress calibrate out/demo/uniform/4bit --audio speech/dev --trials t.txt --out cal-4bit"
)(calibrate)
app.command(epilog="Example: voxpress compat speaker-1.0.0.zip speaker-1.1.0.zip --audio speech/dev --trials t.txt")(
    release.compat
)
app.command(epilog="Example: voxpress release bundles/speaker-0.1.0.zip --registry s3://models --key release.pem")(
    release.release
)
app.command(epilog="Example: voxpress fetch speaker@1.0.0 --registry s3://models --key release.pub.pem")(release.fetch)
app.add_typer(device.app, name="device")

EXIT_INTERRUPTED = 130


@app.command(epilog="Example: voxpress run librispeech-mini --corpus speech/train --out out/mini --until uniform")
def run(
    recipe: Annotated[str, typer.Argument(help="A recipe's TOML file, or the name of a built-in one.")],
    corpus: Annotated[
        Path | None,
        typer.Option(
            help="Folder <speaker>/**/*.wav|flac, or a lhotse cut manifest or Shar folder. Default: synthetic voices."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results. [default: out/<recipe name>]")] = None,
    until: Annotated[
        str | None,
        typer.Option(help="Last stage: corpus, pretrain, uniform, mixed, msft, binary, export, device-test or bundle."),
    ] = None,
    pretrained: Annotated[
        Path | None,
        typer.Option(help="Model folder, as `voxpress import` writes it, to be taken instead of training."),
    ] = None,
) -> None:
    """Run a recipe: pretrain, quantize, export, test on the device, bundle. Run again to go on where it was stopped."""
    from pipeline.progress import Progress
    from pipeline.recipe import load_recipe
    from pipeline.stages.run import run_recipe

    loaded = load_recipe(recipe)
    run_recipe(
        loaded,
        corpus_folder=corpus,
        pretrained=pretrained,
        out=out or Path("out") / loaded.name,
        until=until,
        progress=Progress(),
    )


@app.command(epilog="Example: voxpress sweep sweep-mini --corpus speech/train --audio speech/dev --trials t.txt")
def sweep(
    recipe: Annotated[
        str, typer.Argument(help="A recipe with \\[msft]: its TOML file, or the name of a built-in one.")
    ],
    corpus: Annotated[
        Path | None,
        typer.Option(help="Folder <speaker>/**/*.wav|flac (VoxCeleb's too). Without it: embedded synthetic voices."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results. [default: out/<recipe name>]")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, counted up from the recipe's.")] = 3,
    audio: options.AudioIfAny = None,
    trials: Annotated[
        Path | None, typer.Option(help="A trial list to evaluate on too, beside the held-out trials.")
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Seeds to run at the same time, each in a process.")] = 1,
    bits: Annotated[str, typer.Option(help="Uniform widths, or none.")] = "8,5,4,3,2",
    mixed_bits: Annotated[str, typer.Option(help="Mixed and MSFT at the bytes of these widths, or none.")] = "5,4,3,2",
    quantizers: Annotated[str, typer.Option(help="1-bit quantizers, or none.")] = "sign,static,adaptive",
    json: options.Json = False,
) -> None:
    """Compare every width and quantizer over several seeds. Run again to go on where it was stopped."""
    from device_tests.report.sweep_tables import terminal_tables
    from pipeline.errors import InputError
    from pipeline.progress import Progress
    from pipeline.recipe import load_recipe
    from pipeline.stages.sweep import GivenTrials, SweptSettings
    from pipeline.stages.sweep import sweep as sweep_recipe

    loaded = load_recipe(recipe)
    if (audio is None) != (trials is None):
        found = "only --trials" if audio is None else "only --audio"
        raise InputError("--audio and --trials", expected="both or neither", found=found)
    result = sweep_recipe(
        loaded,
        corpus_folder=corpus,
        out=out or Path("out") / loaded.name,
        seeds=seeds,
        given=GivenTrials(audio, trials) if audio is not None and trials is not None else None,
        progress=Progress(),
        settings=SweptSettings.parse(bits, mixed_bits, quantizers),
        jobs=jobs,
    )
    if json:
        typer.echo(result.model_dump_json(indent=1))
    else:
        for table in terminal_tables(result):
            show(table)


@app.command(epilog="Example: voxpress evaluate out/demo/export/resnet10-c8-4bit.pte --audio speech/dev --trials t.txt")
def evaluate(
    model: options.ModelArgument,
    audio: options.Audio,
    trials: options.Trials,
    json: options.Json = False,
    only: options.OneModel = None,
    crop_seconds: options.Crop = 0.0,
    threads: options.Threads = 1,
    low_memory: Annotated[
        bool, typer.Option("--low-memory", help="Keep weights packed and expand them at each call.")
    ] = False,
    reference: Annotated[
        Path | None, typer.Option(help="A model whose embeddings the others' are compared with, by cosine.")
    ] = None,
    cohort: options.CohortFile = None,
    cohort_top: options.CohortTop = 300,
) -> None:
    """EER and minDCF of a model on a trial list."""
    from device_tests.evaluate import evaluate as evaluate_model
    from device_tests.evaluate import evaluation_json, evaluation_table
    from pipeline.progress import Progress

    results = evaluate_model(
        model,
        audio=audio,
        trials_file=trials,
        progress=Progress(),
        only=only,
        crop_seconds=crop_seconds,
        threads=threads,
        low_memory=low_memory,
        reference=reference,
        cohort_file=cohort,
        cohort_top=cohort_top,
    )
    if json:
        typer.echo(evaluation_json(results))
    else:
        show(evaluation_table(results))


@app.command(epilog="Example: voxpress quantize r34 --average-bits 3 --audio speech/some --out r34-mixed")
def quantize(
    model: Annotated[Path, typer.Argument(help="Pre-trained model folder, as `run` or `import` write it.")],
    out: Annotated[Path, typer.Option(help="Folder of the artifact.")],
    bits: Annotated[int | None, typer.Option(help="The same width, 1..8, in every layer.")] = None,
    average_bits: Annotated[
        float | None, typer.Option(help="Mixed widths at the bytes of this uniform width, 1 to 8.")
    ] = None,
    budget_bytes: Annotated[int | None, typer.Option(help="Mixed widths within so many bytes.")] = None,
    plan: Annotated[Path | None, typer.Option(help="Mixed widths as a plan.json says.")] = None,
    audio: Annotated[
        Path | None,
        typer.Option(
            help="A few dozen utterances, <speaker>/**/*.wav|flac, to measure batch-norms and sensitivities on. "
            "Without it --bits and --plan only round the weights, which costs accuracy."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Chooses crops and probes.")] = 0,
) -> None:
    """Quantize a model without training: uniform or mixed widths, from a few dozen utterances."""
    from calibration.post_training import Widths, quantize_model
    from pipeline.progress import Progress

    widths = Widths(bits=bits, average_bits=average_bits, budget_bytes=budget_bytes, plan=plan, audio=audio, seed=seed)
    artifact, made = quantize_model(model, widths, out, progress=Progress())
    typer.echo(
        f"{out}  {artifact.header.name}, {artifact.weights_bytes} bytes, {made.average_bits:.2f} bits per weight"
    )


@app.command(
    epilog="Example: voxpress cohort out/demo/uniform/4bit --corpus vox2_dev.jsonl.gz --out cohort.safetensors"
)
def cohort(
    model: options.ModelArgument,
    corpus: Annotated[Path, typer.Option(help="Folder of speakers or lhotse cut manifest: no speakers of the trials.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    utterances_per_speaker: Annotated[int, typer.Option(min=1, help="Utterances averaged for each speaker.")] = 10,
    only: options.OneModel = None,
    threads: options.Threads = 1,
) -> None:
    """A model's cohort for AS-Norm: one mean embedding for each speaker of a corpus."""
    from device_tests.evaluate import make_cohort
    from pipeline.progress import Progress

    speakers = make_cohort(
        model,
        corpus=corpus,
        out=out,
        utterances_per_speaker=utterances_per_speaker,
        progress=Progress(),
        only=only,
        threads=threads,
    )
    typer.echo(f"{out}: {speakers} speakers")


@app.command(epilog="Example: voxpress export out/demo/uniform/4bit --format pte --fallback --out models")
def export(
    artifact: Annotated[Path, typer.Argument(help="Artifact folder.")],
    file_format: Annotated[str, typer.Option("--format", help="pte, tflite, both (of these), or coreml.")] = "both",
    fallback: Annotated[bool, typer.Option(help="Stock ops only, weights dequantized to fp32: runs anywhere.")] = False,
    model_input: Annotated[
        str, typer.Option("--input", help="What the model takes: fbank (features) or waveform (samples in [-1, 1)).")
    ] = "fbank",
    max_seconds: Annotated[float, typer.Option(help="Longest utterance; memory of a .pte is planned for it.")] = 10.0,
    chunk_seconds: Annotated[
        float | None,
        typer.Option(help="Embed longer audio as the mean of chunks of this length, in bounded memory."),
    ] = None,
    max_batch: Annotated[
        int, typer.Option(help="Utterances that one call of a .pte takes; its memory is planned for so many.")
    ] = 1,
    split_weights: Annotated[
        bool, typer.Option(help="With --format pte: weights into a .ptd that all programs of the artifact share.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of the model files.")] = Path(),
    json: options.Json = False,
    mode: Annotated[
        str, typer.Option(help="exact: fp32 activations. fast: u8 activations, integer kernels; needs --audio.")
    ] = "exact",
    int8: Annotated[
        bool,
        typer.Option(
            "--int8",
            help="Controls: the weights in each runtime's own int8 (PT2E; ONNX and onnx2tf); needs --audio.",
        ),
    ] = False,
    frames: Annotated[
        int, typer.Option(help="With --int8: length of the crops, and the one length that the .tflite takes.")
    ] = 200,
    audio: Annotated[
        Path | None,
        typer.Option(
            help="Mode fast and --int8: utterances, <speaker>/**/*.wav|flac, to measure activation ranges and check on."
        ),
    ] = None,
    utterances: Annotated[int, typer.Option(help="Mode fast: how many of them, spread evenly.")] = 32,
    ranges: Annotated[str, typer.Option(help="Mode fast: min-max, percentile or mse.")] = "percentile",
    percentile: Annotated[float, typer.Option(help="Of --ranges percentile, above 50 and up to 100.")] = 99.99,
    activations: Annotated[
        Path | None, typer.Option(help="Mode fast: take the ranges of this activations.json instead of measuring.")
    ] = None,
) -> None:
    """Write an artifact as .pte and .tflite, each checked against the reference network before it is kept."""
    others = {
        "--fallback": fallback,
        "--input": model_input != "fbank",
        "--chunk-seconds": chunk_seconds is not None,
        "--split-weights": split_weights,
        "--max-batch": max_batch != 1,
        "--mode": mode != "exact",
        "--activations": activations is not None,
    }
    if file_format == "coreml":
        _export_coreml(
            artifact,
            out,
            max_seconds,
            others={**others, "--int8": int8, "--audio": audio is not None},
            json=json,
        )
        return
    if int8:
        _export_int8(
            artifact,
            out,
            file_format,
            audio=audio,
            frames=frames,
            max_seconds=max_seconds,
            others=others,
            json=json,
        )
        return
    from exporters.export import export_files, fast_options
    from exporters.exported import export_list_json
    from pipeline.progress import Progress

    fast = fast_options(
        mode,
        fallback=fallback,
        audio=audio,
        utterances=utterances,
        method=ranges,
        percentile=percentile,
        activations=activations,
    )
    written = export_files(
        artifact,
        file_format=file_format,
        fallback=fallback,
        max_seconds=max_seconds,
        out=out,
        progress=Progress(),
        model_input=model_input,
        chunk_seconds=chunk_seconds,
        fast=fast,
        split_weights=split_weights,
        max_batch=max_batch,
    )
    if json:
        typer.echo(export_list_json(written))
        return
    for exported in written:
        _say_exported(out, exported)


def _say_exported(out: Path, exported: ExportedFile | Int8Control) -> None:
    found = exported.agreement
    typer.echo(
        f"{out / exported.file}  {exported.bytes} bytes  max relative error {found.max_relative_error:.2g}  "
        f"cosine {found.cosine_mean:.5f}, least {found.cosine_min:.5f}"
    )


def _export_int8(
    artifact: Path,
    out: Path,
    file_format: str,
    *,
    audio: Path | None,
    frames: int,
    max_seconds: float,
    others: Mapping[str, bool],
    json: bool,
) -> None:
    from exporters.export import chosen_formats
    from exporters.int8_control import controls_json, export_int8
    from pipeline.errors import InputError
    from pipeline.progress import Progress

    _refuse_options("--int8", others)
    if audio is None:
        raise InputError("--audio", expected="a folder of utterances, for --int8", found="none")
    written = export_int8(
        artifact,
        formats=chosen_formats(file_format),
        audio=audio,
        frames=frames,
        max_seconds=max_seconds,
        out=out,
        progress=Progress(),
    )
    if json:
        typer.echo(controls_json(written))
        return
    for control in written:
        _say_exported(out, control)


def _refuse_options(option: str, others: Mapping[str, bool]) -> None:
    """Raise InputError if one of the others was given, which mean nothing beside `option`."""
    from pipeline.errors import InputError

    given = [name for name, is_given in others.items() if is_given]
    if given:
        raise InputError(option, expected="none of the other files' options", found=", ".join(given))


def _export_coreml(artifact: Path, out: Path, max_seconds: float, *, others: Mapping[str, bool], json: bool) -> None:
    from exporters.coreml.export import export_coreml

    _refuse_options("--format coreml", others)
    written = export_coreml(artifact, out, max_seconds=max_seconds, precision="float16")
    if json:
        typer.echo(written.model_dump_json(indent=1))
    else:
        tables = ", ".join(f"{layers} of {bits} bit" for bits, layers in written.tables.items())
        typer.echo(f"{out / written.file}  {written.bytes} bytes  look-up tables: {tables or 'none'}")


@app.command(epilog="Example: voxpress compatibility --out exporters/COMPATIBILITY.md")
def compatibility(
    out: Annotated[Path | None, typer.Option(help="The document to write. [default: print it]")] = None,
    bits: Annotated[list[str] | None, typer.Option(help="8, 4, 2, 1 or mixed (again for more). [default: all]")] = None,
    mode: Annotated[
        list[str] | None, typer.Option(help="exact, fast or fallback (again for more). [default: all]")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON too.")] = False,
) -> None:
    """Run every kind of model file in every runtime of this machine; exit code 3 if one is not as promised."""
    from exporters.compatibility import compare, markdown, parse_kinds, require_well, write_table
    from pipeline.progress import Progress

    widths, modes = parse_kinds(bits, mode)
    table = compare(Progress(), bits=widths, modes=modes)
    if out is not None:
        write_table(table, out)
    if json:
        typer.echo(table.model_dump_json(indent=1))
    elif out is None:
        typer.echo(markdown(table))
    require_well(table)


@app.command(epilog="Example: voxpress doctor models/resnet34-4bit.tflite --runtime tflite-runtime")
def doctor(
    model: Annotated[Path, typer.Argument(help="A .pte or .tflite file.")],
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="A runtime that must run it (again for more): executorch, litert, tensorflow, tflite-runtime on this "
            "machine; executorch-android, executorch-ios, tflite-android, litert-android, tflite-play-services, "
            "tflite-ios from a table. [default: those of this machine]"
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """A model's ops, bits and signature, and whether runtimes will run it; exit code 3 if one asked for will not."""
    from exporters.doctor import examine, report_json, report_tables, require_well

    report = examine(model, runtime or ())
    if json:
        typer.echo(report_json(report))
    else:
        for part in report_tables(report):
            show(part)
    require_well(report)


@app.command(epilog="Example: voxpress models --json")
def models(json: options.Json = False) -> None:
    """Every network with its parameters, multiplications and bytes at each width."""
    from pipeline.models.size import network_sizes, sizes_json, sizes_table

    sizes = network_sizes()
    if json:
        typer.echo(sizes_json(sizes))
    else:
        show(sizes_table(sizes))


@import_app.command(
    "wespeaker", epilog="Example: voxpress import wespeaker avg_model.pt --arch resnet34 --yaml config.yaml --out r34"
)
def import_wespeaker(
    checkpoint: Annotated[Path, typer.Argument(help="The toolkit's .pt file. Its pickle is never executed.")],
    arch: Annotated[str, typer.Option(help="The network's name: as in `voxpress models`, or the toolkit's.")],
    out: Annotated[Path, typer.Option(help="Folder of the model.")],
    yaml: Annotated[Path | None, typer.Option(help="The toolkit's config.yaml, to be checked and followed.")] = None,
) -> None:
    """Take over a checkpoint of the wespeaker toolkit as a pre-trained model folder."""
    from pipeline.models.wespeaker import import_wespeaker as import_checkpoint

    imported = import_checkpoint(checkpoint, architecture=arch, config=yaml, out=out)
    for note in imported.notes:
        typer.echo(f"note: {note}")
    spec = imported.header.spec
    typer.echo(
        f"{out}  {spec.architecture}, {imported.parameters} parameters, {spec.base_channels} base channels, "
        f"{spec.num_mel_bins} mel bins, {spec.embedding_dim}-dim embedding of {spec.embedding_layers} layer(s)"
    )


@prepare_app.callback()
def prepare() -> None:
    """Turn downloaded corpora into manifests."""


@prepare_app.command("voxceleb", epilog="Example: voxpress prepare voxceleb downloads --out corpora/voxceleb")
def prepare_voxceleb(
    source: Annotated[Path, typer.Argument(help="Folder of the downloaded archives or of the unpacked trees.")],
    out: Annotated[Path, typer.Option(help="Folder of the manifests, and of what is unpacked and converted.")],
    allow_partial: Annotated[bool, typer.Option(help="Take parts that are not as large as published.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="AAC files converted at the same time.")] = 4,
    shar: Annotated[bool, typer.Option("--shar", help="Also write lhotse Shar shards, to train from.")] = False,
) -> None:
    """Manifests of VoxCeleb1 and 2, counts checked against the published ones, AAC converted with ffmpeg."""
    from pipeline.corpus import voxceleb
    from pipeline.progress import Progress

    parts = voxceleb.prepare_voxceleb(
        source, out, allow_partial=allow_partial, jobs=jobs, progress=Progress(), shar=shar
    )
    for part in parts:
        published = voxceleb.PARTS[part.part]
        extent = "whole" if part.whole else f"PARTIAL, published are {published.speakers} and {published.utterances}"
        typer.echo(f"{out / part.manifest}: {part.speakers} speakers, {part.utterances} utterances ({extent})")


@app.command(epilog="Example: voxpress bench --model resnet34 --peers all --layers --arm-cycles")
def bench(
    model: Annotated[
        str, typer.Option(help="A network's name (random weights), a pre-trained model folder or an artifact folder.")
    ] = "resnet34",
    peers: Annotated[
        str,
        typer.Option(
            help="all, none, or some of executorch, litert, onnxruntime, openvino, ncnn, mnn, or single ones as "
            "litert-int8. Those beyond VoxPress's own packages come with `pip install --editable '.\\[peers]'`."
        ),
    ] = "all",
    bits: Annotated[str, typer.Option(help="Widths of our files, 1..8; an artifact has its own.")] = "8,4,2,1",
    modes: Annotated[str, typer.Option(help="Numeric modes of our files: all, or some of them.")] = "all",
    formats: Annotated[str, typer.Option(help="pte,tflite or one of them.")] = "pte,tflite",
    threads: Annotated[str, typer.Option(help="Numbers of threads; each contender gets as many cores.")] = "1,2",
    frames: Annotated[int, typer.Option(min=1, help="Length that is compared, in frames.")] = 200,
    seconds: Annotated[
        str, typer.Option(help="Growth: further lengths, on the first number of threads, or none.")
    ] = "1,2,5,10,30",
    max_seconds: Annotated[
        float, typer.Option(min=1, help="What a .pte plans its memory for, if no longer length is measured.")
    ] = 10.0,
    layers: Annotated[bool, typer.Option("--layers", help="Also each layer's time and fraction of the roof.")] = False,
    arm_cycles: Annotated[
        bool, typer.Option("--arm-cycles", help="Also cycles of the ARM kernels' inner products, by llvm-mca.")
    ] = False,
    audio: Annotated[
        Path | None,
        typer.Option(
            help="Utterances, <speaker>/**/*.wav|flac, to calibrate int8 peers and compare embeddings on. "
            "Without it: synthetic voices."
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Rounds, in each of which every contender has a turn.")] = 10,
    runs: Annotated[int, typer.Option(min=1, help="Timed runs of a turn.")] = 3,
    warmup: Annotated[int, typer.Option(min=0, help="Runs of a turn before those.")] = 1,
    starts: Annotated[int, typer.Option(min=1, help="How often all that is done, in fresh processes.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Of random weights and of the order of turns.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder of the results. [default: out/bench-<model>]")] = None,
    prepare_only: Annotated[bool, typer.Option("--prepare", help="Build all files and measure nothing.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print bench.json instead of tables.")] = False,
) -> None:
    """Time our files against other runtimes on the same weights, in turns. Run again to go on where it was stopped."""
    from device_tests.bench.contenders import choose_formats, choose_modes, parse_numbers, parse_seconds
    from device_tests.bench.records import BenchProtocol
    from device_tests.bench.run import BenchRequest, check_ours, prepare_bench, run_bench
    from device_tests.report.bench import write_bench_report
    from device_tests.report.bench_tables import bench_terminal
    from exporters.peers.catalogue import choose_peers
    from pipeline.progress import Progress

    request = BenchRequest(
        model=model,
        peers=choose_peers(peers),
        modes=choose_modes(modes),
        formats=choose_formats(formats),
        bits=parse_numbers("--bits", bits, low=1, high=8),
        growth_seconds=() if seconds == "none" else parse_seconds("--seconds", seconds),
        max_seconds=max_seconds,
        layers=layers,
        arm_cycles=arm_cycles,
        audio=audio,
        protocol=BenchProtocol(
            frames=frames,
            threads=parse_numbers("--threads", threads, low=1, high=64),
            warmup=warmup,
            runs=runs,
            rounds=rounds,
            starts=starts,
            seed=seed,
        ),
    )
    folder = out or Path("out") / f"bench-{Path(model).name}"
    if prepare_only:
        for line in prepare_bench(request, folder, Progress()):
            typer.echo(line)
        return
    record = run_bench(request, folder, Progress())
    write_bench_report(record, folder)
    if json:
        typer.echo(record.model_dump_json(indent=1))
    else:
        for table in bench_terminal(record):
            show(table)
    check_ours(record)


@recipe_app.command("list")
def recipe_list() -> None:
    """Names of the built-in recipes."""
    from pipeline.recipe import builtin_recipes

    for name in builtin_recipes():
        typer.echo(name)


@recipe_app.command("show", epilog="Example: voxpress recipe show demo")
def recipe_show(recipe: Annotated[str, typer.Argument(help="A recipe's TOML file, or a built-in name.")]) -> None:
    """A recipe as JSON with every default filled in."""
    from pipeline.recipe import load_recipe

    typer.echo(load_recipe(recipe).model_dump_json(indent=2))


@app.command(epilog="Example: voxpress report out/demo/device-test")
def report(
    folder: Annotated[
        Path,
        typer.Argument(help="Folder of a device test (report.json), a sweep (sweep.json) or a bench (bench.json)."),
    ],
) -> None:
    """The table of a device test (bytes, ratio, EER, cosine, latency of every model file), of a sweep or a bench."""
    from device_tests.bench.records import BENCH_FILE, read_bench
    from device_tests.report.bench_tables import bench_terminal
    from device_tests.report.build import read_report, report_table
    from device_tests.report.sweep import SWEEP_FILE, read_sweep
    from device_tests.report.sweep_tables import terminal_tables

    if (folder / SWEEP_FILE).is_file():
        for table in terminal_tables(read_sweep(folder)):
            show(table)
    elif (folder / BENCH_FILE).is_file():
        for table in bench_terminal(read_bench(folder)):
            show(table)
    else:
        show(report_table(read_report(folder)))


def main() -> NoReturn:
    """Entry point: user errors are one line and exit code 2, an interruption is 130."""
    _silence_libraries()
    try:
        app()
    except VoxPressError as error:
        typer.echo("\n".join(f"voxpress: {line}" for line in str(error).splitlines()), err=True)
        sys.exit(error.exit_code)
    except OSError as error:  # a full disk, a folder that may not be written
        typer.echo(f"voxpress: {error.filename or 'input or output'}: {error.strerror or error}", err=True)
        sys.exit(VoxPressError.exit_code)
    except KeyboardInterrupt:
        typer.echo("voxpress: interrupted; run the same command again to go on", err=True)
        sys.exit(EXIT_INTERRUPTED)
    sys.exit(0)


def _silence_libraries() -> None:
    """Keep notes of libraries to their own developers off the user's terminal."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    for name in ("torchao", "torch.utils._pytree", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    main()
