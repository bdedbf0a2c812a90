"""Before an engine serves: the check of its embeddings, and the measurement of its batch size."""

import time
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from app.embedding.engine import EngineError, load_engines
from app.embedding.start_up import best_batch_size, check
from model.reference import Reference
from tests.app.tiny_checkpoint import tiny_metadata, write_tiny_checkpoint


def test_an_engine_that_reproduces_the_reference_embeddings_passes(tmp_path: Path) -> None:
    plain = load_engines(write_tiny_checkpoint(tmp_path / "plain.onnx")).workers[0]
    reference = Reference.of(plain.embed, (64, 32))
    metadata = tiny_metadata().model_copy(update={"reference": reference})
    check(load_engines(write_tiny_checkpoint(tmp_path / "reference.onnx", metadata)).workers[0])


def test_an_engine_with_other_embeddings_is_refused(tmp_path: Path) -> None:
    reference = Reference.of(lambda crops: np.ones((len(crops), 8, 256), np.float32), (64, 32))
    other = tiny_metadata().model_copy(update={"reference": reference})
    with pytest.raises(EngineError, match=r"tiny-\w+ computes wrongly on this machine: .* cosine of -?0\.\d+"):
        check(load_engines(write_tiny_checkpoint(tmp_path / "other.onnx", other)).workers[0])


def test_a_checkpoint_without_reference_embeddings_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    check(load_engines(write_tiny_checkpoint(tmp_path / "plain.onnx", referenced=False)).workers[0])
    assert "has no reference embeddings" in caplog.text


class Timed:
    """An engine whose batches take a fixed time and a time for each crop, in seconds."""

    def __init__(self, fixed: float, each: float) -> None:
        self.metadata = tiny_metadata(64, 32)
        self.sizes: list[int] = []
        self._fixed = fixed
        self._each = each

    def embed(self, crops: NDArray[np.uint8]) -> NDArray[np.float32]:
        self.sizes.append(len(crops))
        time.sleep(self._fixed + self._each * len(crops))
        return np.zeros((len(crops), 8, 256), dtype=np.float32)


def test_batches_stay_small_where_size_gains_nothing() -> None:
    assert best_batch_size(Timed(0.0, 0.01)) == 8  # of 4 crops, one lasts 40 ms


def test_batches_grow_while_the_speed_grows() -> None:
    assert best_batch_size(Timed(0.02, 0.0001)) >= 64


def test_batches_that_would_delay_searches_are_not_tried() -> None:
    engine = Timed(0.1, 0.03)
    best_batch_size(engine)
    assert max(engine.sizes) == 8
