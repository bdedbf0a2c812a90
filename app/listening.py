"""Listens to PostgreSQL's notifications on a separate connection, and reconnects when it is lost."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any

import psycopg
import structlog
from psycopg.sql import SQL, Identifier

_FIRST_PAUSE, _MAX_PAUSE = 0.1, 30.0  # seconds before a reconnect
_CONNECTION: Mapping[str, Any] = {
    "connect_timeout": 10,
    # Nothing is sent on this connection, so only keep-alives detect that the server is gone.
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}

_log = structlog.get_logger()


async def notifications(connection_parameters: Mapping[str, Any], channel: str) -> AsyncIterator[None]:
    """An item for each notification on a channel; also after each connect, for notifications that were missed before.

    A lost or failed connection raises nothing: it is retried with exponential back-off.
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
                    _log.info("the connection for notifications is back", channel=channel)
                lost, pause = False, _FIRST_PAUSE
                yield None
                async for _ in connection.notifies():
                    yield None
        except psycopg.Error as error:
            if not lost:
                _log.warning(
                    "the connection for notifications is lost; reconnecting", channel=channel, error=str(error).strip()
                )
            lost = True
        await asyncio.sleep(pause)
        pause = min(2 * pause, _MAX_PAUSE)
