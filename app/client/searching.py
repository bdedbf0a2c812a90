"""`passerby search`: searches with pictures or crops of a person, and shows the ranked matches."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress_bar import ProgressBar

from app.client.errors import ClientError
from app.client.tables import WIDE, Column, crop_columns, print_table
from passerby import AsyncClient, MatchOut, SearchAnswer, SearchOptions


@dataclass(frozen=True)
class Found:
    """A search's answer, and the whole URL of its contact sheet, which opens in a browser for some minutes."""

    answer: SearchAnswer
    sheet_url: str


def run_search(
    pictures: Sequence[Path],
    crop_ids: Sequence[str],
    options: SearchOptions,
    url: str,
    as_json: bool,
    out: Path | None,
    console: Console,
) -> None:
    """Search and print the matches as a table, or the answer as JSON. Raises PasserbyError.

    out: a file for the contact sheet.
    """
    if bool(pictures) == bool(crop_ids):
        raise ClientError("give either pictures of the person, or --crop with the ids of crops of the gallery")
    found = asyncio.run(search(AsyncClient(url), pictures, crop_ids, options, out))
    if as_json:
        print(found.answer.model_dump_json(exclude_unset=True))
    else:
        show_matches(found, out, console)


async def search(
    client: AsyncClient,
    pictures: Sequence[Path],
    crop_ids: Sequence[str],
    options: SearchOptions,
    out: Path | None = None,
) -> Found:
    """Search, save the contact sheet in `out`, and close the client. Raises PasserbyError."""
    async with client:
        answer = await client.search(list(pictures), crop_ids=crop_ids, **options)
        if out is not None:
            _write(out, await client.get_sheet(answer.search_id))
        return Found(answer, client.absolute(answer.sheet_url))


def show_matches(found: Found, out: Path | None, console: Console) -> None:
    """Print ranked matches and where their contact sheet is."""
    answer = found.answer
    if answer.matches:
        print_table(_columns(answer.matches, console.width >= WIDE), console)
    else:
        console.print("No match.")
    console.print(f"{answer.compared:,} of {answer.gallery_size:,} crops compared", highlight=False)
    console.print(f"Contact sheet: {found.sheet_url if out is None else out}", soft_wrap=True, markup=False)


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise ClientError(f"cannot write {path}: {error.strerror}") from error


def _columns(matches: Sequence[MatchOut], wide: bool) -> list[Column]:
    columns: list[Column] = [
        ("rank", [f"{match.rank:4}" for match in matches]),
        ("similarity", [f"{match.similarity:.3f}" for match in matches]),
    ]
    if wide:
        columns.append(("", [ProgressBar(completed=100 * max(match.similarity, 0.0), width=10) for match in matches]))
    return columns + crop_columns([match.crop for match in matches])
