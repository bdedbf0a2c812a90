"""Exact comparison by FAISS's kernels, and the result of one part of the index."""

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from model.architecture import EMBEDDING_DIM

UNTYPED_FAISS: Any = faiss
"""FAISS without its stubs, which leave out the arguments of search parameters and the types of downcast indexes."""


NO_CROP = -np.inf
"""The similarity of a place in a `PartialResult` that holds no crop."""


@dataclass(frozen=True, eq=False)
class PartialResult:
    """The results of the write buffer or the segment: for each query a row of keys and similarities, `(N, K)`.

    They are in any order; places that hold no crop have the similarity NO_CROP. compared: number of crops that pass the
    filter.
    """

    keys: NDArray[np.int64]
    similarities: NDArray[np.float32]
    compared: int


def as_float32(embeddings: NDArray[np.float16]) -> NDArray[np.float32]:
    """Convert finite half-precision numbers to single precision, in a quarter of NumPy's time.

    After the shift, the exponent is too small by 112, the difference of the two formats' biases.
    """
    bits = np.left_shift(embeddings.view(np.int16), 13, dtype=np.int32).view(np.uint32)
    bits &= np.uint32(0x8FFF_E000)  # sign extension copied the sign bit; keep one copy
    numbers = bits.view(np.float32)
    numbers *= np.float32(2.0**112)
    return numbers


def nearest(
    queries: NDArray[np.float32], embeddings: NDArray[np.float32], selected: NDArray[np.int64] | None, top_k: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Similarities and rows of the `top_k` embeddings most similar to each query `(N, 2048)`, best first, or of all.

    This is the kernel of FAISS's IndexFlatIP. With fewer than 20 queries, the similarity of a row depends on no other
    one, so equal embeddings have equal similarities. selected: ascending rows to compare, or None for all.
    """
    count = min(top_k, len(embeddings) if selected is None else len(selected))
    similarities = np.empty((len(queries), count), np.float32)
    rows = np.empty((len(queries), count), np.int64)
    if count:
        faiss.knn_inner_product(
            faiss.swig_ptr(queries),
            faiss.swig_ptr(embeddings),
            EMBEDDING_DIM,
            len(queries),
            len(embeddings),
            count,
            faiss.swig_ptr(similarities),
            faiss.swig_ptr(rows),
            None if selected is None else faiss.IDSelectorArray(selected),
        )
    return similarities, rows
