"""Paths of requests behind a proxy."""

from starlette.types import Scope


def path_of(scope: Scope) -> str:
    """The path of a request without the prefix."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
