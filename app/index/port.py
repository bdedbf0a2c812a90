"""The port of the vector index: what goes in, what is asked, what comes back, and what every adapter keeps to."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

SHARED = ".rows"
"""The suffix of saved files that the index goes on writing, and checks by itself."""


class SnapshotError(Exception):
    """Saved files do not hold the index that they should hold."""


class IndexUnreachable(Exception):
    """The server that keeps the index does not do what it is asked to, now."""


class IndexLost(Exception):
    """The server that should keep the index has it no more."""


@dataclass(frozen=True)
class CropColumns:
    """What filters look at. `captured_at` in microseconds since 1970 UTC.

    `attributes` is the text of a JSON object as `canonical_json` writes it, None where it would be empty.
    """

    camera_id: str
    captured_at: int
    track_id: str | None = None
    person_id: str | None = None
    attributes: str | None = None


@dataclass(frozen=True, eq=False)
class Addition:
    """A crop that came into the gallery as change number `sequence`; `embedding` is `(2048,)` of norm 1."""

    sequence: int
    key: int
    embedding: NDArray[np.float16]
    columns: CropColumns


@dataclass(frozen=True)
class Removal:
    """A crop that left the gallery as change number `sequence`."""

    sequence: int
    key: int


Change = Addition | Removal


@dataclass(frozen=True)
class Filter:
    """Which crops a search looks at: those that pass every test. A field left as it is tests nothing.

    Times in microseconds since 1970 UTC; `captured_from` is the first that passes, `captured_to` the first that does
    not pass any more. `attributes` are pairs of a name and the `canonical_json` of its value: a crop passes that has
    all of them.
    """

    camera_ids: frozenset[str] = frozenset()
    exclude_camera_ids: frozenset[str] = frozenset()
    captured_from: int | None = None
    captured_to: int | None = None
    person_id: str | None = None
    track_id: str | None = None
    attributes: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True)
class Hit:
    """A crop that was found; `similarity` is the dot product with the query."""

    key: int
    similarity: float


@dataclass(frozen=True)
class Found:
    """The answer to a search: hits, best first; how many crops passed the filter; how many there are in all."""

    hits: tuple[Hit, ...]
    compared: int
    gallery_size: int


@dataclass(frozen=True)
class SavedState:
    """What an index wrote down: `size` crops of one model, complete up to change number `last_sequence`."""

    model_id: str
    size: int
    last_sequence: int


class VectorIndex(Protocol):
    """The embeddings of one model's crops, searchable. A cache: the database can rebuild it at any time.

    Everything here blocks and may be called by any thread: searches run together, changes alone. Where a server keeps
    the index, all but `model_id` raise IndexUnreachable or IndexLost.
    """

    @property
    def model_id(self) -> str:
        """The model whose embeddings these are."""

    @property
    def size(self) -> int:
        """How many crops can be found."""

    @property
    def last_sequence(self) -> int:
        """The number of the last change that was applied; 0 before the first."""

    def apply(self, changes: Sequence[Change]) -> tuple[int, ...]:
        """Apply changes in ascending order of their sequence, so that they are found, or not found, from now on.

        May be repeated: changes up to `last_sequence` are passed over, and so is the removal of a key that is not
        there. A key that is there may be added again with what it has already, as no crop ever changes; that changes
        nothing. Returns the keys of additions that were refused because their embedding is not 2048 finite numbers;
        the other changes are applied nevertheless.
        """

    def load(self, rows: Sequence[Addition], last_sequence: int) -> tuple[int, ...]:
        """Take in crops whatever their sequence, for a rebuild from the rows of the database.

        `last_sequence` is that of the database before the first row was read: changes after it will come, again
        or for the first time. May be called many times, also with no rows. Returns refused keys as `apply` does.
        """

    def search(
        self, query: NDArray[np.float32], which: Filter, top_k: int, min_similarity: float | None = None
    ) -> Found:
        """The `top_k` crops that pass the filter and are most similar to a query `(2048,)`, or all if fewer.

        Equal similarities come in ascending order of the key; which of several equal ones is the last of the
        `top_k` is not fixed. Raises ValueError if the query is not 2048 finite numbers or `top_k` is below 1.
        """

    def upkeep(self) -> Sequence[int]:
        """Do what keeps the index small and fast, if there is something to do, however long that takes.

        Everything else goes on meanwhile, without longer pauses; but upkeep itself is for one thread at a time.
        Returns the keys of crops whose embeddings the disk has damaged, again each time until they are loaded again or
        removed. Raises OSError where the disk is full; everything is as it was then.
        """

    def close(self) -> None:
        """End upkeep that is under way, and let go of what the index holds beside memory."""


class SnapshotIndex(VectorIndex, Protocol):
    """An index in the memory of its process, which snapshots keep for the next one."""

    def save(self, folder: Path) -> SavedState:
        """Write the index into an empty folder, while searches and changes go on, and say what was written.

        Files are as they stay, but for those with the suffix `SHARED`.

        The adapter's `restore(folder, state)` brings it back or raises SnapshotError; a crop that was removed
        meanwhile may be missing, and comes right with the changes after `last_sequence`.
        """
