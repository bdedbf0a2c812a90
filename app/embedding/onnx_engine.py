"""The engine for ONNX checkpoints: ONNX Runtime on the CPU."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model.errors import CheckpointError
from model.onnx_session import open_session, run_session


class OnnxEngine:
    """See Engine. Few crops at once are computed by all threads together, many are shared out among the threads.

    Threads that work together wait for each other after every layer. While decoding and the database want the cores
    too, one thread in their way holds up all others. Threads with a share each do not.
    """

    def __init__(self, checkpoint: Path, threads: int) -> None:
        """`threads`: how many cores one call may use. Raises CheckpointError."""
        self._threads = threads
        self._together, self.metadata = open_session(checkpoint, threads)
        self._alone, _ = open_session(checkpoint, 1)
        self._pool = ThreadPoolExecutor(threads, "onnx")
        inputs = {given.name: given.shape[1:] for given in self._together.get_inputs()}
        if inputs != {"crops": [*self.metadata.input.size, 3]}:
            height, width = self.metadata.input.size
            raise CheckpointError(f"{checkpoint} takes {inputs}, its metadata says crops of {height} x {width}")

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Engine."""
        if len(crops) < 4 * self._threads:
            return run_session(self._together, crops)
        share = -(-len(crops) // (2 * self._threads))  # two for each thread, so that a slow one does not hold up all
        shares = [crops[start : start + share] for start in range(0, len(crops), share)]
        return np.concatenate(list(self._pool.map(lambda part: run_session(self._alone, part), shares)))
