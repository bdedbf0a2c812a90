"""`passerby import`: sends the crops of a source to the service, several requests at once."""

import asyncio
import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
from rich.text import Text

from app.client.errors import ClientError, Refused
from app.client.http import Camera, Picture, ServiceClient, Upload
from app.client.sources import Source, SourceItem, read_source
from model.errors import counted
from model.files import printable

REQUESTS_IN_FLIGHT = 4
CROPS_PER_REQUEST = 32
BYTES_PER_REQUEST = 16 * 1024 * 1024  # times REQUESTS_IN_FLIGHT, the bound of the import's memory
FAILURES_SHOWN = 20

INTERRUPTED = 130
"""The exit code after Ctrl-C, as in shells."""

_ITEM_ERRORS = frozenset({400, 413, 422})


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
    differing: int = 0  # of the existing ones, those with other labels than the source
    updated: int = 0
    failures: list[Failure] = field(default_factory=list)

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
        import_items(read.items, ServiceClient.at(url), tally, console, update)
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
            "time and timelines are: give the times in a CSV manifest.",
            highlight=False,
            soft_wrap=True,
        )


def import_items(
    items: Sequence[SourceItem], service: ServiceClient, tally: Tally, console: Console, update: bool = False
) -> None:
    """Send crops under a progress bar, counting into `tally`. Raises ClientError; Ctrl-C stops it at once."""
    columns = (BarColumn(), MofNCompleteColumn(), _CropsPerSecond(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("import", total=len(items))
        asyncio.run(_send_all(items, service, tally, update, lambda: progress.update(task, completed=tally.handled)))


async def _check(url: str) -> None:
    async with ServiceClient.at(url) as service:
        await service.check_ready()


async def _name_cameras(names: Mapping[str, str], url: str) -> None:
    """Give cameras their names as written, where they have no name of their own yet."""
    if not names:
        return
    async with ServiceClient.at(url) as service:
        known = {camera.id: camera for camera in await service.cameras()}
        for camera_id, name in names.items():
            camera = known.get(camera_id, Camera(id=camera_id, name=camera_id))
            if camera.name == camera_id:
                await service.put_camera(camera_id, name, camera.place, camera.time_zone)


async def _send_all(
    items: Iterable[SourceItem], service: ServiceClient, tally: Tally, update: bool, progressed: Callable[[], None]
) -> None:
    batches = _batches(items)

    async def send_batches() -> None:
        for batch in batches:  # all senders share one iterator
            await _send(await asyncio.to_thread(_read, batch, tally), service, tally, update)
            progressed()

    async with service:
        try:
            async with asyncio.TaskGroup() as senders:
                for _ in range(REQUESTS_IN_FLIGHT):
                    senders.create_task(send_batches())
        except ExceptionGroup as group:
            raise group.exceptions[0] from None


def _batches(items: Iterable[SourceItem]) -> Iterator[list[SourceItem]]:
    """Group items into requests."""
    batch: list[SourceItem] = []
    total = 0
    for item in items:
        size = _size(item.path)
        if batch and (len(batch) == CROPS_PER_REQUEST or total + size > BYTES_PER_REQUEST):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += size
    if batch:
        yield batch


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # reading the file will report the error
        return 0


@dataclass(frozen=True)
class _Loaded:
    item: SourceItem
    content: bytes

    def upload(self) -> Upload:
        known: dict[str, Any] = {
            "camera_id": self.item.camera_id,
            "captured_at": self.item.captured_at,
            "time_guessed": self.item.time_guessed,
            "track_id": self.item.track_id,
            "person_id": self.item.person_id,
            "attributes": self.item.attributes,
        }
        metadata = {name: value for name, value in known.items() if value}
        return Upload(Picture(printable(self.item.path.name), self.content), metadata)


def _read(batch: Iterable[SourceItem], tally: Tally) -> list[_Loaded]:
    loaded = []
    for item in batch:
        try:
            loaded.append(_Loaded(item, item.path.read_bytes()))
        except OSError as error:
            tally.failures.append(Failure(item.path, f"cannot be read: {error.strerror}"))
    return loaded


async def _send(crops: list[_Loaded], service: ServiceClient, tally: Tally, update: bool) -> None:
    """Send crops in one request; if it is refused as a whole, retry in halves, so a bad crop fails alone."""
    if not crops:
        return
    try:
        answers = await service.embed([crop.upload() for crop in crops], update)
    except Refused as refused:
        if refused.status not in _ITEM_ERRORS:
            raise
        if len(crops) == 1:
            tally.failures.append(Failure(crops[0].item.path, str(refused)))
            return
        middle = len(crops) // 2
        await _send(crops[:middle], service, tally, update)
        await _send(crops[middle:], service, tally, update)
        return
    for crop, answer in zip(crops, answers, strict=True):
        if answer.status == "failed":
            problem = str(answer.problem or "the service gave no reason")
            tally.failures.append(Failure(crop.item.path, problem))
        elif answer.status == "created":
            tally.created += 1
        elif answer.status == "updated":
            tally.updated += 1
        else:
            tally.existing += 1
            tally.differing += bool(answer.differs)


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
        console.print(f"{tally.differing:,} existing with other labels: run again with --update to change them")
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
