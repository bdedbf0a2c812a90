"""`passerby search`: searches with pictures or crops of a person, and shows the ranked matches."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress_bar import ProgressBar

from app.client.errors import ClientError
from app.client.http import Match, Picture, Query, SearchAnswer, ServiceClient
from app.client.tables import WIDE, Column, crop_columns, print_table
from model.files import printable


@dataclass(frozen=True)
class Found:
    """A search's answer and its JSON text; `sheet_url` is the URL of its contact sheet."""

    answer: SearchAnswer
    text: str
    sheet_url: str
    needs_key: bool


def run_search(query: Query, url: str, as_json: bool, out: Path | None, console: Console) -> None:
    """Search and print the matches as a table, or the service's JSON unchanged. Raises ClientError.

    out: a file for the contact sheet.
    """
    if bool(query.pictures) == bool(query.crop_ids):
        raise ClientError("give either pictures of the person, or --crop with the ids of crops of the gallery")
    found = asyncio.run(search(query, ServiceClient.at(url), out))
    if as_json:
        print(found.text)
    else:
        show_matches(found, out, console)


def read_picture(path: Path) -> Picture:
    """Read a picture file. Raises ClientError."""
    try:
        return Picture(printable(path.name), path.read_bytes())
    except OSError as error:
        raise ClientError(f"cannot read {path}: {error.strerror}") from error


async def search(query: Query, service: ServiceClient, out: Path | None = None) -> Found:
    """Search, save the contact sheet in `out`, and close the client. Raises ClientError."""
    async with service:
        answer, text = await service.search(query)
        if out is not None:
            _write(out, await service.sheet(answer.search_id))
        return Found(answer, text, service.sheet_url(answer.search_id), service.has_key)


def show_matches(found: Found, out: Path | None, console: Console) -> None:
    """Print ranked matches and where their contact sheet is."""
    answer = found.answer
    if answer.matches:
        print_table(_columns(answer.matches, console.width >= WIDE), console)
    else:
        console.print("No match.")
    console.print(f"{answer.compared:,} of {answer.gallery_size:,} crops compared", highlight=False)
    console.print(f"Contact sheet: {found.sheet_url if out is None else out}", soft_wrap=True, markup=False)
    if found.needs_key and out is None:
        console.print("The sheet needs the API key; --out sheet.jpg saves it")


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ClientError(f"cannot write {path}: {error.strerror}") from error


def _columns(matches: Sequence[Match], wide: bool) -> list[Column]:
    columns: list[Column] = [
        ("rank", [f"{match.rank:4}" for match in matches]),
        ("similarity", [f"{match.similarity:.3f}" for match in matches]),
    ]
    if wide:
        columns.append(("", [ProgressBar(completed=100 * max(match.similarity, 0.0), width=10) for match in matches]))
    return columns + crop_columns([match.crop for match in matches])
