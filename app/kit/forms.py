"""Types of form fields."""

from typing import Annotated, TypeVar

from pydantic import BeforeValidator

Value = TypeVar("Value")


def _without_blanks(values: object) -> object:
    return [value for value in values if value != ""] if isinstance(values, list) else values


Several = Annotated[list[Value], BeforeValidator(_without_blanks)]
"""A field that may be given several times. Browsers send one left empty as a blank, which counts as nothing."""
