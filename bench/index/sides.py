"""The sides of each comparison: Passerby's index as a service that was just started has it, and its peers."""

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
    """Passerby's index, all of it, as a service that was just started has it."""
    return Started(gallery)


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
    return MilvusLite(fresh(gallery, "milvus"))


def pgvector(gallery: Gallery) -> Searcher:
    """PostgreSQL with pgvector."""
    return Pgvector(fresh(gallery, "pgvector"))


PEERS = {"hnswlib": hnswlib, "usearch": usearch, "Milvus Lite": milvus_lite, "pgvector": pgvector}


class Started(Passerby):
    """Passerby's index restored from a snapshot, which an earlier call for the same gallery may have made."""

    def __init__(self, gallery: Gallery, snapshot: str = "snapshot") -> None:
        """snapshot: the name of its folder beside the gallery."""
        self._snapshot = gallery.folder / snapshot
        self._working = fresh(gallery, "working")
        self._gallery = gallery
        self.seconds_to_restore = 0.0

    def build(self, embeddings: np.ndarray) -> None:
        if not self._snapshot.exists():
            _snapshot(self._gallery, self._snapshot)
        begun = time.perf_counter()
        self.index = FaissIndex.restore(self._snapshot, _state(len(embeddings)), working=self._working)
        self.seconds_to_restore = time.perf_counter() - begun


def forget_files(gallery: Gallery) -> None:
    """Have the system's cache drop the embeddings and fine codes that searches read."""
    started(gallery).index.close()  # so that there is a snapshot, which nobody has mapped
    for path in (gallery.folder / "snapshot").glob(f"*{SHARED_SUFFIX}"):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def started_to_be_changed(gallery: Gallery) -> Started:
    """An index with a snapshot of its own: what an index removes, it wipes in the file that its snapshot shares."""
    started(gallery).index.close()  # so that there is one
    copied = fresh(gallery, "copied")
    shutil.copytree(gallery.folder / "snapshot", copied, dirs_exist_ok=True)
    return started(gallery, copied.name)


def started(gallery: Gallery, snapshot: str = "snapshot") -> Started:
    """Passerby's index in this process."""
    side = Started(gallery, snapshot)
    side.build(gallery.embeddings)
    return side


def fresh(gallery: Gallery, name: str) -> Path:
    """An empty folder beside the gallery."""
    folder = gallery.folder / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder


def _state(size: int) -> SavedState:
    return SavedState("mgn-bench", size, 0)


def _snapshot(gallery: Gallery, folder: Path) -> None:
    """Build an index as the service does from its rows, and save it."""
    built = Passerby(fresh(gallery, "building"))
    built.build(gallery.embeddings)
    draft = fresh(gallery, "draft")
    built.index.save(draft)
    draft.rename(folder)
    built.index.close()
