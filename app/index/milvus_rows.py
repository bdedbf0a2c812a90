"""A crop as a row of a Milvus collection, and a filter as an expression over such rows."""

import hashlib
import json
from typing import Any

import numpy as np

from app.index.port import Addition, Filter

KEY, VECTOR = "key", "vector"
CAMERA, CAPTURED, TRACK, PERSON, ATTRIBUTES = "camera_id", "captured_at", "track_id", "person_id", "attributes"

_ESCAPES = str.maketrans({"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"})
"""What no server takes as it stands; all other characters go as they are, as not every server knows other escapes."""


def row_of(addition: Addition) -> dict[str, Any]:
    """The row of a crop that came in."""
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


def expression(which: Filter) -> str:
    """The rows that pass a filter, in Milvus's language; empty where all do."""
    tests: list[str] = []
    if which.camera_ids:
        tests.append(f"{CAMERA} in [{', '.join(map(_literal, sorted(which.camera_ids)))}]")
    if which.exclude_camera_ids:
        tests.append(f"{CAMERA} not in [{', '.join(map(_literal, sorted(which.exclude_camera_ids)))}]")
    if which.captured_from is not None:
        tests.append(f"{CAPTURED} >= {which.captured_from}")
    if which.captured_to is not None:
        tests.append(f"{CAPTURED} < {which.captured_to}")
    if which.person_id is not None:
        tests.append(f"{PERSON} == {_literal(_optional(which.person_id))}")
    if which.track_id is not None:
        tests.append(f"{TRACK} == {_literal(_optional(which.track_id))}")
    for name, value in sorted(which.attributes):
        tests.append(f"array_contains({ATTRIBUTES}, {_literal(_pair(name, json.loads(value)))})")
    return " and ".join(tests)


def _optional(text: str | None) -> str:
    """A text that may be missing, which is not the same as empty; Milvus before 2.5 knows no nulls."""
    return "" if text is None else f"={text}"


def _pair(name: str, value: Any) -> str:
    """A name and a JSON value as 32 characters, whatever their length: Milvus bounds that of texts."""
    text = json.dumps([name, value], sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _literal(text: str) -> str:
    return f'"{text.translate(_ESCAPES)}"'
