"""FAISS's exact comparison, and what a tier of the index finds with it."""

from dataclasses import dataclass

import faiss
import numpy as np
from numpy.typing import NDArray

from model.architecture import EMBEDDING_DIM


@dataclass(frozen=True, eq=False)
class TierFound:
    """What one tier gives for a query, in any order: keys `(N,)`, similarities `(N,)`, and how many crops pass."""

    keys: NDArray[np.int64]
    similarities: NDArray[np.float32]
    compared: int


def as_float32(embeddings: NDArray[np.float16]) -> NDArray[np.float32]:
    """Finite numbers of half precision in single precision, in a quarter of the time that NumPy takes.

    Shifted into place, the exponent is too small by 112, the difference of both formats' biases.
    """
    bits = np.left_shift(embeddings.view(np.int16), 13, dtype=np.int32).view(np.uint32)
    bits &= np.uint32(0x8FFF_E000)  # of the sign, which the shift has multiplied, one bit
    numbers = bits.view(np.float32)
    numbers *= np.float32(2.0**112)
    return numbers


def nearest(
    query: NDArray[np.float32], embeddings: NDArray[np.float32], among: NDArray[np.int64] | None, top_k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Similarities and rows of the `top_k` embeddings that are most similar to a query, best first, or all if fewer.

    It is the search inside FAISS's IndexFlatIP: what it makes of a row depends on nothing beside it, so that equal
    embeddings have equal similarities wherever they lie. among: ascending; only these rows.
    """
    count = min(top_k, len(embeddings) if among is None else len(among))
    similarities = np.empty(count, np.float32)
    rows = np.empty(count, np.int64)
    if count:
        faiss.knn_inner_product(
            faiss.swig_ptr(query),
            faiss.swig_ptr(embeddings),
            EMBEDDING_DIM,
            1,
            len(embeddings),
            count,
            faiss.swig_ptr(similarities),
            faiss.swig_ptr(rows),
            None if among is None else faiss.IDSelectorArray(among),
        )
    return similarities, rows


def all_similarities(query: NDArray[np.float32], embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
    """Those of a query `(2048,)` and each of the embeddings `(N, 2048)`, in their order: the same that `nearest` gives.

    In this thread alone. NumPy's product shares the work out to threads that wait for each other, which takes many
    times as long as soon as another process wants the cores.
    """
    similarities = np.empty(len(embeddings), np.float32)
    faiss.fvec_inner_products_ny(  # type: ignore[attr-defined]  # FAISS's stubs leave it out
        faiss.swig_ptr(similarities), faiss.swig_ptr(query), faiss.swig_ptr(embeddings), EMBEDDING_DIM, len(embeddings)
    )
    return similarities
