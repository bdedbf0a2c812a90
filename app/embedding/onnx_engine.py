"""The engine for ONNX checkpoints that is taken by itself: ONNX Runtime on the CPU."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from app.embedding.engine import Engines
from app.embedding.onnx_input import check_input
from model.onnx_session import open_session, run_session


class OnnxEngine:
    """See Engine. It can be called from several threads at once, each of which computes with `threads` threads."""

    def __init__(self, checkpoint: Path, threads: int) -> None:
        """Raises CheckpointError."""
        self._session, self.metadata = open_session(checkpoint, threads)
        inputs = {given.name: given.shape[1:] for given in self._session.get_inputs()}
        check_input(checkpoint, inputs, self.metadata)

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Engine."""
        return run_session(self._session, crops)


def onnx_engines(checkpoint: Path, cores: int) -> Engines:
    """A worker for each core, and all cores together for a lone batch. Raises CheckpointError.

    Threads that compute a batch together wait for each other after every layer: one that comes late, because decoding
    or the database had its core, holds up all others. So while enough batches wait, each core computes one alone.
    """
    worker = OnnxEngine(checkpoint, threads=1)
    lone = OnnxEngine(checkpoint, cores) if cores > 1 else None
    return Engines([worker] * cores, lone, "the CPU, with ONNX Runtime")
