"""How an index is laid out: what follows from the gallery's size, and what an operator may set instead."""

import math
from dataclasses import dataclass

CELLS = (64, 65_536)
"""The least and the most cells."""


@dataclass(frozen=True)
class Tuning:
    """The knobs of the index in the process.

    exact_limit: crops up to which each is compared with every query. code_dims, code: a crop's embedding is projected
    on that many directions, and kept as FAISS's code of that name. cells: parts that the codes are sorted into; by
    default from the gallery's size. recall: the share of the true matches that a search shall find, from which follows
    how many cells it looks into, unless `probes` says it, of how many crops it looks at the fine codes, unless
    `candidates` says it, and how many it compares exactly, unless `finalists` says it. narrow_limit: crops that pass a
    filter up to which each is compared; sifted_limit: up to which the fine code of each is looked at. fresh_limit: new
    crops beside the codes before they are moved among them.
    """

    exact_limit: int = 50_000
    code_dims: int = 256
    code: str = "PQ64x4fs"
    cells: int | None = None
    recall: float = 0.99
    probes: int | None = None
    candidates: int | None = None
    finalists: int | None = None
    narrow_limit: int = 2_000
    sifted_limit: int = 20_000
    fresh_limit: int = 500

    def cells_for(self, crops: int) -> int:
        """Cells for a gallery of that size: about four times its square root, a power of two."""
        if self.cells is not None:
            return self.cells
        least, most = CELLS
        exponent = round(math.log2(4 * math.sqrt(max(1, crops))))
        return int(min(most, max(least, 2**exponent)))

    def outgrown(self, cells: int, crops: int) -> bool:
        """Whether a gallery has grown, or shrunk, so far that its codes should be laid out anew."""
        wanted = self.cells_for(crops)
        return wanted >= 2 * cells or wanted * 4 <= cells
