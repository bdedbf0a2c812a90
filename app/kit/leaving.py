"""Work that is done only for as long as the client waits for it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request

Result = TypeVar("Result")

Departure = Callable[[], Coroutine[Any, Any, None]]
"""Returns when the client has left; until then it waits."""


class ClientLeft(Exception):
    """The client has closed the connection, so nobody waits for the answer any more."""


async def departure_of(request: Request) -> Departure:
    """A dependency for FastAPI: the departure of a request's client. Of the request's body nothing may be unread."""

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return left


async def unless_left(departure: Departure, work: Coroutine[Any, Any, Result]) -> Result:
    """What `work` gives. It is cancelled when the client leaves. Raises ClientLeft, and whatever `work` raises."""
    working, leaving = asyncio.create_task(work), asyncio.create_task(departure())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientLeft("the client left before its answer was ready")
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.wait((working, leaving))  # what was cancelled runs on until it has tidied up
