"""Before an engine serves: the check of its embeddings, and the measurement of its best batch size."""

import time

import numpy as np
import structlog

from app.embedding.engine import Engine, EngineError
from model.reference import MIN_COSINE, patches

_log = structlog.get_logger()

BATCH_SIZES = (2, 4, 8, 16, 32, 64, 128)

MIN_BATCH_SECONDS = 0.05
"""For shorter batches, handing them over costs more than one or two percent of an engine's time."""

MAX_BATCH_SECONDS = 0.3
"""The time that a search may have to wait for the running batch."""

WORTH_DOUBLING = 1.03
"""The least speed-up a crop for which the batch size is doubled."""

_CALLS = 3


def check(engine: Engine) -> None:
    """Compare an engine's embeddings of the reference crops with those in its checkpoint.

    Raises EngineError where they differ, as on a processor or with a library that computes wrongly.
    """
    metadata = engine.metadata
    if metadata.reference is None:
        _log.warning(
            "the checkpoint has no reference embeddings, so the engine cannot be checked; "
            "`python -m model export` adds them",
            model_id=metadata.model_id,
        )
        return
    cosine = metadata.reference.lowest_cosine(engine.embed, metadata.input.size)
    if not cosine >= MIN_COSINE:
        raise EngineError(
            f"{metadata.model_id} computes wrongly on this machine: its embeddings of the reference crops have a "
            f"cosine of {cosine:.4f} to those in the checkpoint, at least {MIN_COSINE} is required; use another "
            "form of the checkpoint (.onnx, .safetensors, or without int8), another engine or another machine"
        )


def best_batch_size(engine: Engine) -> int:
    """Measure batches of growing size until a batch is long enough and doubling it is not worth it."""
    best, best_seconds = BATCH_SIZES[0], _seconds(engine, BATCH_SIZES[0])
    for size in BATCH_SIZES[1:]:
        seconds = _seconds(engine, size)
        gain = (size / seconds) / (best / best_seconds)
        if seconds > MAX_BATCH_SECONDS or (best_seconds > MIN_BATCH_SECONDS and gain < WORTH_DOUBLING):
            break
        best, best_seconds = size, seconds
    return best


def _seconds(engine: Engine, size: int) -> float:
    """The fastest of a few calls, as other load only adds time."""
    crops = np.ascontiguousarray(patches(size, engine.metadata.input.size, seed=size))
    durations = []
    for _ in range(_CALLS):
        began = time.perf_counter()
        engine.embed(crops)
        durations.append(time.perf_counter() - began)
    return min(durations)
