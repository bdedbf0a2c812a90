"""What a user of the command line can get wrong; each message says what was wrong and what to do."""


class ClientError(Exception):
    """Anything that the commands answer with one sentence and exit code 2."""


class SourceError(ClientError):
    """What should be imported is not there, or is not laid out in a way that can be read."""


class Unreachable(ClientError):
    """No service answers at the URL, or the connection broke."""


class Refused(ClientError):
    """The service answered with an error; `status` is the HTTP status."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
