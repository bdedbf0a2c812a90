"""JSON values as texts that are equal where the values are."""

import json
from typing import Any

_WHOLE_IN_FLOATS = 2**53
"""From here on floats skip whole numbers: such a float stands for a range, and is no integer's equal."""


def canonical_json(value: Any) -> str:
    """One text for each JSON value: keys sorted, no blanks, no escapes but the needed ones; 1.0 is 1, true is not."""
    return json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _canonical(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_canonical(one) for one in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < _WHOLE_IN_FLOATS:
        return int(value)
    return value
