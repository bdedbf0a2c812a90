"""Names that are not known, and which known one was probably meant."""

from collections.abc import Iterable
from difflib import get_close_matches

_MAX_LETTERS = 64
"""Comparing two names takes time in proportion to the product of their lengths."""


def shown(name: str) -> str:
    """An unknown name as a message shows it: valid Unicode, and cut where it is long."""
    valid = name[: _MAX_LETTERS + 1].encode(errors="replace").decode()
    return valid if len(valid) <= _MAX_LETTERS else f"{valid[:_MAX_LETTERS]}…"


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The end of a message about an unknown name: `: did you mean top_k?`; empty if no known name is close.

    `prefix`: what all names begin with; it is ignored in the comparison.
    """
    if len(name) > _MAX_LETTERS:
        return ""
    known_rests = sorted(candidate.removeprefix(prefix) for candidate in known)
    closest = get_close_matches(name.removeprefix(prefix), known_rests, n=1)
    return f": did you mean {prefix}{closest[0]}?" if closest else ""
