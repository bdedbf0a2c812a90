"""`passerby search`: searches with pictures of a person, and shows the ranked matches."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table

from app.client.errors import ClientError
from app.client.http import Match, Picture, Query, SearchAnswer, ServiceClient
from model.files import printable

WIDE = 100  # characters; a narrower terminal gets a denser table with fewer columns


@dataclass(frozen=True)
class Found:
    """A search's answer; `sheet_url` is the absolute URL of its contact sheet."""

    answer: SearchAnswer
    sheet_url: str
    needs_key: bool


def run_search(query: Query, url: str, as_json: bool, console: Console) -> None:
    """Search and print the matches as a table, or the service's JSON unchanged. Raises ClientError."""
    if as_json:
        print(asyncio.run(_search_json(query, url)))
    else:
        show_matches(asyncio.run(search(query, ServiceClient.at(url))), console)


def read_picture(path: Path) -> Picture:
    """Read a picture file. Raises ClientError."""
    try:
        return Picture(printable(path.name), path.read_bytes())
    except OSError as error:
        raise ClientError(f"cannot read {path}: {error.strerror}") from error


async def search(query: Query, service: ServiceClient) -> Found:
    """Search, and close the client. Raises ClientError."""
    async with service:
        answer = await service.search(query)
        return Found(answer, service.absolute(answer.sheet_url), service.has_key)


def show_matches(found: Found, console: Console) -> None:
    """Print ranked matches and the URL of their contact sheet."""
    answer = found.answer
    console.print(_table(answer.matches, wide=console.width >= WIDE) if answer.matches else "No match.")
    console.print(f"{answer.compared:,} of {answer.gallery_size:,} crops compared", highlight=False)
    console.print(f"Contact sheet: {found.sheet_url}", soft_wrap=True)
    if found.needs_key:
        console.print("The sheet needs the API key: in a browser, open /docs, authorize, and request the sheet there")


async def _search_json(query: Query, url: str) -> str:
    async with ServiceClient.at(url) as service:
        return await service.search_json(query)


def _table(matches: Sequence[Match], wide: bool) -> Table:
    zones = {match.crop.captured_at.tzname() for match in matches}
    zone = f" ({zones.pop()})" if len(zones) == 1 else ""
    columns: list[tuple[str, Callable[[Match], RenderableType]]] = [
        ("rank", lambda match: f"{match.rank:4}"),
        ("similarity", lambda match: f"{match.similarity:.3f}"),
        ("camera", lambda match: escape(match.crop.camera_id)),
        (f"captured{zone}", lambda match: _local_time(match.crop.captured_at, with_zone=not zone)),
    ]
    if wide:
        columns.insert(2, ("", lambda match: ProgressBar(completed=100 * max(match.similarity, 0.0), width=10)))
    persons_known = any(match.crop.person_id for match in matches)
    if persons_known:
        columns.append(("person", lambda match: escape(match.crop.person_id or "")))
    if any(match.crop.track_id for match in matches) and (wide or not persons_known):
        columns.append(("track", lambda match: escape(match.crop.track_id or "")))

    table = Table(box=SIMPLE_HEAD, show_edge=False, padding=(0, int(wide), 0, 0))
    for name, _ in columns:
        table.add_column(name, no_wrap=True)
    table.add_column("crop", overflow="fold")  # ids must be complete to be usable
    for match in matches:
        table.add_row(*(cell(match) for _, cell in columns), match.crop.id)
    return table


def _local_time(moment: datetime, with_zone: bool) -> str:
    """A time in the zone of the camera, as on the contact sheet."""
    text = f"{moment:%Y-%m-%d %H:%M:%S}"
    return f"{text} {moment.tzname()}" if with_zone else text
