"""The conditions of a filter in SQL."""

from typing import Any

from sqlalchemy import ColumnElement, func

from app.gallery.attributes import line_of
from app.gallery.tables import Crop
from app.index.port import AtLeast, Condition, HasAttribute, OneOf


def sql_of(condition: Condition) -> ColumnElement[bool]:
    """The SQL of one condition of a filter, on the table of crops."""
    meets: ColumnElement[bool]
    match condition:
        case OneOf(name, texts, negated):
            meets = column_of(name).in_(texts)
        case AtLeast(name, bound, negated):
            meets = column_of(name) >= bound
        case HasAttribute(name, value):  # not LIKE, which ignores case on SQLite
            return func.replace(Crop.attribute_lines, line_of((name, value)), "") != Crop.attribute_lines
    return ~meets if negated else meets


def column_of(name: str) -> ColumnElement[Any]:
    """A column of the table of crops."""
    return Crop.core().c[name]
