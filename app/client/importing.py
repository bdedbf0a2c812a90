"""`passerby import`: sends the crops of a source to the service, several requests at once."""

import asyncio
import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from app.client.errors import ClientError
from app.client.sources import Source, SourceItem, read_source
from model.errors import counted
from model.files import printable
from passerby import AsyncClient, UploadedCrop

FAILURES_SHOWN = 20

INTERRUPTED = 130
"""The exit code after Ctrl-C, as in shells."""


@dataclass(frozen=True)
class Failure:
    """A crop that was not stored, and why."""

    path: Path
    problem: str


@dataclass
class Tally:
    """The counts of outcomes so far."""

    created: int = 0
    existing: int = 0
    differing: int = 0  # of the existing ones, those with other labels or times than the source
    updated: int = 0
    failures: list[Failure] = field(default_factory=list)

    def add(self, path: Path, outcome: UploadedCrop) -> None:
        """Count the outcome of a file."""
        match outcome.status:
            case "failed":
                self.failures.append(Failure(path, outcome.problem or "the service gave no reason"))
            case "created":
                self.created += 1
            case "updated":
                self.updated += 1
            case "existing":
                self.existing += 1
                self.differing += bool(outcome.differs)

    @property
    def handled(self) -> int:
        """How many crops have an outcome."""
        return self.created + self.existing + self.updated + len(self.failures)


def run_import(
    source: Path,
    url: str,
    camera_id: str | None,
    failures_file: Path | None,
    console: Console,
    update: bool = False,
) -> int:
    """Import a source and print the outcome; the exit code. update: change labels that differ. Raises ClientError.

    After an interruption, crops that the service has acknowledged are stored; a second run finds them `existing`.
    """
    asyncio.run(_check(url))  # before reading many files, which takes long
    with console.status(f"Reading {escape(str(source))}"):
        read = read_source(source, camera_id)
    show_source(read, console)
    asyncio.run(_name_cameras(read.camera_names, url))
    tally = Tally()
    stopped = False
    try:
        import_items(read.items, AsyncClient(url), tally, console, update)
    except KeyboardInterrupt:
        stopped = True
    finally:
        show_tally(tally, len(read.items), failures_file, console)
    if stopped:
        console.print("[yellow]Stopped.[/] The same command resumes the import.")
        return INTERRUPTED
    return 1 if tally.failures else 0


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
    items: Sequence[SourceItem], client: AsyncClient, tally: Tally, console: Console, update: bool = False
) -> None:
    """Send crops under a progress bar, counting into `tally`. Raises PasserbyError; Ctrl-C stops it at once."""
    columns = (BarColumn(), MofNCompleteColumn(), _CropsPerSecond(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("import", total=len(items))

        def count(outcome: UploadedCrop) -> None:
            tally.add(items[outcome.position].path, outcome)
            progress.update(task, completed=tally.handled)

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


def show_tally(tally: Tally, total: int, failures_file: Path | None, console: Console) -> None:
    """Print the outcomes of `total` crops and the first failures; `failures_file` gets all of them."""
    parts = [f"{tally.created:,} stored", f"{tally.existing:,} existing"]
    if tally.updated:
        parts.append(f"{tally.updated:,} updated")
    if tally.failures:
        parts.append(f"[red]{len(tally.failures):,} failed[/]")
    if tally.handled < total:
        parts.append(f"{total - tally.handled:,} not sent")
    console.print(", ".join(parts))
    if tally.differing:
        console.print(f"{tally.differing:,} existing with other labels or times: --update changes them")
    for failure in tally.failures[:FAILURES_SHOWN]:
        console.print(f"  {failure.path}: {failure.problem}", highlight=False, markup=False, soft_wrap=True)
    if failures_file:
        _write_failures(tally.failures, failures_file)
        console.print(f"All failures are listed in {failures_file}", markup=False, soft_wrap=True)
    elif len(tally.failures) > FAILURES_SHOWN:
        rest = len(tally.failures) - FAILURES_SHOWN
        console.print(f"  and {rest:,} more; --failures FILE lists them all")


def _write_failures(failures: Iterable[Failure], path: Path) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(("file", "problem"))
            rows.writerows((printable(failure.path), printable(failure.problem)) for failure in failures)
    except OSError as error:
        raise ClientError(f"cannot write {path}: {error.strerror}") from error


class _CropsPerSecond(ProgressColumn):
    """The recent speed in crops a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.0f} crops/s" if speed else "", style="progress.data.speed")
