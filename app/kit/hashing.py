"""The one digest by which contents are named."""

import asyncio
import hashlib
from collections.abc import Sequence


def sha256_hex(content: bytes) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


async def sha256_of_all(contents: Sequence[bytes]) -> list[str]:
    """The digest of each, taken in a thread: contents of a request may be many megabytes."""
    return await asyncio.to_thread(lambda: [sha256_hex(content) for content in contents])
