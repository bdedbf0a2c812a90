"""Instants as whole microseconds since 1970 UTC, the form in the database and the index."""

from datetime import UTC, datetime, timedelta, timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_microseconds(moment: datetime) -> int:
    """An aware datetime as microseconds since 1970 UTC."""
    return (moment - _EPOCH) // _MICROSECOND


def utc_offset_seconds(moment: datetime) -> int:
    """The UTC offset of an aware datetime, in seconds."""
    offset = moment.utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


def from_microseconds(microseconds: int, offset_seconds: int = 0) -> datetime:
    """The aware datetime of an instant, in a zone with this UTC offset."""
    zone = timezone(timedelta(seconds=offset_seconds)) if offset_seconds else UTC
    return (_EPOCH + timedelta(microseconds=microseconds)).astimezone(zone)


def now_microseconds() -> int:
    """The present time."""
    return to_microseconds(datetime.now(UTC))
