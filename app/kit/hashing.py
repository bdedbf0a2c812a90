"""The one digest by which contents are named."""

import hashlib


def sha256_hex(content: bytes) -> str:
    """64 hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
