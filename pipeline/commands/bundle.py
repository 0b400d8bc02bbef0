"""`voxpress bundle ...`: make, look at, compare, sign and check bundles."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import options
from pipeline.commands.terminal import show

app = typer.Typer(help="Make, check, sign, look at and compare bundles.", no_args_is_help=True)


@app.command(
    epilog="Example: voxpress bundle create out/mine --label 4bit --calibration cal-4bit --name speaker --out bundles"
)
def create(
    source: Annotated[Path, typer.Argument(help="Folder of a finished run, or of an artifact (which is exported).")],
    out: Annotated[Path, typer.Option(help="Folder to put <name>-<version>/ and <name>-<version>.zip into.")],
    name: Annotated[str | None, typer.Option(help="Name of the bundle. [default: the network's]")] = None,
    version: Annotated[str | None, typer.Option(help="major.minor.patch. [default: the recipe's]")] = None,
    licence: Annotated[str | None, typer.Option(help="Licence of the weights. [default: the recipe's]")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Artifact of the run to ship, e.g. 4bit; may be repeated. [default: all]")
    ] = None,
    primary: Annotated[
        str | None, typer.Option(help="The artifact that apps take. [default: the first that is quantized]")
    ] = None,
    calibration: Annotated[
        list[Path] | None, typer.Option(help="Folder that `voxpress calibrate` wrote; may be repeated.")
    ] = None,
    report: Annotated[
        list[Path] | None, typer.Option(help="Folder of a device run's report, beside the run's own; may be repeated.")
    ] = None,
    max_seconds: Annotated[float, typer.Option(help="Longest utterance, where an artifact is exported here.")] = 10.0,
    chunk_seconds: Annotated[
        float | None,
        typer.Option(help="There, embed longer audio as the mean of chunks of this length. [default: refuse it]"),
    ] = None,
    json: options.Json = False,
) -> None:
    """Put models, artifacts, thresholds, golden vectors and reports together: the same inputs give the same bytes."""
    from pipeline.files import sha256_file
    from pipeline.progress import Progress
    from pipeline.stages.bundle import BundleRequest, create_bundle

    request = BundleRequest(
        name=name,
        version=version,
        licence=licence,
        labels=tuple(label or ()),
        primary=primary,
        calibrations=tuple(calibration or ()),
        reports=tuple(report or ()),
        max_seconds=max_seconds,
        chunk_seconds=chunk_seconds,
    )
    archive, manifest = create_bundle(source, request, out, progress=Progress())
    _say(json, {
        "bundle": str(archive),
        "name": manifest.name,
        "version": manifest.version,
        "bytes": archive.stat().st_size,
        "sha256": sha256_file(archive),
    })  # fmt: skip


@app.command(epilog="Example: voxpress bundle verify bundles/speaker-1.0.0.zip --key release.pub.pem")
def verify(
    bundle: options.BundleArgument,
    key: options.Keys = None,
    min_version: options.MinVersion = None,
    golden: Annotated[bool, typer.Option(help="Run the golden vectors on the runtimes at hand.")] = True,
    every_runtime: Annotated[
        bool, typer.Option(help="Refuse (exit code 3) if a runtime that the bundle's files need is not here.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Check schema, hashes, signature, version, ops, and golden vectors on the runtimes at hand."""
    from device_tests.check_bundle import verify_bundle
    from exporters.bundle.trust import Trust
    from pipeline.progress import Progress

    verdict = verify_bundle(
        bundle,
        Trust(keys=tuple(key or ()), min_version=min_version),
        progress=Progress(),
        golden=golden,
        every_runtime=every_runtime,
    )
    if json:
        typer.echo(verdict.model_dump_json(indent=1))
        return
    typer.echo(f"{bundle}: {verdict.name} {verdict.version}, {verdict.files} files, {verdict.bytes} bytes, whole")
    if verdict.signed_by:
        typer.echo(f"signed by key {verdict.signed_by}")
    elif verdict.unchecked_signature:
        typer.echo(f"signature of key {verdict.unchecked_signature} NOT checked: no --key was given")
    else:
        typer.echo("not signed")
    for result in verdict.golden:
        how = (
            f"agrees within {result.max_relative_error:.2g} on {result.runtime}"
            if result.outcome == "agrees"
            else f"NOT run: {result.reason}"
        )
        typer.echo(f"{result.model}: {how}")


@app.command("show", epilog="Example: voxpress bundle show bundles/speaker-1.0.0.zip")
def show_bundle(bundle: options.BundleArgument, json: options.Json = False) -> None:
    """What a bundle says about itself, after its hashes were checked."""
    from exporters.bundle.archive import opened_bundle
    from exporters.bundle.tables import manifest_tables
    from exporters.bundle.trust import Trust, check_bundle

    with opened_bundle(bundle) as folder:
        trusted = check_bundle(folder, Trust(), name=bundle)
    if json:
        typer.echo(trusted.manifest.model_dump_json(indent=1))
    else:
        show(*manifest_tables(trusted.manifest, trusted.claims))


@app.command(epilog="Example: voxpress bundle diff bundles/speaker-1.0.0.zip bundles/speaker-1.1.0.zip")
def diff(
    old: options.BundleArgument,
    new: options.BundleArgument,
    json: options.Json = False,
) -> None:
    """What changed from one bundle to another: bits, weights, front end, accuracy, thresholds, latency, files."""
    from exporters.bundle.archive import opened_bundle
    from exporters.bundle.contents import check_contents
    from exporters.bundle.diff import diff_manifests
    from exporters.bundle.tables import diff_table

    manifests = []
    for bundle in (old, new):
        with opened_bundle(bundle) as folder:
            manifests.append(check_contents(folder))
    found = diff_manifests(*manifests)
    if json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        show(diff_table(found))


@app.command(epilog="Example: voxpress bundle sign bundles/speaker-1.0.0.zip --key release.pem")
def sign(
    bundle: options.BundleArgument,
    key: Annotated[Path, typer.Option(help="Private key (PEM), as `voxpress bundle key` writes it.")],
    json: options.Json = False,
) -> None:
    """Sign a bundle with Ed25519: its manifest, and by the hashes in it every file."""
    from exporters.bundle.signing import sign_bundle

    signature = sign_bundle(bundle, key)
    _say(json, {"bundle": str(bundle), "signed_by": signature.key_id})


@app.command("key", epilog="Example: voxpress bundle key release")
def make_key(
    name: Annotated[Path, typer.Argument(help="Writes NAME.pem (private, readable by its owner) and NAME.pub.pem.")],
    json: options.Json = False,
) -> None:
    """Make a key pair for signing. Whoever has the private key can sign in your name."""
    from exporters.bundle.signature import make_key_pair

    private, public = name.with_name(f"{name.name}.pem"), name.with_name(f"{name.name}.pub.pem")
    _say(json, {"private": str(private), "public": str(public), "key_id": make_key_pair(private, public)})


@app.command(epilog="Example: voxpress bundle schema > manifest.schema.json")
def schema() -> None:
    """The JSON Schema of manifest.json."""
    from exporters.bundle.manifest import SCHEMA_FILE

    typer.echo(SCHEMA_FILE.read_text(encoding="utf-8"), nl=False)


def _say(json: bool, facts: dict[str, str | int]) -> None:
    if json:
        import json as json_module

        typer.echo(json_module.dumps(facts, indent=1))
    else:
        typer.echo("  ".join(f"{key} {value}" for key, value in facts.items()))
