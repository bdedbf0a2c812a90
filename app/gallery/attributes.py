"""A crop's attributes in the forms that filters compare: pairs of a name and its value's canonical JSON text."""

from collections.abc import Mapping
from typing import Any

from app.kit.canonical import canonical_json

Pair = tuple[str, str]


def pairs_of(attributes: Mapping[str, Any]) -> frozenset[Pair]:
    """Each name with the canonical text of its value."""
    return frozenset((name, canonical_json(value)) for name, value in attributes.items())


def lines_of(attributes: Mapping[str, Any]) -> str | None:
    """The text in which the database looks for pairs: one line for each, between newlines; None for no pairs."""
    if not attributes:
        return None
    return "\n" + "".join(f"{_member(*pair)}\n" for pair in sorted(pairs_of(attributes)))


def line_of(pair: Pair) -> str:
    """A substring of `lines_of(attributes)` exactly if the attributes have the pair: canonical JSON has no newlines."""
    return f"\n{_member(*pair)}\n"


def text_of(lines: str | None) -> str | None:
    """The canonical JSON of the whole object, as an index holds it, from `lines_of(attributes)`."""
    return None if lines is None else "{" + lines[1:-1].replace("\n", ",") + "}"


def _member(name: str, value: str) -> str:
    return f"{canonical_json(name)}:{value}"
