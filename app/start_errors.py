"""Says in one sentence what keeps a service from starting: what is wrong, where, and what to do."""

import structlog
from alembic.util import CommandError
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from app.database import DatabaseUrlError, database_url_of, shown_url
from app.embedding.engine import EngineError
from app.index.port import IndexLost, IndexUnreachable
from app.places import FolderInUse, MisplacedGallery
from app.settings import Settings
from model.errors import ModelError

_log = structlog.get_logger()


class StartError(Exception):
    """The service cannot start; the message is one sentence."""


def start_error(error: Exception, settings: Settings) -> StartError:
    """The sentence for an error of any kind. The log has its traceback at the level `debug`."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    _log.debug("the service failed", exc_info=error)
    return error if isinstance(error, StartError) else StartError(" ".join(_sentence(error, settings).split()))


def _sentence(error: Exception, settings: Settings) -> str:
    match error:
        case EngineError() | ModelError() if settings.checkpoint is not None:
            return f"{error}; PASSERBY_CHECKPOINT is {settings.checkpoint}, without it the bundled checkpoint is used"
        case (
            EngineError()
            | ModelError()
            | DatabaseUrlError()
            | FolderInUse()
            | MisplacedGallery()
            | IndexUnreachable()
            | IndexLost()
        ):
            return str(error)
        case CommandError():
            return f"{_database(settings)} was written by another version of Passerby: {error}; start that version"
        case DBAPIError() | PoolTimeout():
            reason = error.orig if isinstance(error, DBAPIError) else error
            hint = (
                "start it, or correct PASSERBY_DATABASE_URL"
                if settings.database_url
                else "PASSERBY_DATA_DIR is its folder"
            )
            return f"{_database(settings)} cannot be used: {reason}; {hint}"
        case OSError() if error.filename is not None:
            return f"{error.filename}: {error.strerror}"
        case _:
            return f"{type(error).__name__}: {error}; PASSERBY_LOG_LEVEL=debug prints where"


def _database(settings: Settings) -> str:
    return f"the database {shown_url(database_url_of(settings))}"
