"""A crop as a row of a Milvus collection, and a filter as an expression over such rows."""

import hashlib
import json
from typing import Any

import numpy as np

from app.index.port import Addition, AtLeast, Condition, Filter, HasAttribute, OneOf

KEY, VECTOR = "key", "vector"
CAMERA, CAPTURED, TRACK, PERSON, ATTRIBUTES = "camera_id", "captured_at", "track_id", "person_id", "attributes"
"""The columns; but for the first two, they are named like the fields of `CropColumns`."""

_OPTIONAL = (TRACK, PERSON)

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
"""Characters that must be escaped in a literal; the rest stays as it is, as not every server knows other escapes."""


def row_of(addition: Addition) -> dict[str, Any]:
    """The row of a crop."""
    columns = addition.columns
    attributes = {} if columns.attributes is None else json.loads(columns.attributes)
    return {
        KEY: addition.key,
        VECTOR: addition.embedding.astype(np.float32),
        CAMERA: columns.camera_id,
        CAPTURED: columns.captured_at,
        TRACK: _optional(columns.track_id),
        PERSON: _optional(columns.person_id),
        ATTRIBUTES: [_pair(name, value) for name, value in attributes.items()],
    }


def expression(crop_filter: Filter) -> str:
    """A filter in Milvus's expression language; empty if it has no conditions."""
    return " and ".join(map(_term, crop_filter.conditions()))


def _term(condition: Condition) -> str:
    match condition:
        case OneOf(column, texts, negated):
            values = sorted(_optional(text) if column in _OPTIONAL else text for text in texts)
            return f"{column} {'not in' if negated else 'in'} [{', '.join(map(_literal, values))}]"
        case AtLeast(column, bound, negated):
            return f"{column} {'<' if negated else '>='} {bound}"
        case HasAttribute(name, value):
            return f"array_contains({ATTRIBUTES}, {_literal(_pair(name, json.loads(value)))})"


def _optional(text: str | None) -> str:
    """Encode an optional text so that None differs from an empty text; Milvus before 2.5 has no nulls."""
    return "" if text is None else f"={text}"


def _pair(name: str, value: Any) -> str:
    """A hash of a name and a JSON value, 32 characters: Milvus limits the length of texts."""
    text = json.dumps([name, value], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _literal(text: str) -> str:
    return f'"{text.translate(_ESCAPES)}"'
