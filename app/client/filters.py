"""The filters of several commands: their options, and the fields that the service takes."""

from collections.abc import Callable, Mapping
from datetime import datetime
from functools import wraps
from inspect import Parameter, signature
from typing import Annotated, Any, TypeVar, cast

import typer

from app.client.errors import ClientError
from passerby.fields import CropFilters

R = TypeVar("R")


def _moment(text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no ISO 8601 time such as 2026-05-01T14:30") from error
    return moment if moment.tzinfo else moment.astimezone()


_OPTIONS: Mapping[str, Any] = {
    "camera_ids": Annotated[list[str] | None, typer.Option("--camera", help="Only this camera; can be repeated")],
    "exclude_camera_ids": Annotated[
        list[str] | None, typer.Option("--exclude-camera", help="Not this camera; can be repeated")
    ],
    "captured_from": Annotated[
        datetime | None,
        typer.Option("--from", parser=_moment, metavar="TIME", help="Captured then or later: 2026-05-01T14:30"),
    ],
    "captured_to": Annotated[
        datetime | None, typer.Option("--to", parser=_moment, metavar="TIME", help="Captured before then")
    ],
    "person_id": Annotated[str | None, typer.Option("--person", help="Only crops of this person")],
    "track_id": Annotated[str | None, typer.Option("--track", help="Only crops of this track")],
    "attributes": Annotated[
        str | None,
        typer.Option(metavar="JSON", help='Only crops with these attributes and values: \'{"colour": "red"}\''),
    ],
}
"""By the field of the service."""


def takes_filters(command: Callable[..., R]) -> Callable[..., R]:
    """A command with the options of all filters in place of its parameter `filters`. Raises ClientError."""

    @wraps(command)
    def run(**given: Any) -> R:
        filters = {name: given.pop(name) for name in _OPTIONS}
        return command(filters=filters_of(filters), **given)

    parameters = [parameter for name, parameter in signature(command).parameters.items() if name != "filters"] + [
        Parameter(name, Parameter.KEYWORD_ONLY, default=None, annotation=kind) for name, kind in _OPTIONS.items()
    ]
    cast(Any, run).__signature__ = signature(command).replace(parameters=parameters)  # as PEP 362 has it, for typer
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def filters_of(given: Mapping[str, Any]) -> CropFilters:
    """The filters that are given. Raises ClientError for an empty one."""
    set_ones = {name: value for name, value in given.items() if value is not None and value != []}
    for value in set_ones.values():
        if value == "" or (isinstance(value, list) and "" in value):
            # as of an unset variable of a shell: the service would take it as no filter
            raise ClientError("a filter is empty: give its option a value, or leave it out")
    return cast(CropFilters, set_ones)
