"""The baseline of the service: a plain ONNX Runtime session with default options at its fastest batch size."""

import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

BATCHES = (1, 2, 4, 8, 16, 32, 64)


class BareSession:
    """A checkpoint in such a session. batch: its fastest batch size."""

    def __init__(self, checkpoint: Path, inputs: NDArray[np.uint8]) -> None:
        """inputs: crops to measure with, at least 64, `(N, height, width, 3)` uint8."""
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        import onnxruntime

        self._session = onnxruntime.InferenceSession(checkpoint, providers=["CPUExecutionProvider"])
        self._inputs = inputs
        self.batch = max(BATCHES, key=self._warm_speed)

    def run(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """`(N, height, width, 3)` -> `(N, 8, 256)`."""
        parts: NDArray[np.float32] = self._session.run(None, {"crops": crops})[0]
        return parts

    def crops_a_second(self, total: int) -> float:
        """The speed of embedding `total` crops, rounded up to whole batches."""
        return self._crops_a_second(self.batch, -(-total // self.batch))

    def _warm_speed(self, batch: int) -> float:
        self.run(self._inputs[:batch])  # allocates memory
        return self._crops_a_second(batch, max(BATCHES) // batch)

    def _crops_a_second(self, batch: int, runs: int) -> float:
        crops = self._inputs[:batch]
        began = time.perf_counter()
        for _ in range(runs):
            self.run(crops)
        return batch * runs / (time.perf_counter() - began)
