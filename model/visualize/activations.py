"""Activation maps of a network's three branches."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.checkpoint import Checkpoint
from model.evaluate import BATCH_SIZE
from model.mgn import Embedder, load_embedder
from model.pictures import read_inputs

Maps = tuple[NDArray[np.float32], ...]
"""One map `(h, w)` for each branch; the last two have twice the height and width of the first."""


def activation_maps(checkpoint: Checkpoint, paths: Sequence[Path]) -> dict[Path, Maps]:
    """The maps of every crop: sums of squares over a branch's channels (Zagoruyko and Komodakis, ICLR 2017).

    Raises DataError for a file that is not a picture, CheckpointError for weights that do not fit.
    """
    embedder = load_embedder(checkpoint)
    unique_paths = list(dict.fromkeys(paths))
    maps: dict[Path, Maps] = {}
    for start in range(0, len(unique_paths), BATCH_SIZE):
        batch = unique_paths[start : start + BATCH_SIZE]
        crops = torch.from_numpy(read_inputs(batch, checkpoint.metadata.input))
        maps |= dict(zip(batch, zip(*_branch_maps(embedder, crops), strict=True), strict=True))
    return maps


def _branch_maps(embedder: Embedder, crops: Tensor) -> list[NDArray[np.float32]]:
    """`(N, H, W, 3)` uint8 RGB -> one `(N, h, w)` float32 for each branch."""
    energies: dict[nn.Module, Tensor] = {}

    def record(branch: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        energies[branch] = output.float().square().sum(dim=1)

    handles = [branch.register_forward_hook(record) for branch in embedder.mgn.branches]
    try:
        with torch.inference_mode():
            embedder.mgn(embedder.normalise(crops))
    finally:
        for handle in handles:
            handle.remove()
    return [energies[branch].numpy() for branch in embedder.mgn.branches]
