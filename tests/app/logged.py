"""What the service logs in a test."""

from structlog.typing import EventDict

Logged = list[EventDict]
"""Log events in their order, each with its fields and `log_level`."""
