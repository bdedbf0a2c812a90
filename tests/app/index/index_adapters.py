"""The adapters of the index port, as the contract suite runs them. A new one adds itself to ADAPTERS or SERVERS.

PASSERBY_TEST_MILVUS_URL names a Milvus server, other than the Milvus Lite that tests start, that is to pass, too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from index_factories import MODEL
from tier_factories import SMALL

from app.index.faiss_index import FaissIndex
from app.index.port import Change, SavedState, SnapshotIndex
from app.index.tuning import Tuning


@dataclass(frozen=True)
class Adapter:
    """How an adapter's indexes come to be."""

    new: Callable[[Path], SnapshotIndex]
    restore: Callable[[Path, SavedState, Path], SnapshotIndex]


class KeptUp(FaissIndex):
    """Does its upkeep after each change, so that crops move between the tiers all the time."""

    def apply(self, changes: Sequence[Change]) -> tuple[int, ...]:
        refused = super().apply(changes)
        assert not self.upkeep()
        return refused


def faiss(kind: type[FaissIndex], tuning: Tuning, block_rows: int = 4096) -> Adapter:
    def restore(folder: Path, state: SavedState, working: Path) -> SnapshotIndex:
        return kind.restore(folder, state, working=working, tuning=tuning, block_rows=block_rows)

    return Adapter(lambda working: kind(MODEL, working, tuning, block_rows), restore)


TIERED = replace(SMALL, exact_limit=4, cells=2, probes=1, candidates=1, finalists=1, fresh_limit=2)
ADAPTERS = {
    "faiss exact": faiss(FaissIndex, Tuning()),
    "faiss exact, many blocks": faiss(FaissIndex, Tuning(), block_rows=4),
    "faiss tiered, few pass": faiss(KeptUp, replace(TIERED, narrow_limit=1000)),
    "faiss tiered, many pass": faiss(KeptUp, replace(TIERED, probes=2, candidates=1000, finalists=1000)),
}

SERVERS = {"milvus lite": "milvus_lite", "milvus": "milvus"}
"""The fixture that gives a server's address."""
