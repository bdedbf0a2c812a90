"""The tests of the benchmarks that run services use the fixtures of the service's tests."""

from tests.app.conftest import database_url, postgresql, run, settings, tiny_checkpoint

__all__ = ["database_url", "postgresql", "run", "settings", "tiny_checkpoint"]
