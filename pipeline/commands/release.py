"""`voxpress compat`, `release`, `fetch` and `registry ...`: from a bundle to those who use it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.commands import options
from pipeline.commands.terminal import show

registry_app = typer.Typer(help="Look at a registry and move its channels.", no_args_is_help=True)

RegistryOption = Annotated[
    str,
    typer.Option(
        "--registry", envvar="VOXPRESS_REGISTRY", help="A directory, or a URL of a kind fsspec knows: s3://bucket/path."
    ),
]
CacheOption = Annotated[
    Path | None,
    typer.Option(help="Folder of fetched bundles. [default: $VOXPRESS_CACHE, or voxpress in the user's cache folder]"),
]


def compat(
    old: Annotated[Path, typer.Argument(help="The bundle that voices were enrolled with: folder or zip.")],
    new: Annotated[Path, typer.Argument(help="The bundle that tests them: folder or zip.")],
    audio: options.Audio,
    trials: options.Trials,
    margin: options.Margin = 0.01,
    old_model: Annotated[
        str | None, typer.Option(help="Model file of OLD. [default: the first of its primary artifact]")
    ] = None,
    new_model: Annotated[
        str | None, typer.Option(help="Model file of NEW. [default: the first of its primary artifact]")
    ] = None,
    crop_seconds: options.Crop = 0.0,
    threads: options.Threads = 1,
    json: options.Json = False,
) -> None:
    """Whether users must enrol again: enrolments of OLD scored against tests of NEW."""
    from device_tests.compat import CompatOptions, compare_versions, compatibility_tables
    from pipeline.progress import Progress

    found = compare_versions(
        old,
        new,
        audio=audio,
        trials_file=trials,
        options=CompatOptions(margin, old_model, new_model, crop_seconds, threads),
        progress=Progress(),
    )
    if json:
        typer.echo(found.model_dump_json(indent=1))
    else:
        show(*compatibility_tables(found))


def release(
    bundle: Annotated[Path, typer.Argument(help="The bundle to release: folder or zip.")],
    registry: RegistryOption,
    key: Annotated[
        Path | None, typer.Option(help="Private key (PEM) that signs the release, `voxpress bundle key` makes one.")
    ] = None,
    unsigned: Annotated[bool, typer.Option(help="Release without a signature.")] = False,
    channel: Annotated[str, typer.Option(help="Channel that moves to the new version.")] = "latest",
    settings: Annotated[
        Path | None, typer.Option(help="TOML file with \\[gates] to pass and the \\[card]'s words.")
    ] = None,
    audio: options.AudioIfAny = None,
    trials: Annotated[
        Path | None,
        typer.Option(help="Trial list that shows whether old enrolments still work; minor versions need it."),
    ] = None,
    margin: options.Margin = 0.01,
    bump: Annotated[
        str | None, typer.Option(help="major, minor or patch: at least what the rule says. [default: what it says]")
    ] = None,
    note: Annotated[list[str] | None, typer.Option(help="A line for the changelog; may be repeated.")] = None,
    out: Annotated[Path, typer.Option(help="Folder to keep the released zip in.")] = Path("releases"),
    cache: CacheOption = None,
    dry_run: Annotated[bool, typer.Option(help="Do everything but publish.")] = False,
    json: options.Json = False,
) -> None:
    """Check a bundle, give it the version that the rule says, card, changelog and signature, and publish it."""
    from device_tests.compat import CompatOptions
    from device_tests.release import CompatTrials, ReleaseRequest
    from device_tests.release import release as release_bundle
    from exporters.release.cache import default_cache
    from exporters.release.registry import Registry
    from exporters.release.settings import read_release_settings
    from pipeline.errors import InputError
    from pipeline.progress import Progress

    if (key is None) != unsigned:
        found = "both" if unsigned else "neither"
        raise InputError("--key and --unsigned", expected="one of them", found=found)
    if (audio is None) != (trials is None):
        found = "only --trials" if audio is None else "only --audio"
        raise InputError("--audio and --trials", expected="both or neither", found=found)
    if bump not in (None, "major", "minor", "patch"):
        raise InputError("--bump", expected="major, minor or patch", found=str(bump))
    request = ReleaseRequest(
        registry=Registry(registry),
        cache=cache or default_cache(),
        out=out,
        settings=read_release_settings(settings),
        key=key,
        channel=channel,
        bump=bump,  # type: ignore[arg-type]
        notes=tuple(note or ()),
        trials=None if audio is None or trials is None else CompatTrials(audio, trials, CompatOptions(margin=margin)),
        dry_run=dry_run,
    )
    result = release_bundle(bundle, request, Progress())
    if json:
        typer.echo(result.model_dump_json(indent=1))
        return
    done = "published" if result.published else ("dry run" if dry_run else "published before")
    typer.echo(f"{result.name} {result.version} {done}: {result.reason}")
    typer.echo(f"{registry}: channel {result.channel} stands at {result.channel_version}")
    if result.archive is not None:
        typer.echo(f"{result.archive}  sha256 {result.sha256}, signed by {result.signed_by or 'no one'}")


def fetch(
    reference: Annotated[str, typer.Argument(help="NAME@VERSION, NAME@CHANNEL, or NAME for its channel latest.")],
    registry: RegistryOption,
    key: options.Keys = None,
    min_version: options.MinVersion = None,
    cache: CacheOption = None,
    out: Annotated[Path | None, typer.Option(help="Also copy the bundle's folder here.")] = None,
    json: options.Json = False,
) -> None:
    """Bring a published bundle here, check it, and print the folder it is in. What is here already is not fetched."""
    from exporters.bundle.trust import Trust
    from exporters.release.cache import copy_out, default_cache
    from exporters.release.cache import fetch as fetch_bundle
    from exporters.release.registry import Registry
    from pipeline.progress import Progress

    trust = Trust(keys=tuple(key or ()), min_version=min_version)
    fetched = fetch_bundle(reference, Registry(registry), cache or default_cache(), trust, Progress())
    folder = fetched.folder if out is None else copy_out(fetched, out)
    if json:
        import json as json_module

        facts = {
            "folder": str(folder),
            "name": fetched.record.name,
            "version": fetched.record.version,
            "sha256": fetched.record.sha256,
            "signed_by": fetched.trusted.signed_by,
            "from_cache": fetched.from_cache,
        }
        typer.echo(json_module.dumps(facts, indent=1))
        return
    typer.echo(folder)
    if fetched.trusted.signed_by is None:
        claims = fetched.trusted.claims
        said = f"signature of key {claims} NOT checked: no --key was given" if claims else "not signed"
        typer.echo(f"{fetched.record.name} {fetched.record.version}: {said}", err=True)


@registry_app.command("list", epilog="Example: voxpress registry list s3://models/voxpress")
def list_registry(
    registry: Annotated[str, typer.Argument(help="A directory or URL.", envvar="VOXPRESS_REGISTRY")],
    json: options.Json = False,
) -> None:
    """Names, versions and channels of a registry."""
    import json as json_module

    from exporters.release.registry import Registry

    place = Registry(registry)
    versions = {name: [str(version) for version in place.versions(name)] for name in place.names()}
    channels = {name: place.channels(name) for name in versions}
    if json:
        found = {name: {"versions": versions[name], "channels": channels[name]} for name in versions}
        typer.echo(json_module.dumps(found, indent=1))
        return
    for name in versions:
        typer.echo(f"{name}: {', '.join(versions[name])}")
        for channel, version in channels[name].items():
            typer.echo(f"  {channel} -> {version}")


@registry_app.command("channel", epilog="Example: voxpress registry channel registry speaker stable 1.0.0")
def set_channel(
    registry: Annotated[str, typer.Argument(help="A directory or URL.")],
    name: Annotated[str, typer.Argument(help="Name of the bundle.")],
    channel: Annotated[str, typer.Argument(help="The channel, e.g. stable.")],
    version: Annotated[str, typer.Argument(help="A published version; an earlier one takes a bad release back.")],
    json: options.Json = False,
) -> None:
    """Point a channel at a published version."""
    import json as json_module

    from exporters.release.registry import Registry

    Registry(registry).set_channel(name, channel, version)
    facts = {"registry": registry, "name": name, "channel": channel, "version": version}
    typer.echo(json_module.dumps(facts, indent=1) if json else f"{registry}: {name}@{channel} stands at {version}")
