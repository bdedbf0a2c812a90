"""The engine for ONNX checkpoints: ONNX Runtime on the CPU."""

from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from model.checkpoint import METADATA_KEY, parse_metadata
from model.errors import CheckpointError


class OnnxEngine:
    """See Engine. `threads` is the number of threads that one call computes with."""

    def __init__(self, checkpoint: Path, threads: int) -> None:
        """Raises CheckpointError."""
        if not checkpoint.exists():
            raise CheckpointError(f"there is no checkpoint at {checkpoint}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.enable_mem_pattern = False  # keeps a plan, and its memory, for every batch size that occurs
        try:
            self._session = onnxruntime.InferenceSession(checkpoint, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's own errors share no base class but this
            raise CheckpointError(f"{checkpoint} is no ONNX file that can be run: {error}") from error
        text = self._session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        self.metadata = parse_metadata(text, checkpoint)
        inputs = {given.name: given.shape[1:] for given in self._session.get_inputs()}
        if inputs != {"crops": [*self.metadata.input.size, 3]}:
            height, width = self.metadata.input.size
            raise CheckpointError(f"{checkpoint} takes {inputs}, its metadata says crops of {height} x {width}")

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Engine."""
        parts: NDArray[np.float32] = self._session.run(["parts"], {"crops": crops})[0]
        return parts
