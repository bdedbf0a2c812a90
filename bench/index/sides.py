"""The indexes of each comparison: Passerby's, restored from a snapshot as at the start of a service, and the others."""

import shutil
import time
from pathlib import Path

import numpy as np

from app.index.faiss_index import FaissIndex
from app.index.port import SavedState
from bench.index.gallery import Gallery
from bench.index.searchers import Flat, Hnswlib, MilvusLite, Passerby, Pgvector, Searcher, Usearch


def passerby(gallery: Gallery) -> Searcher:
    """Passerby's index, restored from a snapshot."""
    return Restored(gallery)


def flat(gallery: Gallery) -> Searcher:
    """FAISS's exact index."""
    return Flat()


def hnswlib(gallery: Gallery) -> Searcher:
    """hnswlib."""
    return Hnswlib()


def usearch(gallery: Gallery) -> Searcher:
    """usearch."""
    return Usearch()


def milvus_lite(gallery: Gallery) -> Searcher:
    """Milvus Lite."""
    return MilvusLite(empty_folder(gallery, "milvus"))


def pgvector(gallery: Gallery) -> Searcher:
    """PostgreSQL with pgvector."""
    return Pgvector(empty_folder(gallery, "pgvector"))


PEERS = {"hnswlib": hnswlib, "usearch": usearch, "Milvus Lite": milvus_lite, "pgvector": pgvector}


class Restored(Passerby):
    """Passerby's index restored from a snapshot, which is created by the first call for a gallery."""

    def __init__(self, gallery: Gallery) -> None:
        super().__init__()
        self._snapshot = gallery.folder / "snapshot"
        self._gallery = gallery
        self.seconds_to_restore = 0.0

    def build(self, embeddings: np.ndarray) -> None:
        """Restore the index."""
        if not self._snapshot.exists():
            _snapshot(self._gallery, self._snapshot)
        self.embeddings = embeddings
        begun = time.perf_counter()
        self.index = FaissIndex.restore(self._snapshot, _state(len(embeddings)))
        self.seconds_to_restore = time.perf_counter() - begun


def restored(gallery: Gallery) -> Restored:
    """Passerby's index in this process."""
    side = Restored(gallery)
    side.build(gallery.embeddings)
    return side


def empty_folder(gallery: Gallery, name: str) -> Path:
    """Create an empty folder in the gallery's folder."""
    folder = gallery.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _state(size: int) -> SavedState:
    return SavedState("mgn-bench", size, 0)


def _snapshot(gallery: Gallery, folder: Path) -> None:
    """Build an index as the service does from the database's rows, and save it."""
    built = Passerby()
    built.build(gallery.embeddings)
    draft = empty_folder(gallery, "draft")
    built.index.save(draft)
    draft.rename(folder)
