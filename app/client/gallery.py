"""`passerby crops` and `cameras`: lists what the gallery holds, and describes cameras."""

import asyncio
import json
from collections.abc import Sequence

from rich.console import Console

from app.client.tables import crop_columns, print_table
from model.errors import counted
from passerby import AsyncClient, CameraOut, CropFilters, CropOut, CropPage

CROPS_PER_PAGE = 1000


def run_crops(filters: CropFilters, limit: int, url: str, as_json: bool, console: Console) -> None:
    """Print the latest crops that pass the filters as a table, or as JSON. Raises PasserbyError."""
    page = asyncio.run(_crops(filters, limit, url))
    if as_json:
        print(page.model_dump_json())
    elif page.items:
        print_table(crop_columns(page.items), console)
        more = "; there are more, --limit shows them" if page.next_cursor else ""
        console.print(f"{counted(len(page.items), 'crop')}{more}", highlight=False)
    else:
        console.print("No crop.")


def run_cameras(url: str, as_json: bool, console: Console) -> None:
    """Print all cameras as a table, or as JSON. Raises PasserbyError."""
    cameras = asyncio.run(_cameras(url))
    if as_json:
        print(json.dumps([camera.model_dump(mode="json") for camera in cameras]))
    elif cameras:
        _print_cameras(cameras, console)
    else:
        console.print("No camera.")


def run_put_camera(
    camera_id: str, name: str | None, place: str | None, time_zone: str | None, url: str, console: Console
) -> None:
    """Describe a camera; what is None stays as it is, and an empty text clears it. Raises PasserbyError."""
    _print_cameras([asyncio.run(_put_camera(camera_id, name, place, time_zone, url))], console)


async def _crops(filters: CropFilters, limit: int, url: str) -> CropPage:
    items: list[CropOut] = []
    cursor = None
    async with AsyncClient(url) as client:
        while True:
            page = await client.list_crops(cursor, min(limit - len(items), CROPS_PER_PAGE), **filters)
            items += page.items
            cursor = page.next_cursor
            if cursor is None or len(items) >= limit:
                return CropPage(items=items, next_cursor=cursor)


async def _cameras(url: str) -> list[CameraOut]:
    async with AsyncClient(url) as client:
        return await client.list_cameras()


async def _put_camera(
    camera_id: str, name: str | None, place: str | None, time_zone: str | None, url: str
) -> CameraOut:
    async with AsyncClient(url) as client:
        known = next((camera for camera in await client.list_cameras() if camera.id == camera_id), None)
        if known is not None:
            name = known.name if name is None else name
            place = known.place if place is None else place
            time_zone = known.time_zone if time_zone is None else time_zone
        return await client.put_camera(camera_id, name or camera_id, place or None, time_zone or None)


def _print_cameras(cameras: Sequence[CameraOut], console: Console) -> None:
    columns = [
        ("camera", [camera.id for camera in cameras]),
        ("crops", [f"{camera.crops:,}" for camera in cameras]),
        ("name", [camera.name for camera in cameras]),
        ("place", [camera.place or "" for camera in cameras]),
        ("time zone", [camera.time_zone or "" for camera in cameras]),
    ]
    print_table(columns, console)
