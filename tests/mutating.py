"""Mutations of files."""

import random


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Change, remove, insert or repeat a few bytes, mostly in the headers."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(min(len(changed), rng.choice((40, 200, len(changed)))))
        match rng.randrange(6):
            case 0 | 1 | 2:
                changed[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            case 3:
                del changed[at : at + rng.randrange(1, 30)]
            case 4:
                changed[at:at] = rng.randbytes(rng.randrange(1, 30))
            case 5:
                changed[at:at] = changed[at : at + rng.randrange(1, 60)]
        if not changed:
            return b""
    return bytes(changed)
