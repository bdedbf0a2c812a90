"""The library's errors, in one hierarchy; each message says what was wrong, with which value, and what to do."""

from app.problem import Problem


class PasserbyError(Exception):
    """The base of all errors of the library."""


class CheckpointError(PasserbyError):
    """A checkpoint is missing or damaged, or the package that runs it is not installed."""


class PictureError(PasserbyError):
    """A picture cannot be used.

    position: its place among those given, from 0; kind: the reason in one word, such as `damaged`; reason: in words;
    name: its path, where it was given as one.
    """

    def __init__(self, reason: str, position: int, kind: str, name: str | None = None) -> None:
        super().__init__(f"pictures[{position}]{f' ({name})' if name else ''}: {reason}")
        self.position = position
        self.kind = kind
        self.reason = reason
        self.name = name


class ServiceError(PasserbyError):
    """A request to a service failed, or could not be made."""


class Unreachable(ServiceError):
    """No service answers at the URL, or the connection was lost."""


class UnexpectedAnswer(ServiceError):
    """What answers is no Passerby, or one of another version."""


class Refused(ServiceError):
    """The service answered with an error.

    status: of HTTP; title: the kind of error in words; detail: what was wrong with this request, and what to do;
    problem: all that the service said; None where what answered, such as a proxy, sent no problem+json.
    """

    def __init__(self, message: str, status: int, title: str, detail: str, problem: Problem | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.title = title
        self.detail = detail
        self.problem = problem


class InvalidRequest(Refused):
    """400, 413, 422: the request, one of its pictures or its size is not accepted."""


class Unauthorised(Refused):
    """401: the API key is missing or wrong."""


class NotFound(Refused):
    """404: what the request names does not exist."""


class Conflict(Refused):
    """409: the request conflicts with the present state or a running operation."""


class Busy(Refused):
    """429: the service had too many requests for as long as the client repeats one."""


class NotReady(Refused):
    """503: a part of the service that the request needs does not work now."""


_BY_STATUS: dict[int, type[Refused]] = {
    400: InvalidRequest,
    401: Unauthorised,
    404: NotFound,
    409: Conflict,
    413: InvalidRequest,
    422: InvalidRequest,
    429: Busy,
    503: NotReady,
}


def refused_as(status: int) -> type[Refused]:
    """The class of error for an HTTP status."""
    return _BY_STATUS.get(status, Refused)
