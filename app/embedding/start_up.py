"""What an engine has to do before it serves: prove that it computes rightly, and show which batches suit it."""

import time
from itertools import takewhile

import numpy as np
import structlog

from app.embedding.engine import Engine, EngineError
from model.reference import LOWEST_COSINE, patches

BATCH_SIZES = (2, 4, 8, 16, 32, 64, 128)

LONGEST_BATCH_SECONDS = 0.3
"""A search that comes while a batch runs waits for its end."""

NEARLY_BEST = 0.97
"""A smaller batch is taken where it reaches this share of the best speed."""

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
            "of the checkpoint (.onnx, .safetensors, or without int8) or another machine"
        )


def best_batch_size(engine: Engine) -> int:
    """Measure batches of growing size: the smallest that is nearly as fast, crop by crop, as the fastest.

    Sizes whose batch takes longer than LONGEST_BATCH_SECONDS are not tried further, so that searches do not wait.
    """
    seconds: dict[int, float] = {}
    for size in takewhile(lambda _: max(seconds.values(), default=0) <= LONGEST_BATCH_SECONDS, BATCH_SIZES):
        seconds[size] = _seconds(engine, size)
    speeds = {size: size / took for size, took in seconds.items()}
    best = max(speeds.values())
    return next(size for size, speed in speeds.items() if speed >= NEARLY_BEST * best)


def _seconds(engine: Engine, size: int) -> float:
    """The quickest of a few calls: what else the machine does only ever adds time."""
    crops = np.ascontiguousarray(patches(size, engine.metadata.input.size, seed=size))
    took = []
    for _ in range(_CALLS):
        began = time.perf_counter()
        engine.embed(crops)
        took.append(time.perf_counter() - began)
    return min(took)
