"""The port of the vector index: changes, filters, results, and the contract of every adapter."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class SnapshotError(Exception):
    """The files of a snapshot are damaged or do not match its state."""


class IndexUnreachable(Exception):
    """A request to the index's server failed; a later one may succeed."""


class IndexLost(Exception):
    """The server no longer has the index."""


@dataclass(frozen=True)
class CropColumns:
    """The fields that filters test. `captured_at` in microseconds since 1970 UTC.

    `attributes` is a JSON object in the form of `canonical_json`, or None if it is empty.
    """

    camera_id: str
    captured_at: int
    track_id: str | None = None
    person_id: str | None = None
    attributes: str | None = None


@dataclass(frozen=True, eq=False)
class Addition:
    """Change number `sequence`: a crop was added to the gallery, or its fields were changed.

    `embedding` is `(2048,)` of norm 1; a crop keeps it for ever.
    """

    sequence: int
    key: int
    embedding: NDArray[np.float16]
    columns: CropColumns


@dataclass(frozen=True)
class Removal:
    """Change number `sequence`: a crop was deleted from the gallery."""

    sequence: int
    key: int


Change = Addition | Removal


@dataclass(frozen=True)
class OneOf:
    """The text of a column is one of several, or, if `negated`, none of them."""

    column: str
    texts: frozenset[str]
    negated: bool = False


@dataclass(frozen=True)
class AtLeast:
    """The number of a column is at least `bound`, or, if `negated`, below it."""

    column: str
    bound: int
    negated: bool = False


@dataclass(frozen=True)
class HasAttribute:
    """The attributes have this name with this value, as `canonical_json`."""

    name: str
    value: str


Condition = OneOf | AtLeast | HasAttribute


@dataclass(frozen=True)
class Filter:
    """The crops that a search considers: those that meet all conditions. A field with its default value sets none.

    Times in microseconds since 1970 UTC; `captured_from` is inclusive, `captured_to` exclusive. `attributes` are pairs
    of a name and the `canonical_json` of its value; a crop passes if it has all of them.
    """

    camera_ids: frozenset[str] = frozenset()
    exclude_camera_ids: frozenset[str] = frozenset()
    captured_from: int | None = None
    captured_to: int | None = None
    person_id: str | None = None
    track_id: str | None = None
    attributes: frozenset[tuple[str, str]] = frozenset()

    def conditions(self) -> list[Condition]:
        """The conditions that a crop must meet; their columns are the fields of `CropColumns`."""
        conditions: list[Condition] = []
        if self.camera_ids:
            conditions.append(OneOf("camera_id", self.camera_ids))
        if self.exclude_camera_ids:
            conditions.append(OneOf("camera_id", self.exclude_camera_ids, negated=True))
        if self.captured_from is not None:
            conditions.append(AtLeast("captured_at", self.captured_from))
        if self.captured_to is not None:
            conditions.append(AtLeast("captured_at", self.captured_to, negated=True))
        if self.person_id is not None:
            conditions.append(OneOf("person_id", frozenset({self.person_id})))
        if self.track_id is not None:
            conditions.append(OneOf("track_id", frozenset({self.track_id})))
        conditions += [HasAttribute(name, value) for name, value in sorted(self.attributes)]
        return conditions


@dataclass(frozen=True, eq=False)
class IndexResult:
    """The candidates for a query, best first: their keys and approximate similarities, both `(N,)`.

    The wanted crops are among the candidates, which may be more. An index may round embeddings, so the caller compares
    the stored embeddings of all candidates with the query. `compared`: number of crops that passed the filter;
    `gallery_size`: number of all crops.
    """

    keys: NDArray[np.int64]
    similarities: NDArray[np.float32]
    compared: int
    gallery_size: int


@dataclass(frozen=True)
class SavedState:
    """What a snapshot holds: `size` crops of one model, complete up to change number `last_sequence`.

    Snapshots that end before change number `last_removal` may hold crops that are deleted. None in snapshots of
    versions that kept texts of deleted crops.
    """

    model_id: str
    size: int
    last_sequence: int
    last_removal: int | None = None


class VectorIndex(Protocol):
    """A searchable index of one model's embeddings. It is a cache: it can be rebuilt from the database at any time.

    All methods block and are thread-safe: searches run concurrently, changes exclusively. If the index is on a server,
    all but `model_id` raise IndexUnreachable or IndexLost.
    """

    @property
    def model_id(self) -> str:
        """The model of the embeddings."""

    @property
    def size(self) -> int:
        """Number of crops."""

    @property
    def last_sequence(self) -> int:
        """Number of the last applied change; 0 before the first."""

    @property
    def outgrown(self) -> bool:
        """Whether the index should be rebuilt from the rows of the database, while it goes on answering."""

    def sample_size(self, crops: int) -> int:
        """Number of embeddings that `prepare` needs for a gallery of this many crops; 0 if it need not be called."""

    def prepare(self, sample: NDArray[np.float16], crops: int) -> None:
        """Prepare an empty index for `load` of about this many crops; `sample` `(N, 2048)` is a random part of them."""

    def apply(self, changes: Sequence[Change]) -> frozenset[int]:
        """Apply changes, in ascending order of their sequence; searches that start afterwards see them.

        Idempotent: changes up to `last_sequence` and removals of absent keys are ignored; the addition of a present key
        replaces its fields. Returns the keys of refused additions, whose embeddings are not 2048 finite numbers; all
        other changes are applied.
        """

    def load(self, rows: Sequence[Addition], last_sequence: int) -> frozenset[int]:
        """Add crops regardless of their sequence, for a rebuild from the rows of the database.

        `last_sequence` is that of the database before the first row was read; `apply` gets the changes after it, some
        of which the rows may contain. May be called many times, also without rows. Returns refused keys like `apply`.
        """

    def search(self, queries: NDArray[np.float32], crop_filter: Filter, top_k: int) -> list[IndexResult]:
        """Of the crops that pass the filter, the `top_k` most similar to each of the queries `(N, 2048)`, or all.

        An approximate index may miss some of them; it never gives fewer candidates than that. Candidates of equal
        similarity are sorted by key; if several compete for the last place, any of them may get it. Raises ValueError
        if queries are not rows of 2048 finite numbers or `top_k` is below 1.
        """

    def maintain(self) -> None:
        """Run maintenance that keeps the index small and fast, once after a rebuild and then from time to time.

        Searches and changes run concurrently, without long pauses; only one thread may run maintenance.
        """

    def close(self) -> None:
        """Cancel running maintenance and release connections."""


class SnapshotIndex(VectorIndex, Protocol):
    """An index in the process's memory, saved in snapshots."""

    @property
    def last_removal(self) -> int:
        """Number of the last change that removed a crop: earlier snapshots may hold it."""

    def save(self, folder: Path) -> SavedState:
        """Write the index into an empty folder, concurrently with searches and changes, and return its state.

        Nothing of removed crops is written.
        The adapter's `restore(folder, state)` reads it back or raises SnapshotError.
        """
