"""Keyset pagination: a cursor is the position of a page's last row, so inserts neither shift nor repeat rows."""

import base64
import binascii
import struct

_FORMAT = struct.Struct(">qq")


def encode_cursor(position: tuple[int, int]) -> str:
    """The opaque form of a row's position, two 64-bit numbers."""
    return base64.urlsafe_b64encode(_FORMAT.pack(*position)).decode().rstrip("=")


def decode_cursor(cursor: str) -> tuple[int, int]:
    """The position in a cursor. Raises ValueError for a malformed cursor."""
    try:
        content = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        first, second = _FORMAT.unpack(content)
    except (binascii.Error, struct.error, ValueError) as error:
        raise ValueError(f"{cursor!r} is no valid cursor") from error
    return first, second
