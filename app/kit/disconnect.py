"""Cancels work when the client disconnects."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi import Request

Result = TypeVar("Result")

Disconnect = Callable[[], Coroutine[Any, Any, None]]
"""A coroutine function that returns when the client disconnects."""


class ClientDisconnected(Exception):
    """The client has closed the connection before it got its response."""


async def disconnect_of(request: Request) -> Disconnect:
    """A dependency for FastAPI: waits for the disconnect of a request's client. The body must be read completely."""

    async def disconnected() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    return disconnected


async def cancel_on_disconnect(disconnect: Disconnect, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when `disconnect` returns.

    Raises ClientDisconnected, and whatever `work` raises.
    """
    working, waiting = asyncio.create_task(work), asyncio.create_task(disconnect())
    try:
        await asyncio.wait((working, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnected("the client disconnected before its response was ready")
        return working.result()
    finally:
        working.cancel()
        waiting.cancel()
        await asyncio.wait((working, waiting))  # a cancelled task runs on until its cleanup is done
