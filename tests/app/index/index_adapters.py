"""The adapters that the contract suite tests. Add a new one to ADAPTERS or SERVERS.

TEST_MILVUS_URL is the address of a Milvus server to test, in addition to the Milvus Lite that tests start.
"""

import atexit
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp

import numpy as np

from app.index.faiss_index import FaissIndex, Tuning
from app.index.port import Change, SavedState, SnapshotIndex
from tests.app.index.index_factories import MODEL, embedding


@dataclass(frozen=True)
class Adapter:
    """Creates and restores indexes of an adapter."""

    new: Callable[[], SnapshotIndex]
    restore: Callable[[Path, SavedState], SnapshotIndex]


class Maintained(FaissIndex):
    """Runs maintenance after each change, so that crops move to the segment all the time."""

    def apply(self, changes: Sequence[Change]) -> tuple[int, ...]:
        refused = super().apply(changes)
        self.maintain()
        return refused


WITH_SEGMENT = Tuning(exact_limit=0, flush_rows=2)


@cache
def trained() -> tuple[Path, SavedState]:
    """A snapshot of an empty index with a segment, which takes a second to train."""
    folder = Path(mkdtemp())
    atexit.register(rmtree, folder)
    index = FaissIndex(MODEL, WITH_SEGMENT)
    index.prepare(np.stack([embedding(key) for key in range(1000)]), 1000)
    return folder, index.save(folder)


def with_segment() -> FaissIndex:
    return Maintained.restore(*trained(), tuning=WITH_SEGMENT)


ADAPTERS = {
    "faiss, write buffer": Adapter(partial(FaissIndex, MODEL), FaissIndex.restore),
    "faiss, segment": Adapter(with_segment, partial(Maintained.restore, tuning=WITH_SEGMENT)),
}

SERVERS = {"milvus lite": "milvus_lite", "milvus": "milvus"}
"""The fixture of each server's address."""
