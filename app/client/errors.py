"""The errors of the command line; each message says what was wrong and what to do."""


class ClientError(Exception):
    """An error that the commands print as one sentence, with exit code 2."""


class SourceError(ClientError):
    """The source of an import does not exist or has an unknown layout."""


class Unreachable(ClientError):
    """No service answers at the URL, or the connection was lost."""


class Refused(ClientError):
    """The service responded with an error; `status` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
