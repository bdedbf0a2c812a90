"""A network captured as a CUDA graph for one batch size, with pinned input and output buffers."""

import torch
from torch import Tensor, nn

WARM_UPS = 3
"""Calls before the capture, in which cuDNN chooses its kernels."""


class CudaGraphStep:
    """See Step. Computes in float16 by autocast; bfloat16 would change embeddings by more than 1e-3."""

    def __init__(self, embedder: nn.Module, device: torch.device, size: int, shape: tuple[int, int]) -> None:
        """embedder: on the device, channels last. shape: (height, width) in pixels."""
        self.inputs: Tensor = torch.zeros((size, *shape, 3), dtype=torch.uint8).pin_memory()
        self._crops = self.inputs.to(device)
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(device), torch.inference_mode(), _half():
            with torch.cuda.stream(self._stream):
                for _ in range(WARM_UPS):
                    embedder(self._crops)
            self._stream.synchronize()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._parts = embedder(self._crops)
        self._outputs = torch.empty(self._parts.shape, dtype=torch.float32).pin_memory()

    def __call__(self) -> Tensor:
        """See Step."""
        with torch.cuda.stream(self._stream):
            self._crops.copy_(self.inputs, non_blocking=True)
            self._graph.replay()
            self._outputs.copy_(self._parts, non_blocking=True)
        self._stream.synchronize()
        return self._outputs


def _half() -> torch.autocast:
    return torch.autocast("cuda", torch.float16, cache_enabled=False)  # cached casts would not be captured
