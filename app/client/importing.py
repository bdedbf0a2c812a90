"""`passerby import`: sends the crops of a source to the service, several requests at once."""

import asyncio
import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from app.client.errors import ClientError
from app.client.sources import Source, SourceItem, read_source
from model.errors import counted
from model.files import printable
from passerby import AsyncClient, UploadedCrop, UploadSummary

FAILURES_SHOWN = 20

INTERRUPTED = 130
"""The exit code after Ctrl-C, as in shells."""


def run_import(
    source: Path,
    url: str,
    camera_id: str | None,
    failures_file: Path | None,
    console: Console,
    update: bool = False,
) -> int:
    """Import a source and print the outcome; the exit code. update: change labels that differ. Raises PasserbyError.

    After an interruption, crops that the service has acknowledged are stored; a second run finds them `existing`.
    """
    asyncio.run(_check(url))  # before reading many files, which takes long
    with console.status(f"Reading {escape(str(source))}"):
        read = read_source(source, camera_id)
    show_source(read, console)
    asyncio.run(_name_cameras(read.camera_names, url))
    summary = UploadSummary()
    stopped = False
    try:
        import_items(read.items, AsyncClient(url), summary, console, update)
    except KeyboardInterrupt:
        stopped = True
    finally:
        show_summary(summary, read.items, failures_file, console)
    if stopped:
        console.print("[yellow]Stopped.[/] The same command resumes the import.")
        return INTERRUPTED
    return 1 if summary.failed else 0


def show_source(source: Source, console: Console) -> None:
    """Print a source's number of crops, its layout and its notes."""
    cameras = len({item.camera_id for item in source.items})
    console.print(f"{counted(len(source.items), 'crop')} of {counted(cameras, 'camera')}, {source.layout}")
    for note in source.notes:
        console.print(f"  {note}", style="dim", markup=False, highlight=False, soft_wrap=True)
    if source.guessed_times:
        console.print(
            f"[yellow]The times of {counted(source.guessed_times, 'crop')} are guesses:[/] their files have no EXIF "
            "DateTimeOriginal, so the times of the files' last modification are taken. If they are wrong, filters by "
            "time and timelines are: give the times in a CSV manifest, and import it with --update.",
            highlight=False,
            soft_wrap=True,
        )


def import_items(
    items: Sequence[SourceItem], client: AsyncClient, summary: UploadSummary, console: Console, update: bool = False
) -> None:
    """Send crops under a progress bar, counting into `summary`. Raises PasserbyError; Ctrl-C stops it at once."""
    columns = (BarColumn(), MofNCompleteColumn(), _CropsPerSecond(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("import", total=len(items))

        def count(outcome: UploadedCrop) -> None:
            summary.add(outcome)
            progress.update(task, completed=summary.handled)

        asyncio.run(_upload(items, client, update, count))


async def _check(url: str) -> None:
    async with AsyncClient(url) as client:
        await client.wait_until_ready()


async def _name_cameras(names: Mapping[str, str], url: str) -> None:
    """Give cameras their names as written, where they have no name of their own yet."""
    if not names:
        return
    async with AsyncClient(url) as client:
        known = {camera.id: camera for camera in await client.list_cameras()}
        for camera_id, name in names.items():
            camera = known.get(camera_id)
            if camera is None:
                await client.put_camera(camera_id, name)
            elif camera.name == camera_id:
                await client.put_camera(camera_id, name, camera.place, camera.time_zone)


async def _upload(
    items: Sequence[SourceItem], client: AsyncClient, update: bool, progress: Callable[[UploadedCrop], None]
) -> None:
    async with client:
        await client.upload((item.crop() for item in items), progress, update=update)


def show_summary(
    summary: UploadSummary, items: Sequence[SourceItem], failures_file: Path | None, console: Console
) -> None:
    """Print the outcomes of crops and the first failures; `failures_file` gets all of them."""
    failures = [(items[position].path, problem) for position, problem in summary.failed.items()]
    parts = [f"{summary.created:,} stored", f"{summary.existing:,} existing"]
    if summary.updated:
        parts.append(f"{summary.updated:,} updated")
    if failures:
        parts.append(f"[red]{len(failures):,} failed[/]")
    if summary.handled < len(items):
        parts.append(f"{len(items) - summary.handled:,} not sent")
    console.print(", ".join(parts))
    if summary.differing:
        console.print(f"{summary.differing:,} existing with other labels or times: --update changes them")
    for path, problem in failures[:FAILURES_SHOWN]:
        console.print(f"  {path}: {problem}", highlight=False, markup=False, soft_wrap=True)
    if failures_file:
        _write_failures(failures, failures_file)
        console.print(f"All failures are listed in {failures_file}", markup=False, soft_wrap=True)
    elif len(failures) > FAILURES_SHOWN:
        rest = len(failures) - FAILURES_SHOWN
        console.print(f"  and {rest:,} more; --failures FILE lists them all")


def _write_failures(failures: Iterable[tuple[Path, str]], path: Path) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("file", "problem"))
            rows.writerows((printable(picture), printable(problem)) for picture, problem in failures)
    except OSError as error:
        raise ClientError(f"cannot write {path}: {error.strerror}") from error


class _CropsPerSecond(ProgressColumn):
    """The recent speed in crops a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.0f} crops/s" if speed else "", style="progress.data.speed")
