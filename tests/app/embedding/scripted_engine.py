"""An engine with scripted faults, which the values of crops select."""

import threading

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.architecture import PART_DIM, PARTS
from tests.app.factories import encoded
from tests.app.tiny_checkpoint import tiny_metadata

RAISES, GIVES_NAN, DIES = 251, 252, 253

SIZE = (64, 32)


def crop(value: int) -> NDArray[np.uint8]:
    """A crop of one value, which the engine repeats in every part or which selects a fault."""
    return np.full((*SIZE, 3), value, dtype=np.uint8)


def flat(value: int) -> bytes:
    """A file that holds `crop(value)`."""
    return encoded(Image.fromarray(crop(value)), "PNG")


class ScriptedEngine:
    """Repeats a crop's value in its parts. It blocks while `go` is cleared, and records the values of each batch."""

    def __init__(self, largest_batch: int = 1_000_000) -> None:
        self.metadata = tiny_metadata(*SIZE)
        self.batches: list[list[int]] = []
        self.go = threading.Event()
        self.go.set()
        self.busy = threading.Event()
        self.largest_batch = largest_batch

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        values = crops[:, 0, 0, 0].tolist()
        self.batches.append(values)
        self.busy.set()
        self.go.wait()
        self.busy.clear()
        if DIES in values:
            raise SystemExit("scripted death")
        if RAISES in values:
            raise RuntimeError("scripted error")
        if len(values) > self.largest_batch:
            raise MemoryError("the batch is too large")
        parts = np.empty((len(values), len(PARTS), PART_DIM), dtype=np.float32)
        parts[:] = crops[:, 0, 0, 0, None, None]
        parts[crops[:, 0, 0, 0] == GIVES_NAN, 3, 7] = np.nan
        return parts
