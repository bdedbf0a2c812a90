"""`passerby delete`, `cameras delete` and `label`: deletes crops, or changes their labels, many at once."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import typer
from rich.console import Console

from app.client.errors import ClientError
from app.client.http import Changed, Selection, ServiceClient
from model.errors import counted


def run_delete(selection: Selection, dry_run: bool, yes: bool, url: str, console: Console) -> None:
    """Count crops, ask unless `yes`, and delete them with their pictures. Raises ClientError."""
    _require_choice(selection)
    _count_and_delete(lambda service, dry: service.delete_crops(selection, dry), dry_run, yes, url, console)


def run_delete_camera(camera_id: str, dry_run: bool, yes: bool, url: str, console: Console) -> None:
    """Count a camera's crops, ask unless `yes`, and delete the camera with them. Raises ClientError."""
    _count_and_delete(lambda service, dry: service.delete_camera(camera_id, dry), dry_run, yes, url, console)


def run_label(selection: Selection, labels: Mapping[str, Any], dry_run: bool, url: str, console: Console) -> None:
    """Set the labels of crops; an empty text clears one. Raises ClientError."""
    _require_choice(selection)
    if not labels:
        raise ClientError("say what to set: --set-person, --set-track or --set-attributes; an empty text clears it")
    changed = asyncio.run(_ask(lambda service, dry: service.label_crops(selection, labels, dry), dry_run, url))
    verb = "would change" if dry_run else "changed"
    console.print(f"matching: {counted(changed.matched, 'crop')}, of which {changed.changed:,} {verb}", highlight=False)


def _require_choice(selection: Selection) -> None:
    if not selection.fields():
        raise ClientError("say which crops: give their ids, or a filter such as --camera or --person")


_Request = Callable[[ServiceClient, bool], Awaitable[Changed]]


def _count_and_delete(request: _Request, dry_run: bool, yes: bool, url: str, console: Console) -> None:
    found = asyncio.run(_ask(request, True, url)).matched
    console.print(f"matching: {counted(found, 'crop')}", highlight=False)
    if dry_run:
        return
    if not yes and not typer.confirm("Delete them with their pictures, for ever?"):
        console.print("Nothing was deleted.")
        return
    deleted = asyncio.run(_ask(request, False, url)).changed
    console.print(f"deleted: {counted(deleted, 'crop')}", highlight=False)


async def _ask(request: _Request, dry_run: bool, url: str) -> Changed:
    async with ServiceClient.at(url) as service:
        return await request(service, dry_run)
