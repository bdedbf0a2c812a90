"""Figures for people and for JSON: one that is not defined is a dash for people and null in JSON, never NaN."""

import json
import math
from collections.abc import Mapping
from typing import Any

DASH = "\N{EN DASH}"
"""Printed where a figure is not defined."""


def percent(share: float, digits: int = 1) -> str:
    """A fraction of 1 in per cent.

    >>> percent(0.8768), percent(float("nan")) == DASH
    ('87.7 %', True)
    """
    return f"{hundredths(share, digits)} %" if math.isfinite(share) else DASH


def hundredths(share: float, digits: int = 2) -> str:
    """A fraction of 1 in hundredths, for a table whose title names the unit.

    >>> hundredths(0.8768), hundredths(float("nan")) == DASH
    ('87.68', True)
    """
    return f"{100 * share:.{digits}f}" if math.isfinite(share) else DASH


def size(count: float) -> str:
    """A number of bytes.

    >>> size(1_234_567), size(2_500_000_000)
    ('1.2 MB', '2.5 GB')
    """
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


def to_json(value: object) -> str:
    """A value as JSON, with null for numbers that are not finite, which JSON does not have.

    >>> to_json({"rank1": float("nan"), "fnmr": {0.001: 0.25}})
    '{"rank1": null, "fnmr": {"0.001": 0.25}}'
    """
    return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value
