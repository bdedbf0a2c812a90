"""The engine for safetensors checkpoints: torch, on GPUs where there are any, else on the CPU."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from app.embedding.cuda_graphs import CudaGraphStep
from app.embedding.engine import Engines
from app.embedding.fixed_batches import FixedBatches
from model.checkpoint import Checkpoint, load_checkpoint
from model.mgn import Embedder, load_embedder

GPU_BATCHES = (1, 4, 16, 64, 128)


class TorchEngine:
    """See Engine. Single precision on the CPU; half precision on a GPU, captured for a few batch sizes."""

    def __init__(self, checkpoint: Path, device: torch.device, threads: int) -> None:
        """threads: of torch on the CPU, for the whole process. Raises CheckpointError."""
        loaded = load_checkpoint(checkpoint)
        self.metadata = loaded.metadata
        embedder = channels_last(loaded, device)
        if device.type == "cuda":
            size = self.metadata.input.size
            self._embed: FixedBatches | Embedder = FixedBatches(
                {n: CudaGraphStep(embedder, device, n, size) for n in GPU_BATCHES}
            )
        else:
            torch.set_num_threads(threads)
            self._embed = embedder

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        """See Engine."""
        with torch.inference_mode():
            parts: NDArray[np.float32] = self._embed(torch.from_numpy(crops)).numpy()
        return parts


def channels_last(checkpoint: Checkpoint, device: torch.device) -> Embedder:
    """The network of a checkpoint on a device, in the channels-last layout, which is fastest for convolutions.

    Raises CheckpointError.
    """
    embedder = load_embedder(checkpoint)
    on_device: Embedder = embedder.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return on_device


def torch_engines(checkpoint: Path, threads: int) -> Engines:
    """A worker for each GPU of this machine, or one for its CPU. Raises CheckpointError."""
    gpus = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    if not gpus:
        return Engines(
            [TorchEngine(checkpoint, torch.device("cpu"), threads)], runs_on="the CPU, as torch finds no GPU"
        )
    names = " and ".join(sorted({torch.cuda.get_device_name(gpu) for gpu in gpus}))
    return Engines([TorchEngine(checkpoint, gpu, threads) for gpu in gpus], runs_on=f"{len(gpus)} GPU, {names}")
