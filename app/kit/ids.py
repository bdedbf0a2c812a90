"""Identifiers that sort by creation time."""

import secrets
import time

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_LENGTH = 26

ID_PATTERN = rf"^[{_ALPHABET}]{{{_LENGTH}}}$"
"""The pattern of all identifiers."""


def new_id() -> str:
    """26 letters and digits: 48 bits of time in milliseconds, then 80 random bits (the layout of a ULID)."""
    number = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(5 * (_LENGTH - 1), -1, -5))
