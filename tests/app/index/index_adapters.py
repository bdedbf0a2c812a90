"""The adapters that the contract suite tests. Add a new one to ADAPTERS or SERVERS.

TEST_MILVUS_URL is the address of a Milvus server to test, in addition to the Milvus Lite that tests start.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from index_factories import MODEL
from segment_factories import SMALL

from app.index.faiss_index import FaissIndex
from app.index.port import Change, SavedState, SnapshotIndex
from app.index.tuning import Tuning


@dataclass(frozen=True)
class Adapter:
    """Creates and restores indexes of an adapter."""

    new: Callable[[Path], SnapshotIndex]
    restore: Callable[[Path, SavedState, Path], SnapshotIndex]


class Maintained(FaissIndex):
    """Runs maintenance after each change, so that crops move between buffer and segment all the time."""

    def apply(self, changes: Sequence[Change]) -> tuple[int, ...]:
        refused = super().apply(changes)
        assert not self.maintain()
        return refused


def faiss(kind: type[FaissIndex], tuning: Tuning, block_rows: int = 4096) -> Adapter:
    def restore(folder: Path, state: SavedState, working: Path) -> SnapshotIndex:
        return kind.restore(folder, state, working=working, tuning=tuning, block_rows=block_rows)

    return Adapter(lambda working: kind(MODEL, working, tuning, block_rows), restore)


WITH_SEGMENT = replace(SMALL, exact_limit=4, nlist=2, nprobe=1, candidates=1, refined=1, flush_limit=2)
ADAPTERS = {
    "faiss buffer": faiss(FaissIndex, Tuning()),
    "faiss buffer, many blocks": faiss(FaissIndex, Tuning(), block_rows=4),
    "faiss segment, few pass": faiss(Maintained, replace(WITH_SEGMENT, exact_filter_limit=1000)),
    "faiss segment, many pass": faiss(Maintained, replace(WITH_SEGMENT, nprobe=2, candidates=1000, refined=1000)),
}

SERVERS = {"milvus lite": "milvus_lite", "milvus": "milvus"}
"""The fixture of each server's address."""
