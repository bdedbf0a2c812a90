"""Canonical JSON: equal values have equal texts."""

import json
from typing import Any

_WHOLE_IN_FLOATS = 2**53
"""Larger floats cannot represent every integer, so a whole float is not converted to an integer from here on."""


def canonical_json(value: Any) -> str:
    """The canonical text of a JSON value: sorted keys, no blanks, minimal escapes; 1.0 becomes 1, true stays true."""
    return json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _canonical(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE_IN_FLOATS:
        return int(value)
    return value
