"""The indexes of the comparisons: Passerby's, restored from a snapshot as at the start of a service, and its peers."""

import time
from pathlib import Path

import numpy as np

from app.index.faiss_index import FaissIndex
from app.index.port import SavedState
from bench.index.gallery import Gallery
from bench.index.searchers import Hnswlib, MilvusLite, Passerby, Pgvector, Searcher, Usearch, empty_folder

PEERS: dict[str, type[Searcher]] = {
    "hnswlib": Hnswlib,
    "usearch": Usearch,
    "Milvus Lite": MilvusLite,
    "pgvector": Pgvector,
}


class Restored(Passerby):
    """Passerby's index, restored from a snapshot that the first call for a gallery creates."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seconds_to_restore = 0.0

    def build(self, embeddings: np.ndarray) -> None:
        """Restore the index."""
        snapshot = self.folder / "snapshot"
        if not snapshot.exists():
            self._save(embeddings, snapshot)
        self.embeddings = embeddings
        began = time.perf_counter()
        self.index = FaissIndex.restore(snapshot, SavedState("mgn-bench", len(embeddings), 0))
        self.seconds_to_restore = time.perf_counter() - began

    def _save(self, embeddings: np.ndarray, snapshot: Path) -> None:
        """Build an index as the service does from the database's rows, and save it."""
        built = Passerby(self.folder)
        built.build(embeddings)
        draft = empty_folder(self.folder / "draft")
        built.index.save(draft)
        draft.rename(snapshot)


def restored(gallery: Gallery) -> Restored:
    """Passerby's index in this process."""
    index = Restored(gallery.folder)
    index.build(gallery.embeddings)
    return index
