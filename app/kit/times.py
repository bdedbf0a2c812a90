"""Instants as whole microseconds since 1970 UTC, as the database and the index hold them."""

from datetime import UTC, datetime, timedelta, timezone

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def to_microseconds(moment: datetime) -> int:
    """An aware datetime as microseconds since 1970 UTC."""
    return (moment - _EPOCH) // _MICROSECOND


def utc_offset_seconds(moment: datetime) -> int:
    """How many seconds an aware datetime's zone is ahead of UTC."""
    offset = moment.utcoffset()
    return 0 if offset is None else int(offset.total_seconds())


def from_microseconds(microseconds: int, offset_seconds: int = 0) -> datetime:
    """The aware datetime of an instant, in the zone that is so many seconds ahead of UTC."""
    zone = timezone(timedelta(seconds=offset_seconds)) if offset_seconds else UTC
    return (_EPOCH + timedelta(microseconds=microseconds)).astimezone(zone)


def now_microseconds() -> int:
    """This instant."""
    return to_microseconds(datetime.now(UTC))
