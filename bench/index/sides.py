"""The indexes of each comparison: Passerby's, restored from a snapshot as at the start of a service, and the others."""

import os
import shutil
import time
from pathlib import Path

import numpy as np

from app.index.faiss_index import FaissIndex
from app.index.port import SHARED_SUFFIX, SavedState
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

    def __init__(self, gallery: Gallery, snapshot: str = "snapshot") -> None:
        """snapshot: the name of its folder in the gallery's folder."""
        self._snapshot = gallery.folder / snapshot
        self._working = empty_folder(gallery, "working")
        self._gallery = gallery
        self.seconds_to_restore = 0.0

    def build(self, embeddings: np.ndarray) -> None:
        if not self._snapshot.exists():
            _snapshot(self._gallery, self._snapshot)
        begun = time.perf_counter()
        self.index = FaissIndex.restore(self._snapshot, _state(len(embeddings)), working=self._working)
        self.seconds_to_restore = time.perf_counter() - begun


def evict_files(gallery: Gallery) -> None:
    """Evict the embeddings and SQ8 codes from the page cache."""
    restored(gallery).index.close()  # creates a snapshot that no process has mapped
    for path in (gallery.folder / "snapshot").glob(f"*{SHARED_SUFFIX}"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def restored_copy(gallery: Gallery) -> Restored:
    """An index with its own copy of the snapshot, because compaction overwrites rows in files of the snapshot."""
    restored(gallery).index.close()  # creates a snapshot
    copied = empty_folder(gallery, "copied")
    shutil.copytree(gallery.folder / "snapshot", copied, dirs_exist_ok=True)
    return restored(gallery, copied.name)


def restored(gallery: Gallery, snapshot: str = "snapshot") -> Restored:
    """Passerby's index in this process."""
    side = Restored(gallery, snapshot)
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

    built = Passerby(empty_folder(gallery, "building"))
    built.build(gallery.embeddings)
    draft = empty_folder(gallery, "draft")
    built.index.save(draft)
    draft.rename(folder)
    built.index.close()
