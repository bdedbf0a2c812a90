"""Parses the form field of part weights."""

from pydantic import TypeAdapter, ValidationError

from app.errors import InvalidRequest
from app.gallery.forms import first_fault
from app.search.ranking import multipliers_of

_WEIGHTS = TypeAdapter(dict[str, float])


def parse_part_weights(text: str | None) -> dict[str, float]:
    """The form field `part_weights`: the given weights, by the names of parts. Raises InvalidRequest."""
    if text is None:
        return {}
    try:
        named = _WEIGHTS.validate_json(text, strict=True)
    except ValidationError as error:
        raise InvalidRequest(
            f"part_weights is no JSON object of numbers by names of parts: {first_fault(error)}", "part_weights"
        ) from error
    try:
        multipliers_of(named)
    except ValueError as error:
        raise InvalidRequest(f"part_weights: {error}", "part_weights") from error
    return named
