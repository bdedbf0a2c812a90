"""The tuning of the index in the process: what follows from the gallery's size and what an operator may set."""

import math
from dataclasses import dataclass

NLIST_LIMITS = (64, 65_536)
"""The smallest and the largest number of inverted lists."""


@dataclass(frozen=True)
class Tuning:
    """The parameters of the index in the process.

    exact_limit: up to this number of crops there is no segment, and each crop is compared with every query. pca_dims:
    dimensions of the projection. code: FAISS's name of the code of a projection. nlist: number of inverted lists; None
    derives it from the number of crops. recall: share of the true matches that a search should find. nprobe: number of
    lists to search; candidates: number of crops to refine by SQ8 codes; refined: number of crops to compare exactly;
    where these are None, they are autotuned for `recall`. exact_filter_limit: if at most this many crops pass a filter,
    all are compared exactly. refine_filter_limit: if at most this many pass, all are refined by SQ8 codes. flush_limit:
    size of the write buffer from which its crops move to the segment.
    """

    exact_limit: int = 50_000
    pca_dims: int = 256
    code: str = "PQ64x4fs"
    nlist: int | None = None
    recall: float = 0.99
    nprobe: int | None = None
    candidates: int | None = None
    refined: int | None = None
    exact_filter_limit: int = 2_000
    refine_filter_limit: int = 20_000
    flush_limit: int = 500

    def nlist_for(self, crops: int) -> int:
        """Number of lists for this many crops: about four times the square root, a power of two."""
        if self.nlist is not None:
            return self.nlist
        least, most = NLIST_LIMITS
        exponent = round(math.log2(4 * math.sqrt(max(1, crops))))
        return int(min(most, max(least, 2**exponent)))

    def outgrown(self, nlist: int, crops: int) -> bool:
        """Whether a segment of this many crops should be rebuilt because it has far too few or too many lists."""
        wanted = self.nlist_for(crops)
        return wanted >= 2 * nlist or wanted * 4 <= nlist
