"""What an engine has to do before it serves: prove that it computes rightly, and show which batches suit it."""

import time

import numpy as np
import structlog

from app.embedding.engine import Engine, EngineError
from model.reference import LOWEST_COSINE, patches

BATCH_SIZES = (2, 4, 8, 16, 32, 64, 128)

LEAST_BATCH_SECONDS = 0.05
"""Below that, handing batches over costs more than a percent or two of an engine's time."""

LONGEST_BATCH_SECONDS = 0.3
"""A search that comes while a batch runs waits for its end."""

WORTH_DOUBLING = 1.03
"""Twice the batch is taken where it is faster, crop by crop, by this factor."""

_CALLS = 3


def check(engine: Engine) -> None:
    """Compare an engine's embeddings of the reference crops with those in its checkpoint.

    Raises EngineError where they differ: another processor or library computes what the checkpoint does not mean.
    """
    metadata = engine.metadata
    if metadata.reference is None:
        structlog.get_logger().warning(
            "the checkpoint carries no reference embeddings, so nothing tells whether the engine computes rightly; "
            "`python -m model export` adds them",
            model_id=metadata.model_id,
        )
        return
    cosine = metadata.reference.lowest_cosine(engine.embed, metadata.input.size)
    if not cosine >= LOWEST_COSINE:
        raise EngineError(
            f"{metadata.model_id} computes wrongly on this machine: its embeddings of the reference crops have a "
            f"cosine of {cosine:.4f} to those in the checkpoint, at least {LOWEST_COSINE} is wanted; take another form "
            "of the checkpoint (.onnx, .safetensors, or without int8), another engine or another machine"
        )


def best_batch_size(engine: Engine) -> int:
    """Measure batches of growing size, until one lasts long enough and twice as many crops would not be worth it."""
    best, lasted = BATCH_SIZES[0], _seconds(engine, BATCH_SIZES[0])
    for size in BATCH_SIZES[1:]:
        seconds = _seconds(engine, size)
        gain = (size / seconds) / (best / lasted)
        if seconds > LONGEST_BATCH_SECONDS or (lasted > LEAST_BATCH_SECONDS and gain < WORTH_DOUBLING):
            break
        best, lasted = size, seconds
    return best


def _seconds(engine: Engine, size: int) -> float:
    """The quickest of a few calls: what else the machine does only ever adds time."""
    crops = np.ascontiguousarray(patches(size, engine.metadata.input.size, seed=size))
    took = []
    for _ in range(_CALLS):
        began = time.perf_counter()
        engine.embed(crops)
        took.append(time.perf_counter() - began)
    return min(took)
