"""On a GPU: CUDA graphs reproduce the reference embeddings, and batches do not affect each other."""

from pathlib import Path

import numpy as np
import pytest

from app.embedding.engine import load_engines
from app.embedding.start_up import check
from model.checkpoint import BUNDLED
from model.reference import patches

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.gpu

CHECKPOINTS = sorted(BUNDLED.parent.glob("*.safetensors"))


@pytest.mark.parametrize("path", CHECKPOINTS, ids=[path.stem for path in CHECKPOINTS])
def test_the_engine_reproduces_the_reference_embeddings_in_batches_of_any_size(path: Path) -> None:
    engines = load_engines(path)
    assert len(engines.workers) == torch.cuda.device_count()
    for engine in engines.distinct:
        check(engine)
        crops = np.ascontiguousarray(patches(130, engine.metadata.input.size, seed=3))
        alone = np.concatenate([engine.embed(crops[i : i + 1]) for i in range(len(crops))])
        for count in (2, 5, 17, 65, 128, 130):
            assert np.abs(engine.embed(crops[:count]) - alone[:count]).max() < 1e-3


def test_a_batch_does_not_affect_the_next_one() -> None:
    engine = load_engines(CHECKPOINTS[0]).workers[0]
    crops = np.ascontiguousarray(patches(64, engine.metadata.input.size, seed=5))
    first = engine.embed(crops)
    for _ in range(20):
        engine.embed(crops[::-1].copy())
        assert np.array_equal(engine.embed(crops), first)
