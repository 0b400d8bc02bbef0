"""The command line. Each command parses its words and calls one function; heavy imports happen inside."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from pipeline.commands import device
from pipeline.errors import VoxPressError

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
    recipe: Annotated[str, typer.Argument(help="A recipe with [msft]: its TOML file, or the name of a built-in one.")],
    corpus: Annotated[
        Path | None,
        typer.Option(help="Folder <speaker>/**/*.wav|flac (VoxCeleb's too). Without it: embedded synthetic voices."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the results. [default: out/<recipe name>]")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="How many seeds, counted up from the recipe's.")] = 3,
    audio: Annotated[Path | None, typer.Option(help="Folder that the trial list's paths are relative to.")] = None,
    trials: Annotated[
        Path | None, typer.Option(help="A trial list to evaluate on too, beside the held-out trials.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compare every width and quantizer over several seeds. Run again to go on where it was stopped."""
    from device_tests.report.sweep_tables import terminal_tables
    from pipeline.errors import InputError
    from pipeline.progress import Progress
    from pipeline.recipe import load_recipe
    from pipeline.stages.sweep import GivenTrials
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
    )
    if json:
        typer.echo(result.model_dump_json(indent=1))
    else:
        for table in terminal_tables(result):
            _print(table)


@app.command(epilog="Example: voxpress evaluate out/demo/export/resnet10-c8-4bit.pte --audio speech/dev --trials t.txt")
def evaluate(
    model: Annotated[Path, typer.Argument(help="Pre-trained model folder, artifact folder, .pte, .tflite or bundle.")],
    audio: Annotated[Path, typer.Option(help="Folder that the trial list's paths are relative to.")],
    trials: Annotated[Path, typer.Option(help="Trial list, lines `1 enrolment test` or `0 enrolment test`.")],
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
    only: Annotated[str | None, typer.Option(help="The one model file of a bundle to evaluate.")] = None,
    crop_seconds: Annotated[float, typer.Option(help="Use only the first seconds of each utterance; 0: all.")] = 0.0,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the runtime.")] = 1,
    cohort: Annotated[
        Path | None, typer.Option(help="Normalise scores (AS-Norm) with this model's `voxpress cohort` file.")
    ] = None,
    cohort_top: Annotated[int, typer.Option(min=2, help="Nearest cohort speakers that AS-Norm takes.")] = 300,
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
        cohort_file=cohort,
        cohort_top=cohort_top,
    )
    if json:
        typer.echo(evaluation_json(results))
    else:
        _print(evaluation_table(results))


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
    model: Annotated[Path, typer.Argument(help="Pre-trained model folder, artifact folder, .pte, .tflite or bundle.")],
    corpus: Annotated[Path, typer.Option(help="Folder of speakers or lhotse cut manifest: no speakers of the trials.")],
    out: Annotated[Path, typer.Option(help="The .safetensors file to write.")],
    utterances_per_speaker: Annotated[int, typer.Option(min=1, help="Utterances averaged for each speaker.")] = 10,
    only: Annotated[str | None, typer.Option(help="The one model file of a bundle.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads of the runtime.")] = 1,
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
    file_format: Annotated[str, typer.Option("--format", help="pte, tflite or both.")] = "both",
    fallback: Annotated[bool, typer.Option(help="Stock ops only, weights dequantized to fp32: runs anywhere.")] = False,
    max_seconds: Annotated[float, typer.Option(help="Longest utterance; memory of a .pte is planned for it.")] = 10.0,
    out: Annotated[Path, typer.Option(help="Folder of the model files.")] = Path(),
) -> None:
    """Write an artifact as .pte and .tflite, each checked against the reference network before it is kept."""
    from exporters.export import export_files
    from pipeline.progress import Progress

    for exported in export_files(
        artifact, file_format=file_format, fallback=fallback, max_seconds=max_seconds, out=out, progress=Progress()
    ):
        typer.echo(
            f"{out / exported.file}  {exported.bytes} bytes  max relative error {exported.max_relative_error:.2g}"
        )


@app.command(epilog="Example: voxpress models --json")
def models(json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False) -> None:
    """Every network with its parameters, multiplications and bytes at each width."""
    from pipeline.models.size import network_sizes, sizes_json, sizes_table

    sizes = network_sizes()
    if json:
        typer.echo(sizes_json(sizes))
    else:
        _print(sizes_table(sizes))


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
    folder: Annotated[Path, typer.Argument(help="Folder of a device test (report.json) or of a sweep (sweep.json).")],
) -> None:
    """The table of a device test (bytes, ratio, EER, cosine, latency of every model file), or those of a sweep."""
    from device_tests.report.build import read_report, report_table
    from device_tests.report.sweep import SWEEP_FILE, read_sweep
    from device_tests.report.sweep_tables import terminal_tables

    if (folder / SWEEP_FILE).is_file():
        for table in terminal_tables(read_sweep(folder)):
            _print(table)
    else:
        _print(report_table(read_report(folder)))


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


def _print(table: object) -> None:
    from rich.console import Console

    console = Console()
    # In a pipe there is no terminal width to respect.
    Console(width=None if console.is_terminal else 200).print(table)


if __name__ == "__main__":
    main()
