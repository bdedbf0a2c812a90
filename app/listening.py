"""Listening to what PostgreSQL notifies, on a connection of its own that comes back when it is lost."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import psycopg
import structlog
from psycopg.sql import SQL, Identifier

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 30.0  # seconds before a lost connection is made again
_CONNECTION: Mapping[str, Any] = {
    "connect_timeout": 10,
    # Nothing is ever sent on this connection, so nothing else would tell that the other end is gone.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}

_log = structlog.get_logger()


async def notifications(connection_parameters: Mapping[str, Any], channel: str) -> AsyncIterator[None]:
    """An item whenever PostgreSQL notifies on a channel; also when listening begins, for what was missed before.

    A connection that is lost or cannot be made raises nothing: it is made again, after pauses that grow.
    """
    name = f"passerby, listening to {channel}"
    parameters = {**_CONNECTION, "application_name": name, **connection_parameters}
    pause = _FIRST_PAUSE
    lost = False
    while True:
        try:
            async with await psycopg.AsyncConnection.connect(**parameters, autocommit=True) as connection:
                await connection.execute(SQL("LISTEN {}").format(Identifier(channel)))
                if lost:
                    _log.info("the database notifies again", channel=channel)
                lost, pause = False, _FIRST_PAUSE
                yield None
                async for _ in connection.notifies():
                    yield None
        except psycopg.Error as error:
            if not lost:
                _log.warning("the database notifies no more; trying again", channel=channel, error=str(error).strip())
            lost = True
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
