"""The `passerby` command."""

import json
import signal
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from rich.console import Console

from app.client.errors import ClientError
from app.client.filters import takes_filters
from model.files import print_undecodable_names
from passerby.errors import PasserbyError
from passerby.fields import CropFilters, CropSelection, Labels, SearchOptions
from passerby.http import DEFAULT_URL

commands = typer.Typer(
    name="passerby",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cameras = typer.Typer(help="List the cameras, or describe one.")
commands.add_typer(cameras, name="cameras")
console = Console()


def _print_version(asked: bool) -> None:
    if asked:
        print(f"passerby {version('passerby')}")
        raise typer.Exit


VersionOption = Annotated[
    bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Print the version")
]
HostOption = Annotated[str | None, typer.Option(help="Address to listen on; any but loopback needs PASSERBY_API_KEY")]
PortOption = Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on")]
DataDirOption = Annotated[Path | None, typer.Option(help="Holds database, images and index snapshots")]
UrlOption = Annotated[
    str,
    typer.Option(envvar="PASSERBY_URL", help="The service; PASSERBY_API_KEY holds its key, if any"),
]
ConfigOption = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A TOML file of settings; passerby.toml by default, if it is here")
]
SourceArgument = Annotated[
    Path, typer.Argument(help="A CSV manifest, a folder per camera, or a folder of Market-1501 names")
]
CameraOption = Annotated[
    str | None, typer.Option("--camera", help="The camera, if the source is a folder of nothing but pictures")
]
FailuresOption = Annotated[Path | None, typer.Option(help="Write a CSV file that lists every crop that was not stored")]
UpdateOption = Annotated[
    bool, typer.Option("--update", help="Change the person, track and attributes of existing crops to the source's")
]
ImagesArgument = Annotated[
    list[Path] | None, typer.Argument(metavar="[IMAGE]...", help="One or several pictures of the person")
]
CropsOption = Annotated[
    list[str] | None,
    typer.Option("--crop", metavar="ID", help="Instead of pictures, a crop of the gallery; can be repeated"),
]
SimilarityOption = Annotated[
    float | None, typer.Option("--min-similarity", min=-1, max=1, help="Leave out matches that are less similar")
]
SheetOption = Annotated[Path | None, typer.Option("--out", metavar="FILE.jpg", help="Save the contact sheet there")]
LimitOption = Annotated[int, typer.Option(min=1, help="How many crops at most, latest first")]
TopOption = Annotated[int, typer.Option(min=1, max=1000, help="How many matches at most")]
WeightsOption = Annotated[
    str | None,
    typer.Option(metavar="JSON", help='Weights of the parts, 1 by default: \'{"upper_half": 2, "lower_half": 0}\''),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the service's answer and nothing else")]
DataOption = Annotated[
    Path | None, typer.Option(help="Crops of your own, anything that `import` takes; drawn ones by default")
]
ModelOption = Annotated[
    str | None,
    typer.Option("--model", metavar="MODEL", help="A checkpoint's file, or the id of a model that was active before"),
]
AllowMissingOption = Annotated[
    bool, typer.Option("--allow-missing", help="Switch even if many stored pictures cannot be read any more")
]
CancelOption = Annotated[
    bool, typer.Option("--cancel", help="Cancel the switch to the next model, and delete its embeddings")
]
CheckOption = Annotated[
    bool, typer.Option("--check", help="Stop after the search, and fail if the query's person is not first")
]


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ClientError(f"{text!r} is no JSON object: {error}") from error
    if not isinstance(value, dict):
        raise ClientError(f"{text!r} is no JSON object")
    return value


def _selection(filters: CropFilters, crop_ids: list[str] | None) -> CropSelection:
    return cast(CropSelection, {**filters, "crop_ids": crop_ids} if crop_ids else filters)


CropIdsArgument = Annotated[list[str] | None, typer.Argument(metavar="[CROP]...", help="Ids of crops")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Count the crops, and change nothing")]
YesOption = Annotated[bool, typer.Option("--yes", help="Do not ask")]


@commands.callback()
def passerby(show_version: VersionOption = False) -> None:
    """Cross-camera person search: post a picture of a person, get back where else that person was seen."""


@commands.command()
def serve(
    host: HostOption = None, port: PortOption = None, data_dir: DataDirOption = None, config: ConfigOption = None
) -> None:
    """Run the service. All other settings come from the environment (PASSERBY_...), .env or a TOML file."""
    from app.configuration import SettingsError, read_settings
    from app.server import serve as run_service
    from app.start_errors import StartError

    given: dict[str, Any] = {"host": host, "port": port, "data_dir": data_dir}
    try:
        run_service(read_settings({name: value for name, value in given.items() if value is not None}, config))
    except (SettingsError, StartError) as error:
        raise ClientError(str(error)) from error


@commands.command("import")
def import_(
    source: SourceArgument,
    url: UrlOption = DEFAULT_URL,
    camera_id: CameraOption = None,
    failures: FailuresOption = None,
    update: UpdateOption = False,
) -> None:
    """Import crops into the gallery. It can be stopped and run again at any time: no crop is stored twice."""
    from app.client.importing import run_import

    raise typer.Exit(run_import(source, url, camera_id, failures, console, update))


@commands.command()
@takes_filters
def search(
    filters: CropFilters,
    images: ImagesArgument = None,
    crop_ids: CropsOption = None,
    url: UrlOption = DEFAULT_URL,
    top_k: TopOption = 20,
    min_similarity: SimilarityOption = None,
    part_weights: WeightsOption = None,
    out: SheetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search for the person of a picture, or of crops of the gallery.

    Times without a zone are in this computer's time zone.
    """
    from app.client.searching import run_search

    options = cast(SearchOptions, {**filters, "top_k": top_k, "min_similarity": min_similarity})
    if part_weights is not None:
        options["part_weights"] = part_weights
    run_search(images or [], crop_ids or [], options, url, as_json, out, console)


@commands.command()
@takes_filters
def crops(
    filters: CropFilters,
    url: UrlOption = DEFAULT_URL,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List the crops of the gallery, latest first."""
    from app.client.gallery import run_crops

    run_crops(filters, limit, url, as_json, console)


@cameras.callback(invoke_without_command=True)
def list_cameras(context: typer.Context, url: UrlOption = DEFAULT_URL, as_json: JsonOption = False) -> None:
    """List the cameras, or describe one with `put`."""
    from app.client.gallery import run_cameras

    if context.invoked_subcommand is None:
        run_cameras(url, as_json, console)
    context.obj = url


@cameras.command("put")
def put_camera(
    context: typer.Context,
    camera_id: Annotated[str, typer.Argument(metavar="ID", help="The camera's id, such as gate-north")],
    url: Annotated[str | None, typer.Option(help="The service, as for `cameras`")] = None,
    name: Annotated[str | None, typer.Option(help="Its name on contact sheets")] = None,
    place: Annotated[str | None, typer.Option(help="Where it is")] = None,
    time_zone: Annotated[
        str | None, typer.Option(help="The time zone of times on contact sheets, such as Europe/Vienna")
    ] = None,
) -> None:
    """Describe a camera; what is not given stays, and an empty text clears it."""
    from app.client.gallery import run_put_camera

    run_put_camera(camera_id, name, place, time_zone, url or context.obj, console)


@cameras.command("delete")
def delete_camera(
    context: typer.Context,
    camera_id: Annotated[str, typer.Argument(metavar="ID")],
    url: Annotated[str | None, typer.Option(help="The service, as for `cameras`")] = None,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Delete a camera and all of its crops, after you have seen how many they are."""
    from app.client.changes import run_delete_camera

    run_delete_camera(camera_id, dry_run, yes, url or context.obj, console)


@commands.command()
@takes_filters
def delete(
    filters: CropFilters,
    crop_ids: CropIdsArgument = None,
    url: UrlOption = DEFAULT_URL,
    dry_run: DryRunOption = False,
    yes: YesOption = False,
) -> None:
    """Delete crops by ids or filters, after you have seen how many they are. Ids and filters must all fit a crop."""
    from app.client.changes import run_delete

    run_delete(_selection(filters, crop_ids), dry_run, yes, url, console)


@commands.command()
@takes_filters
def label(
    filters: CropFilters,
    crop_ids: CropIdsArgument = None,
    url: UrlOption = DEFAULT_URL,
    set_person: Annotated[str | None, typer.Option(metavar="NAME", help="The new person; '' clears it")] = None,
    set_track: Annotated[str | None, typer.Option(metavar="NAME", help="The new track; '' clears it")] = None,
    set_attributes: Annotated[
        str | None, typer.Option(metavar="JSON", help="All new attributes, as a JSON object; '' clears them")
    ] = None,
    dry_run: DryRunOption = False,
) -> None:
    """Set the person, the track or the attributes of crops by ids or filters. Ids and filters must all fit a crop."""
    from app.client.changes import run_label

    labels: Labels = {}
    if set_person is not None:
        labels["person_id"] = set_person or None
    if set_track is not None:
        labels["track_id"] = set_track or None
    if set_attributes is not None:
        labels["attributes"] = _json(set_attributes) if set_attributes else None
    run_label(_selection(filters, crop_ids), labels, dry_run, url, console)


@commands.command()
def status(url: UrlOption = DEFAULT_URL) -> None:
    """Show whether the service is ready, and what it does; the exit code is 1 if it is not ready."""
    from app.client.status import run_status

    raise typer.Exit(run_status(url, console))


@commands.command()
def reindex(
    model: ModelOption = None,
    url: UrlOption = DEFAULT_URL,
    allow_missing: AllowMissingOption = False,
    cancel: CancelOption = False,
) -> None:
    """Switch to another model, after the service has embedded all stored pictures with it.

    The service does the work, and continues after a restart; this command only shows the progress.
    """
    from app.client.reindexing import cancel as run_cancel
    from app.client.reindexing import run_reindex

    if (model is None) != cancel:
        raise ClientError("give either --model MODEL or --cancel")
    raise typer.Exit(run_cancel(url, console) if model is None else run_reindex(model, allow_missing, url, console))


@commands.command()
def demo(
    data: DataOption = None,
    camera_id: CameraOption = None,
    check: CheckOption = False,
    port: PortOption = None,
) -> None:
    """Show all steps: start a service, import crops, search, keep running."""
    from app.client.demo import run_demo

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the demo's service ends with the demo
    raise typer.Exit(run_demo(data, camera_id, port, check, console))


def main() -> None:
    """Run a command; a PasserbyError is printed as one sentence, with exit code 2."""
    print_undecodable_names()
    try:
        commands()
    except PasserbyError as error:
        Console(stderr=True).print("[red]error:[/]", end=" ")
        Console(stderr=True).print(str(error), soft_wrap=True, highlight=False, markup=False)
        sys.exit(2)


if __name__ == "__main__":
    main()
