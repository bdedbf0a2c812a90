"""The crops that a change or a deletion is for, as the database's conditions take them."""

from dataclasses import dataclass

from app.index.port import Filter


@dataclass(frozen=True)
class Selection:
    """The crops that pass a filter and, if there are any ids, have one of them."""

    crop_filter: Filter
    crop_ids: frozenset[str] = frozenset()
