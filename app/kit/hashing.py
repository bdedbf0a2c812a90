"""SHA-256, the hash that names contents."""

import asyncio
import hashlib
from collections.abc import Sequence


def sha256_hex(content: bytes) -> str:
    """The SHA-256 digest, 64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


async def sha256_of_all(contents: Sequence[bytes]) -> list[str]:
    """The digest of each, computed in a thread, as the contents of a request may be many megabytes."""
    return await asyncio.to_thread(lambda: [sha256_hex(content) for content in contents])
