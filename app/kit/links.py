"""Links to this service in its answers, under the path prefix that a proxy gives it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from starlette.types import Scope

_root_path: ContextVar[str] = ContextVar("root_path", default="")


@contextmanager
def links_under(root_path: str) -> Iterator[None]:
    """Let the links that are made in this block begin with a prefix."""
    token = _root_path.set(root_path)
    try:
        yield
    finally:
        _root_path.reset(token)


def link(path: str) -> str:
    """The link to a path of the service."""
    return _root_path.get() + path


def path_of(scope: Scope) -> str:
    """The path of a request without the prefix."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
