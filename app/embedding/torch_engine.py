"""The engine for safetensors checkpoints: torch, on the GPU where there is one, else on the CPU."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from model.checkpoint import load_checkpoint
from model.mgn import load_embedder


class TorchEngine:
    """See Engine. float32 on the CPU; on a GPU bf16 where autocast takes it, with channels last.

    `threads` is what torch computes with on the CPU, in the whole process.
    """

    def __init__(self, checkpoint: Path, threads: int) -> None:
        """Raises CheckpointError."""
        loaded = load_checkpoint(checkpoint)
        self.metadata = loaded.metadata
        self._gpu = torch.cuda.is_available()
        torch.set_num_threads(threads)
        self._embedder = load_embedder(loaded)
        if self._gpu:
            self._embedder.to("cuda", memory_format=torch.channels_last)  # type: ignore[call-overload]

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Engine."""
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16, enabled=self._gpu):
            pixels = torch.from_numpy(crops)
            parts = self._embedder(pixels.to("cuda") if self._gpu else pixels)
            numbers: NDArray[np.float32] = parts.cpu().numpy()
        return numbers
