"""Provides endpoints with the application's parts, by class."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

from fastapi import FastAPI, Request

Part = TypeVar("Part")


def provide(app: FastAPI, *parts: object) -> None:
    """Make parts available to the application's endpoints."""
    app.state.parts = {type(part): part for part in parts}


def provided(kind: type[Part]) -> Callable[[Request], Awaitable[Part]]:
    """A dependency for FastAPI: the part of a class. It is asynchronous, as FastAPI calls others in threads."""

    async def part(request: Request) -> Part:
        found: Part = request.app.state.parts[kind]
        return found

    return part
