"""The default engine for ONNX checkpoints: ONNX Runtime on the CPU."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.embedding.engine import Engines
from app.embedding.onnx_input import check_input
from model.onnx_session import open_session, run_session


class OnnxEngine:
    """See Engine. Several threads may call it at once; each call computes with `threads` threads."""

    def __init__(self, checkpoint: Path, threads: int) -> None:
        """Raises CheckpointError."""
        self._session, self.metadata = open_session(checkpoint, threads)
        inputs = {given.name: given.shape[1:] for given in self._session.get_inputs()}
        check_input(checkpoint, inputs, self.metadata)

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Engine."""
        return run_session(self._session, crops)


def onnx_engines(checkpoint: Path, cores: int) -> Engines:
    """A worker for each core, and a single-request engine with all cores. Raises CheckpointError.

    Threads that compute one batch synchronise after every layer. One that is late, because decoding or the database
    used its core, delays all others. So each core computes its own batch while several are queued.
    """
    worker = OnnxEngine(checkpoint, threads=1)
    single_request = OnnxEngine(checkpoint, cores) if cores > 1 else None
    return Engines([worker] * cores, single_request, "the CPU, with ONNX Runtime")
