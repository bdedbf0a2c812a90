"""Parity of embeddings: this device's engine against each checkpoint's reference, and between batch sizes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from app.embedding.engine import Engine
from app.embedding.torch_engine import TorchEngine
from app.kit.cores import available_cores
from bench.gpu.findings import Finding, Scale
from bench.networks import save_resnet50
from model.checkpoint import BUNDLED
from model.reference import MIN_COSINE, patches

MAX_DEVIATION = 1e-3
"""The largest allowed change of an embedding's components by other crops in the batch."""


def checkpoints(folder: Path) -> list[Path]:
    """The bundled checkpoints that torch can run, and the paper's MGN with random weights, written into `folder`."""
    save_resnet50(folder)
    return [*sorted(BUNDLED.parent.glob("*.safetensors")), folder / "resnet50.safetensors"]


def findings(paths: list[Path], device: torch.device, scale: Scale) -> Iterator[Finding]:
    """Two lines for each checkpoint."""
    for path in paths:
        engine = TorchEngine(path, device, available_cores())
        yield _reference(path.stem, engine)
        yield _batch_independence(path.stem, engine, scale)


def _reference(name: str, engine: Engine) -> Finding:
    reference = engine.metadata.reference
    if reference is None:
        raise ValueError(f"{name} has no reference embeddings")
    cosine = reference.lowest_cosine(engine.embed, engine.metadata.input.size)
    what = f"{name}: lowest cosine to its reference embeddings"
    return Finding("parity", what, f"{cosine:.6f}", f"at least {MIN_COSINE}", cosine >= MIN_COSINE)


def _batch_independence(name: str, engine: Engine, scale: Scale) -> Finding:
    count = max(scale.batches) + 1
    crops = np.ascontiguousarray(patches(count, engine.metadata.input.size, seed=7))
    alone = np.concatenate([engine.embed(crops[i : i + 1]) for i in range(count)])
    deviation = max(float(np.abs(engine.embed(crops[:size]) - alone[:size]).max()) for size in (*scale.batches, count))
    what = f"{name}: largest change of a component by the batch, up to {count} crops"
    return Finding("parity", what, f"{deviation:.1e}", f"at most {MAX_DEVIATION:.0e}", deviation <= MAX_DEVIATION)
