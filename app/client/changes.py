"""`passerby delete`, `cameras delete` and `label`: deletes crops, or changes their labels, many at once."""

import asyncio
from collections.abc import Awaitable, Callable

import typer
from rich.console import Console

from app.client.errors import ClientError
from model.errors import counted
from passerby import AsyncClient, ChangedCrops, CropSelection, DeletedCrops, Labels


def run_delete(selection: CropSelection, dry_run: bool, yes: bool, url: str, console: Console) -> None:
    """Count crops, ask unless `yes`, and delete them with their pictures. Raises PasserbyError."""
    _require_choice(selection)
    _count_and_delete(lambda client, dry: client.delete_crops(dry_run=dry, **selection), dry_run, yes, url, console)


def run_delete_camera(camera_id: str, dry_run: bool, yes: bool, url: str, console: Console) -> None:
    """Count a camera's crops, ask unless `yes`, and delete the camera with them. Raises PasserbyError."""
    _count_and_delete(lambda client, dry: client.delete_camera(camera_id, dry), dry_run, yes, url, console)


def run_label(selection: CropSelection, labels: Labels, dry_run: bool, url: str, console: Console) -> None:
    """Set the labels of crops; an empty text clears one. Raises PasserbyError."""
    _require_choice(selection)
    if not labels:
        raise ClientError("say what to set: --set-person, --set-track or --set-attributes; an empty text clears it")
    changed = asyncio.run(_label(selection, labels, dry_run, url))
    verb = "would change" if dry_run else "changed"
    console.print(f"matching: {counted(changed.matched, 'crop')}, of which {changed.changed:,} {verb}", highlight=False)


def _require_choice(selection: CropSelection) -> None:
    if not selection:
        raise ClientError("say which crops: give their ids, or a filter such as --camera or --person")


_Deletion = Callable[[AsyncClient, bool], Awaitable[DeletedCrops]]


def _count_and_delete(request: _Deletion, dry_run: bool, yes: bool, url: str, console: Console) -> None:
    found = asyncio.run(_ask(request, True, url)).matched
    console.print(f"matching: {counted(found, 'crop')}", highlight=False)
    if dry_run:
        return
    if not yes and not typer.confirm("Delete them with their pictures, for ever?"):
        console.print("Nothing was deleted.")
        return
    deleted = asyncio.run(_ask(request, False, url)).deleted
    console.print(f"deleted: {counted(deleted, 'crop')}", highlight=False)


async def _ask(request: _Deletion, dry_run: bool, url: str) -> DeletedCrops:
    async with AsyncClient(url) as client:
        return await request(client, dry_run)


async def _label(selection: CropSelection, labels: Labels, dry_run: bool, url: str) -> ChangedCrops:
    async with AsyncClient(url) as client:
        return await client.patch_crops(labels, dry_run=dry_run, **selection)
