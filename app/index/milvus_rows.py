"""A crop as a row of a Milvus collection, and a filter as an expression over such rows."""

import hashlib
import json
from typing import Any

import numpy as np

from app.index.port import Addition, Filter

KEY, VECTOR = "key", "vector"
CAMERA, CAPTURED, TRACK, PERSON, ATTRIBUTES = "camera_id", "captured_at", "track_id", "person_id", "attributes"

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
    """A filter in Milvus's expression language; empty if it tests nothing."""
    tests: list[str] = []
    if crop_filter.camera_ids:
        tests.append(f"{CAMERA} in [{', '.join(map(_literal, sorted(crop_filter.camera_ids)))}]")
    if crop_filter.exclude_camera_ids:
        tests.append(f"{CAMERA} not in [{', '.join(map(_literal, sorted(crop_filter.exclude_camera_ids)))}]")
    if crop_filter.captured_from is not None:
        tests.append(f"{CAPTURED} >= {crop_filter.captured_from}")
    if crop_filter.captured_to is not None:
        tests.append(f"{CAPTURED} < {crop_filter.captured_to}")
    if crop_filter.person_id is not None:
        tests.append(f"{PERSON} == {_literal(_optional(crop_filter.person_id))}")
    if crop_filter.track_id is not None:
        tests.append(f"{TRACK} == {_literal(_optional(crop_filter.track_id))}")
    for name, value in sorted(crop_filter.attributes):
        tests.append(f"array_contains({ATTRIBUTES}, {_literal(_pair(name, json.loads(value)))})")
    return " and ".join(tests)


def _optional(text: str | None) -> str:
    """Encode an optional text so that None differs from an empty text; Milvus before 2.5 has no nulls."""
    return "" if text is None else f"={text}"


def _pair(name: str, value: Any) -> str:
    """A hash of a name and a JSON value, 32 characters: Milvus limits the length of texts."""
    text = json.dumps([name, value], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _literal(text: str) -> str:
    return f'"{text.translate(_ESCAPES)}"'
