"""Types of form and query fields."""

from typing import Annotated, TypeVar

from pydantic import BeforeValidator

Value = TypeVar("Value")


def _without_blanks(values: object) -> object:
    return [value for value in values if value != ""] if isinstance(values, list) else values


Several = Annotated[list[Value], BeforeValidator(_without_blanks)]
"""A field that may be repeated. Browsers send an empty field as a blank value, which is dropped."""
