"""The errors of the command line that its client does not have; each message says what was wrong and what to do."""

from passerby.errors import PasserbyError


class ClientError(PasserbyError):
    """An error that the commands print as one sentence, with exit code 2, as all of the library."""


class SourceError(ClientError):
    """The source of an import does not exist or has an unknown layout."""
